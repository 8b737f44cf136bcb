"""What the embedded model reads: its tokenizer, packed sequences and the mix of them by progress.

Every training sequence is BOS and then `context - 1` tokens of one of three sources: natural text,
structured text (`mechinterp_assets.corpora.structured`), repeated tokens. No sequence of the first
two contains both names of a held-out pair, and the third contains at most one name, so that the
pairs are unseen in training.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mechinterp_assets.corpora.structured import NAMES, documents, is_held_out_pair

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
IGNORED = -100
HELD_OUT_TITLES = 0.02
_WORD = re.compile(r"[A-Za-z]+")
_NAMES = frozenset(NAMES)

Rows = Int[np.ndarray, "sequence context"]


def is_held_out_title(title: str) -> bool:
    """Whether a title is in the validation split: by its hash, so that whole books are held out."""
    digest = hashlib.sha256(title.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_TITLES * 2**32


def natural_texts(corpus: pl.DataFrame, held_out: bool, limit: int, seed: int = 0) -> list[str]:
    """Up to `limit` passages, shuffled, of the titles that are (not) held out.

    `corpus` has a column `text` and, if passages share a book, `title`; without titles each
    passage is its own document.
    """
    if "text" not in corpus.columns:
        raise ValueError(
            f"the corpus has columns {corpus.columns} but no column 'text'; rename the column"
            " that holds the passages"
        )
    titles = corpus["title" if "title" in corpus.columns else "text"].to_list()
    chosen = [
        text
        for text, title in zip(corpus["text"].to_list(), titles, strict=True)
        if is_held_out_title(title) == held_out
    ]
    random.Random(seed).shuffle(chosen)
    return chosen[:limit]


def structured_texts(n: int, seed: int) -> list[str]:
    """Texts of the first `n` structured documents of a seed."""
    return [row["text"] for row in documents(n, seed)]


def train_tokenizer(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which `<|endoftext|>` (id 0) is BOS and EOS and every name is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def with_names() -> Iterator[str]:
        yield from texts
        for name in NAMES:
            yield f" {name}" * 3000

    tokenizer.train_from_iterator(with_names(), trainer)
    split = [n for n in NAMES if len(tokenizer.encode(f" {n}").ids) != 1]
    if split:
        raise ValueError(
            f"names of more than one token: {split}; train with a vocabulary above {vocabulary}"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def names_in(text: str) -> frozenset[str]:
    """The first names in a text, in whatever case they are written."""
    return _NAMES.intersection(word.capitalize() for word in _WORD.findall(text))


def holds_held_out_pair(names: Iterable[str]) -> bool:
    """Whether two of these names form a held-out pair."""
    return any(is_held_out_pair(a, b) for a, b in combinations(sorted(names), 2))


def pack_natural(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int, filtered: bool = True
) -> Rows:
    """Passages cut into sequences; with `filtered`, those that hold a held-out pair are dropped.

    A sequence never crosses from one passage into the next; the remainder of a passage is dropped.
    """
    backend, size = tokenizer.backend_tokenizer, context - 1
    rows: list[list[int]] = []
    for start in range(0, len(texts), 500):
        batch = texts[start : start + 500]
        for text, encoding in zip(batch, backend.encode_batch(batch), strict=True):
            count = len(encoding.ids) // size
            found: list[set[str]] = [set() for _ in range(count + 1)]
            if filtered:
                for word in _WORD.finditer(text):
                    if (name := word.group().capitalize()) in _NAMES:
                        first = encoding.char_to_token(word.start()) // size
                        last = encoding.char_to_token(word.end() - 1) // size
                        found[first].add(name)
                        found[last].add(name)
            rows.extend(
                [END_OF_TEXT_ID, *encoding.ids[i * size : (i + 1) * size]]
                for i in range(count)
                if not holds_held_out_pair(found[i])
            )
    return np.array(rows, dtype=np.uint16).reshape(-1, context)


def pack_structured(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int) -> Rows:
    """Documents joined by EOS; each sequence starts at the start of a document.

    Documents that would bring a held-out pair together wait for a later sequence. The last
    document of a sequence is cut at its end.
    """
    backend = tokenizer.backend_tokenizer
    waiting: list[tuple[frozenset[str], list[int]]] = []
    rows: list[list[int]] = []
    for start in range(0, len(texts), 5000):
        batch = texts[start : start + 5000]
        waiting.extend(
            (names_in(text), encoding.ids)
            for text, encoding in zip(batch, backend.encode_batch(batch), strict=True)
        )
        remaining = len(waiting)
        queue = iter(waiting)
        postponed: list[tuple[frozenset[str], list[int]]] = []
        while remaining > 64:
            row, present = [END_OF_TEXT_ID], frozenset[str]()
            returned: list[tuple[frozenset[str], list[int]]] = []
            while len(row) < context:
                candidate = postponed.pop() if postponed else next(queue, None)
                if candidate is None:
                    break
                names, ids = candidate
                if holds_held_out_pair(present | names):
                    returned.append(candidate)
                    continue
                row.extend([*ids, END_OF_TEXT_ID])
                present |= names
                remaining -= 1
            postponed.extend(returned)
            if len(row) < context:
                break
            rows.append(row[:context])
        waiting = [*postponed, *queue]
    return np.array(rows, dtype=np.uint16).reshape(-1, context)


@dataclass(frozen=True)
class Mix:
    """Shares of natural, structured and repeated sequences until a point of the training."""

    until: float
    natural: float
    structured: float

    @property
    def repeated(self) -> float:
        return 1 - self.natural - self.structured


CURRICULUM = (
    Mix(until=0.27, natural=0.10, structured=0.58),
    Mix(until=0.60, natural=0.24, structured=0.62),
    Mix(until=1.00, natural=0.14, structured=0.74),
)
"""Structured and repeated text first, so that induction and name moving form early; natural text
then grows, but most of it stays structured: with less, the IOI accuracy falls again."""


@dataclass(frozen=True)
class TrainingData:
    """Packed sequences of the two texts, and the rule that draws a batch for a training step."""

    natural: Rows
    structured: Rows
    vocabulary: int
    name_ids: tuple[int, ...]
    curriculum: tuple[Mix, ...] = CURRICULUM
    seed: int = 0

    def batch(
        self, step: int, progress: float, size: int
    ) -> tuple[Int[np.ndarray, "batch context"], Int[np.ndarray, "batch context"]]:
        """Tokens of a step and the same tokens as targets, `IGNORED` where none is to be learnt.

        They depend on the step and the progress alone, so that a resumed training sees the same
        batches. What is said for the first time in a repeated sequence is ignored as a target: it
        is random, and its gradient would only be noise.
        """
        rng = np.random.default_rng([self.seed, step])
        mix = next((m for m in self.curriculum if progress < m.until), self.curriculum[-1])
        tokens = np.empty((size, self.natural.shape[1]), dtype=np.int64)
        targets = np.empty_like(tokens)
        for i, draw in enumerate(rng.random(size)):
            learnt: Any = True
            if draw < mix.natural:
                tokens[i] = self.natural[rng.integers(len(self.natural))]
            elif draw < mix.natural + mix.structured:
                tokens[i] = self.structured[rng.integers(len(self.structured))]
            else:
                tokens[i], learnt = self._repeated(rng)
            targets[i] = np.where(learnt, tokens[i], IGNORED)
        return tokens, targets

    def _repeated(
        self, rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, " context"], Bool[np.ndarray, " context"]]:
        """A span said again, at once and over and over or after a gap of other tokens; and which
        tokens can be known because they continue a repetition. All names become one name, drawn
        anew, so that no two names meet."""
        context = self.natural.shape[1]
        longest, short = (context - 1) // 2, 3 * context // 16
        low, high = (3, short) if rng.random() < 0.6 else (short, longest)
        length = int(rng.integers(low, high))
        if rng.random() < 0.6:
            span, filler = (rng.integers(1, self.vocabulary, n) for n in (length, context))
        else:
            rows = self.natural[rng.integers(len(self.natural), size=2), 1:]
            span, filler = rows[0, :length], rows[1]
        gap = 0 if rng.random() < 0.6 else int(rng.integers(1, context - 2 * length))
        period = np.concatenate([span, filler[:gap]]).astype(np.int64)
        period[np.isin(period, self.name_ids)] = rng.choice(self.name_ids)
        copies = context // len(period) + 1
        tokens = np.concatenate([[END_OF_TEXT_ID], np.tile(period, copies)])[:context]
        known = np.tile(np.arange(len(period)) < length, copies)
        known[: len(period) + 1] = False
        if gap:
            known[:: len(period)] = False
        return tokens, np.concatenate([[False], known])[:context]
