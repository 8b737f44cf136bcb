"""Attention examples: those of planted heads, and equality with a slow search."""

import polars as pl
import pytest
import torch

from mechinterp_assets.heads.attention_examples import (
    StrongestAttention,
    head_attention_examples,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec


def sequences(n: int, length: int, vocabulary: int) -> pl.DataFrame:
    ids = torch.randint(1, vocabulary, (n, length), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 0
    ids[1, length // 2] = 0  # BOS between two documents
    return pl.DataFrame(
        {"sequence": [100 + i for i in range(n)], "token_ids": ids.tolist()},
        schema={"sequence": pl.Int64, "token_ids": pl.List(pl.Int32)},
    )


def test_examples_of_planted_heads(planted: LanguageModel) -> None:
    texts = sequences(6, 20, 24)
    found = head_attention_examples(planted, texts, top=4, first_destination=5, batch_size=4)
    assert found.schema == polars_schema(table_spec("head_attention_examples"))
    assert found.group_by("layer", "head").len()["len"].to_list() == [4] * 4
    ids = dict(texts.iter_rows())
    previous = found.filter((pl.col("layer") == 0) & (pl.col("head") == 0))
    assert (previous["destination"] - previous["source"]).to_list() == [1] * 4
    same = found.filter((pl.col("layer") == 0) & (pl.col("head") == 1))
    for row in same.iter_rows(named=True):
        tokens = ids[row["sequence"]]
        assert tokens[row["destination"]] == tokens[row["source"]]
    induction = found.filter((pl.col("layer") == 1) & (pl.col("head") == 0))
    for row in induction.iter_rows(named=True):
        tokens = ids[row["sequence"]]
        assert tokens[row["source"] - 1] == tokens[row["destination"]]
    for row in found.iter_rows(named=True):
        assert row["destination"] >= 5
        assert 1 <= row["source"] < row["destination"]
        assert ids[row["sequence"]][row["source"]] != 0
        assert len(row["attention_row"]) == row["destination"] + 1
        assert sum(row["attention_row"]) == pytest.approx(1, abs=1e-5)
        assert row["attention_row"][row["source"]] == row["attention"]


def test_the_strongest_pair_of_every_sequence_is_found() -> None:
    n, heads, length, first = 7, 2, 12, 3
    generator = torch.Generator().manual_seed(1)
    pattern = torch.rand(n, heads, length, length, generator=generator).tril()
    is_bos = torch.zeros(n, length, dtype=torch.bool)
    is_bos[:, 0] = True
    is_bos[2, 6] = True
    search = StrongestAttention(1, heads, is_bos, first_destination=first, top=3)
    for batch in pattern.split(3):
        search.update(0, batch)
    ids = torch.arange(n * length).view(n, length)
    texts = [str(i) for i in range(n * length)]
    found = search.frame(list(range(n)), ids, texts)
    for head in range(heads):
        best = []
        for s in range(n):
            pairs = [
                (-float(pattern[s, head, d, j]), s, d, j)
                for d in range(first, length)
                for j in range(1, d)
                if not is_bos[s, d] and not is_bos[s, j]
            ]
            best.append(min(pairs))
        rows = found.filter(pl.col("head") == head).sort("rank")
        expected = [(s, d, j, str(s * length + d)) for _, s, d, j in sorted(best)[:3]]
        columns = ("sequence", "destination", "source", "destination_token")
        assert rows.select(columns).rows() == expected


def test_what_cannot_be_searched_is_refused(planted: LanguageModel) -> None:
    with pytest.raises(ValueError, match="no sequence"):
        head_attention_examples(planted, sequences(2, 20, 24).clear())
    with pytest.raises(ValueError, match="no destination from 8 on"):
        head_attention_examples(planted, sequences(2, 8, 24))


def test_rotary_model_with_grouped_queries(stories: LanguageModel) -> None:
    config = stories.config
    found = head_attention_examples(stories, sequences(3, 16, config.d_vocab), top=2)
    assert found.select("layer", "head").n_unique() == config.n_layers * config.n_heads
    assert found["attention_row"].list.sum().to_list() == pytest.approx(
        [1.0] * found.height, abs=1e-4
    )
