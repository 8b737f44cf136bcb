"""Packing keeps every token once, in order, in the split of its document."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

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
