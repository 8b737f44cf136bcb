"""Packing keeps every token once, in order, in the split of its document."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mechinterp_assets.corpora.encoding import DocumentEncoder
from mechinterp_assets.corpora.readers import Document
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.corpora.skipped_rows import CorpusError
from mechinterp_assets.corpora.tokenize import (
    split_of,
    token_matrix,
    tokenize_corpus,
    vocabulary_frame,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.token_bytes import joined_bytes, token_bytes
from tests.model.small_tokenizers import (
    KINDS,
    TEXTS,
    adding_bos,
    byte_fallback,
    byte_level,
    unigram,
    wrapped,
)

SETTINGS = CorpusSettings(
    format="text", path=Path(), context_size=16, max_tokens=10**6, held_out_fraction=0.3, seed=1
)


def documents(count: int = 60) -> list[Document]:
    return [
        Document(f"d{i}", f"Mary gave book {i} to John at the store. " * 3) for i in range(count)
    ]


def test_packing_is_the_documents_joined_by_bos(organism: LanguageModel) -> None:
    docs = documents()
    packed = tokenize_corpus(docs, organism.tokenizer, SETTINGS, 0)
    for split in ("train", "held_out"):
        expected: list[int] = []
        for document in docs:
            if split_of(document, SETTINGS) == split:
                expected += [*organism.encode(document.text), 0]
        frame = packed.sequences.filter(pl.col("split") == split)
        matrix = token_matrix(frame)
        assert (matrix[:, 0] == 0).all()
        got = matrix[:, 1:].ravel().tolist()
        assert got == expected[: len(got)]
        assert len(expected) - len(got) < SETTINGS.context_size - 1
    assert packed.sequences["sequence"].to_list() == list(range(packed.sequences.height))


def test_no_sequence_mixes_splits(organism: LanguageModel) -> None:
    packed = tokenize_corpus(documents(), organism.tokenizer, SETTINGS, 0)
    split = dict(packed.documents.select("document", "split").iter_rows())
    for row in packed.sequences.iter_rows(named=True):
        assert {split[d] for d in row["documents"]} == {row["split"]}


def test_duplicates_are_dropped_and_budget_holds(organism: LanguageModel) -> None:
    docs = documents()
    once = tokenize_corpus(docs, organism.tokenizer, SETTINGS, 0)
    twice = tokenize_corpus([*docs, *docs], organism.tokenizer, SETTINGS, 0)
    assert twice.n_duplicates == len(docs)
    assert twice.sequences.equals(once.sequences)
    small = SETTINGS.with_changes(max_tokens=320)
    assert tokenize_corpus(docs, organism.tokenizer, small, 0).sequences["n_tokens"].sum() == 320


def test_split_does_not_move_when_documents_are_added() -> None:
    before = [split_of(d, SETTINGS) for d in documents(50)]
    assert [split_of(d, SETTINGS) for d in documents(80)][:50] == before
    share = np.mean([split_of(d, SETTINGS) == "held_out" for d in documents(3000)])
    assert 0.26 < share < 0.34
    by_title = SETTINGS.with_changes(split_by="title", seed=0)
    parts = [Document(f"d{i}", "x", title="one book") for i in range(20)]
    assert len({split_of(d, by_title) for d in parts}) == 1


def test_too_little_text_is_an_error(organism: LanguageModel) -> None:
    with pytest.raises(CorpusError, match="give more text"):
        tokenize_corpus(documents(1), organism.tokenizer, SETTINGS, 0)


def test_vocabulary_counts_tokens_but_not_position_0(organism: LanguageModel) -> None:
    packed = tokenize_corpus(documents(), organism.tokenizer, SETTINGS, 0)
    frame = vocabulary_frame(organism.token_strings(), organism.token_bytes, {0}, packed.sequences)
    matrix = token_matrix(packed.sequences)
    assert frame["count_train"].sum() + frame["count_held_out"].sum() == matrix[:, 1:].size
    mary = organism.encode(" Mary")
    assert len(mary) == 1
    row = frame.row(mary[0], named=True)
    assert row["token"] == " Mary"
    assert row["count_train"] + row["count_held_out"] == (matrix[:, 1:] == mary[0]).sum()
    assert frame.filter(pl.col("is_special"))["token_id"].to_list() == [0]


# ---- without BOS, document by document -----------------------------------------------------------


def test_sequences_without_bos_are_text_from_their_first_token(organism: LanguageModel) -> None:
    docs = documents()
    packed = tokenize_corpus(docs, organism.tokenizer, SETTINGS, 0, prepend_bos=False)
    expected: list[int] = []
    for document in docs:
        if split_of(document, SETTINGS) == "train":
            expected += [*organism.encode(document.text), 0]
    got = token_matrix(packed.sequences.filter(split="train"))
    assert got.shape[1] == SETTINGS.context_size
    assert got.ravel().tolist() == expected[: got.size]


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_separate_documents_share_no_sequence(organism: LanguageModel, prepend_bos: bool) -> None:
    docs = documents()
    settings = SETTINGS.with_changes(packing="separate")
    packed = tokenize_corpus(docs, organism.tokenizer, settings, 0, prepend_bos=prepend_bos)
    width = settings.context_size - prepend_bos
    left = 0
    for number, document in enumerate(docs):
        ids = organism.encode(document.text)
        left += len(ids) % width
        rows = packed.sequences.filter(pl.col("documents").list.first() == number)
        expected = [ids[at : at + width] for at in range(0, len(ids) - width + 1, width)]
        assert [row[int(prepend_bos) :] for row in rows["token_ids"].to_list()] == expected
        assert all(len(owners) == 1 for owners in rows["documents"].to_list())
    assert packed.n_tail_tokens == left
    starts = {ids[0] for ids in packed.sequences["token_ids"].to_list()}
    assert (starts == {0}) == prepend_bos


def test_documents_shorter_than_a_sequence_are_an_error(organism: LanguageModel) -> None:
    settings = SETTINGS.with_changes(packing="separate", context_size=64)
    with pytest.raises(CorpusError, match=r"corpus\.packing: separate"):
        tokenize_corpus(documents(), organism.tokenizer, settings, 0)


# ---- whole texts, names of special tokens --------------------------------------------------------


def test_a_long_document_is_tokenized_in_one_pass() -> None:
    """Whatever lengths the tokenizer's file names, the tokens are those of the whole text."""
    for make in (byte_level, byte_fallback):
        backend = make()
        text = " ".join(TEXTS * 400)
        whole = backend.encode(text, add_special_tokens=False).ids
        assert len(whole) > 20_000
        backend.enable_truncation(max_length=64)
        backend.enable_padding(length=64)
        tokenizer = wrapped(backend, model_max_length=64)
        documents = [Document("long", text), *(Document(f"d{i}", f"{i} the cat") for i in range(9))]
        packed = tokenize_corpus(documents, tokenizer, SETTINGS, 0)
        assert packed.documents["n_text_tokens"][0] == len(whole)
        own = packed.sequences.filter(pl.col("documents").list.first() == 0)
        ids = [i for row in own["token_ids"].to_list() for i in row[1:]]
        assert ids[: len(whole) - 20] == whole[: len(whole) - 20]


