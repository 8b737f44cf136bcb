"""Documents to token sequences: deduplicate, split, tokenize, pack.

Belongs here: what turns a stream of documents into corpus_documents, tokenized_corpus and
vocabulary. Does not belong here: reading documents (corpora/readers.py).
"""

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.corpora.encoding import DocumentEncoder
from mechinterp_assets.corpora.readers import Document
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.corpora.skipped_rows import CorpusError

SPLITS = ("train", "held_out")
DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class TokenizedCorpus:
    """Frames in the columns of the tables of the same names, and what was left out.

    n_tail_tokens: tokens of documents in no sequence, where a sequence would not be whole.
    n_special_names: names of special tokens in the documents' texts.
    """

    documents: pl.DataFrame
    sequences: pl.DataFrame
    n_duplicates: int
    n_tail_tokens: int
    n_special_names: int


_Piece = tuple[NDArray[np.int32], NDArray[np.int64]]


@dataclass
class _Packer:
    """Joins one split's documents with BOS between them and cuts sequences of `width` tokens."""

    width: int
    tokens: list[NDArray[np.int32]] = field(default_factory=list)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    length: int = 0

    def add(self, ids: NDArray[np.int32], document: int, bos: int) -> Iterator[_Piece]:
        """The sequences that a document completes: their tokens, and the document of each."""
        piece = np.concatenate([ids, np.array([bos], np.int32)])
        self.tokens.append(piece)
        self.owners.append(np.full(len(piece), document, np.int64))
        self.length += len(piece)
        if self.length < self.width:
            return
        tokens, owners = np.concatenate(self.tokens), np.concatenate(self.owners)
        whole = self.length // self.width * self.width
        for start in range(0, whole, self.width):
            yield tokens[start : start + self.width], owners[start : start + self.width]
        self.tokens, self.owners = [tokens[whole:]], [owners[whole:]]
        self.length -= whole


@dataclass
class _DocumentPacker:
    """Cuts sequences of `width` tokens from one document at a time."""

    width: int
    length: int = 0

    def add(self, ids: NDArray[np.int32], document: int, bos: int) -> Iterator[_Piece]:
        """The whole sequences of a document: their tokens, and the document of each."""
        whole = len(ids) // self.width * self.width
        self.length += len(ids) - whole
        for start in range(0, whole, self.width):
            yield ids[start : start + self.width], np.full(self.width, document, np.int64)


def split_of(document: Document, settings: CorpusSettings) -> str:
    """Split of a document, by a hash of its id (or title): adding documents moves none."""
    by_title = settings.split_by == "title" and document.title
    group = document.title if by_title else document.doc_id
    digest = hashlib.sha256(f"{settings.seed}:{group}".encode()).digest()
    return SPLITS[int.from_bytes(digest[:8]) / 2**64 < settings.held_out_fraction]


def tokenize_corpus(
    documents: Iterable[Document],
    tokenizer: Any,
    settings: CorpusSettings,
    bos_token_id: int,
    *,
    prepend_bos: bool = True,
) -> TokenizedCorpus:
    """Deduplicate by text, split by document, tokenize, and pack into sequences.

    A sequence is BOS followed by context_size - 1 tokens, or context_size tokens without it.
    Documents of one split follow each other with BOS between them, or are cut one by one
    (settings.packing); no sequence mixes splits. Reading stops when max_tokens are packed; the last
    incomplete sequence of each split, or of each document, is left out (n_tail_tokens).
    Raises CorpusError when no whole sequence results, or when a split stays empty.
    """
    width = settings.context_size - prepend_bos
    packing = _Packer if settings.packing == "concatenated" else _DocumentPacker
    packers = {split: packing(width) for split in SPLITS}
    encoder = DocumentEncoder(tokenizer, as_tokens=settings.special_tokens == "as_tokens")
    seen: set[bytes] = set()
    n_duplicates = n_packed = 0
    rows: list[dict[str, Any]] = []
    sequences: list[NDArray[np.int32]] = []
    splits: list[str] = []
    owners: list[list[int]] = []
    stream = iter(documents)
    while n_packed < settings.max_tokens:
        chunk = list(itertools.islice(stream, DOCUMENTS_AT_ONCE))
        if not chunk:
            break
        fresh: list[tuple[Document, bytes]] = []
        for document in chunk:
            digest = hashlib.sha256(document.text.encode()).digest()
            if digest in seen:
                n_duplicates += 1
            else:
                seen.add(digest)
                fresh.append((document, digest))
        if not fresh:
            continue
        encoded = encoder([document.text for document, _ in fresh])
        for (document, digest), token_ids in zip(fresh, encoded, strict=True):
            if n_packed >= settings.max_tokens:
                break
            split = split_of(document, settings)
            ids = np.asarray(token_ids, np.int32)
            number = len(rows)
            rows.append(_document_row(number, document, split, len(ids), digest))
            for tokens, owner in packers[split].add(ids, number, bos_token_id):
                if n_packed >= settings.max_tokens:
                    break
                sequences.append(tokens)
                splits.append(split)
                owners.append(np.unique(owner).tolist())
                n_packed += settings.context_size
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        raise CorpusError(
            f"{len(rows)} documents give no whole sequence of {settings.context_size} tokens for "
            f"{missing} (corpus.packing: {settings.packing}); give more text, a smaller "
            "corpus.context_size or another corpus.held_out_fraction"
        )
    stacked = np.empty((len(sequences), settings.context_size), np.int32)
    stacked[:, 0] = bos_token_id
    stacked[:, int(prepend_bos) :] = np.stack(sequences)
    frame = pl.DataFrame(
        {
            "sequence": np.arange(len(sequences), dtype=np.int64),
            "split": splits,
            "documents": pl.Series(owners, dtype=pl.List(pl.Int64)),
            "n_tokens": np.full(len(sequences), settings.context_size, np.int32),
            "token_ids": pl.Series(stacked).cast(pl.List(pl.Int32)),
        }
    )
    return TokenizedCorpus(
        documents=pl.DataFrame(rows),
        sequences=frame,
        n_duplicates=n_duplicates,
        n_tail_tokens=sum(packer.length for packer in packers.values()),
        n_special_names=encoder.n_names,
    )


def token_matrix(sequences: pl.DataFrame) -> NDArray[np.int64]:
    """Token ids [sequence, position] of tokenized_corpus; all sequences are equally long."""
    lists = sequences["token_ids"]
    width = lists.list.len()
    if width.n_unique() > 1:
        raise CorpusError(f"sequences of different lengths: {width.unique().to_list()}")
    flat = lists.explode().to_numpy()
    return flat.reshape(len(lists), -1).astype(np.int64)


def vocabulary_frame(
    token_strings: Sequence[str],
    token_bytes: Sequence[bytes | None],
    special_ids: Collection[int],
    sequences: pl.DataFrame,
) -> pl.DataFrame:
    """One row per token id with its count per split; position 0 (BOS) is not counted."""
    size = len(token_strings)
    counts = {
        split: np.bincount(
            token_matrix(sequences.filter(pl.col("split") == split))[:, 1:].ravel(), minlength=size
        )
        for split in SPLITS
    }
    return pl.DataFrame(
        {
            "token_id": np.arange(size, dtype=np.int32),
            "token": token_strings,
            "bytes_hex": pl.Series(
                [b if b is None else b.hex() for b in token_bytes], dtype=pl.String
            ),
            "is_special": [i in special_ids for i in range(size)],
            "count_train": counts["train"].astype(np.int64),
            "count_held_out": counts["held_out"].astype(np.int64),
        }
    )


def _document_row(
    number: int, document: Document, split: str, n_tokens: int, digest: bytes
) -> dict[str, Any]:
    return {
        "document": number,
        "doc_id": document.doc_id,
        "title": document.title,
        "author": document.author,
        "document_source": document.source,
        "license": document.license,
        "split": split,
        "n_characters": len(document.text),
        "n_text_tokens": n_tokens,
        "text_hash": digest.hex()[:16],
    }