def test_one_bos_where_the_tokenizer_adds_its_own() -> None:
    tokenizer = wrapped(adding_bos(byte_level()))
    docs = [Document(f"d{i}", f"{i} the cat sat on the mat. " * 4) for i in range(40)]
    settings = SETTINGS.with_changes(packing="separate")
    packed = tokenize_corpus(docs, tokenizer, settings, tokenizer.bos_token_id)
    for ids in packed.sequences["token_ids"].to_list():
        assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", ["byte_level", "byte fallback", "metaspace BPE", "word piece"])
def test_the_name_of_a_special_token_is_text_or_the_token_as_the_study_says(name: str) -> None:
    tokenizer = wrapped(KINDS[name]())
    eos = tokenizer.eos_token_id
    texts = ["the cat</s> sat on the mat <s>", "no name of any"]
    as_text, as_tokens = DocumentEncoder(tokenizer), DocumentEncoder(tokenizer, as_tokens=True)
    assert eos not in as_text(texts)[0]
    assert as_tokens(texts)[0].count(eos) == 1
    assert as_text.n_names == as_tokens.n_names == 2
    assert as_text(texts)[1] == as_tokens(texts)[1]
    if name.startswith("byte"):
        known = token_bytes(tokenizer, len(tokenizer))
        got = joined_bytes(known, as_text(texts)[0]).decode().strip()
        assert got == texts[0]


def test_a_tokenizer_that_makes_a_special_token_of_its_name_is_refused() -> None:
    """Unigram takes the longest piece it has, the name of the special token among them."""
    with pytest.raises(CorpusError, match=r"can't be told not to: set corpus\.special_tokens"):
        DocumentEncoder(wrapped(unigram()))(["the cat</s> sat"])


def test_names_of_special_tokens_are_counted(organism: LanguageModel) -> None:
    docs = [*documents(), Document("page", "They write <|endoftext|> between pages. " * 5)]
    packed = tokenize_corpus(docs, organism.tokenizer, SETTINGS, 0)
    assert packed.n_special_names == 5
    counted = sum(row.count(0) - 1 for row in packed.sequences["token_ids"].to_list())
    assert counted <= len(docs)
    as_tokens = SETTINGS.with_changes(special_tokens="as_tokens")
    packed = tokenize_corpus(docs, organism.tokenizer, as_tokens, 0)
    assert packed.n_special_names == 5
    assert sum(row.count(0) - 1 for row in packed.sequences["token_ids"].to_list()) > counted
