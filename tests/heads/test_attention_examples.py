"""Attention examples: those of planted heads, and equality with a slow search."""

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.corpora.token_documents import Separator, token_documents
from mechinterp_assets.heads.attention_examples import (
    StrongestSources,
    choose,
    head_attention_examples,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec


def sequences(n: int, length: int, vocabulary: int) -> pl.DataFrame:
    ids = torch.randint(1, vocabulary, (n, length), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 0
    ids[1, length // 2] = 0  # BOS between two documents
    return pl.DataFrame(
        {
            "sequence": [100 + i for i in range(n)],
            "documents": [[i, n] if i == 1 else [i] for i in range(n)],
            "token_ids": ids.tolist(),
        },
        schema={
            "sequence": pl.Int64,
            "documents": pl.List(pl.Int64),
            "token_ids": pl.List(pl.Int32),
        },
    )


def test_examples_of_planted_heads(planted: LanguageModel) -> None:
    texts = sequences(6, 20, 24)
    found = head_attention_examples(planted, texts, top=4, first_destination=5, batch_size=4)
    assert found.schema == polars_schema(table_spec("head_attention_examples"))
    assert found.group_by("layer", "head").len()["len"].to_list() == [4] * 4
    ids = dict(texts.select("sequence", "token_ids").iter_rows())
    previous = found.filter((pl.col("layer") == 0) & (pl.col("head") == 0))
    assert (previous["destination"] - previous["source"]).to_list() == [1] * 4
    strongest = found.filter(selection="strongest")
    same = strongest.filter((pl.col("layer") == 0) & (pl.col("head") == 1))
    for row in same.iter_rows(named=True):
        tokens = ids[row["sequence"]]
        assert tokens[row["destination"]] == tokens[row["source"]]
    induction = strongest.filter((pl.col("layer") == 1) & (pl.col("head") == 0))
    for row in induction.iter_rows(named=True):
        tokens = ids[row["sequence"]]
        assert tokens[row["source"] - 1] == tokens[row["destination"]]
    # Few tokens are repeated: over all of them these heads attend to nothing in particular.
    for layer, head in ((0, 1), (1, 0)):
        weakest = found.filter(layer=layer, head=head)["attention"].min()
        assert weakest is not None
        assert weakest < 0.3
    for row in found.iter_rows(named=True):
        assert row["destination"] >= 5
        assert 1 <= row["source"] < row["destination"]
        assert ids[row["sequence"]][row["source"]] != 0
        assert len(row["attention_row"]) == row["destination"] + 1
        assert sum(row["attention_row"]) == pytest.approx(1, abs=1e-5)
        assert row["attention_row"][row["source"]] == row["attention"]
    for _, own in found.group_by("layer", "head"):
        assert own["sequence"].n_unique() == 4
        assert own.sort("rank")["attention"].to_list() == sorted(own["attention"], reverse=True)


def test_the_strongest_source_of_every_destination_is_found() -> None:
    n, heads, length, first = 7, 2, 12, 3
    generator = torch.Generator().manual_seed(1)
    pattern = torch.rand(n, heads, length, length, generator=generator).tril()
    is_bos = torch.zeros(n, length, dtype=torch.bool)
    is_bos[:, 0] = True
    is_bos[2, 6] = True
    search = StrongestSources(1, heads, is_bos, first_destination=first)
    for batch in pattern.split(3):
        search.update(0, batch)
    for s in range(n):
        for head in range(heads):
            for d in range(length):
                allowed = [j for j in range(1, d) if not is_bos[s, j]]
                if d < first or is_bos[s, d]:
                    assert search.attention[0, head, s, d] == -1
                    continue
                best = max(allowed, key=lambda j: float(pattern[s, head, d, j]))
                assert search.source[0, head, s, d] == best
                assert search.attention[0, head, s, d] == pattern[s, head, d, best]


def test_half_are_the_strongest_of_different_tokens_and_half_one_of_each_quantile() -> None:
    """40 sequences of 25 destinations with attention falling from 1 to 0 over all of them."""
    generator = np.random.default_rng(2)
    n = 1000
    attention = generator.permutation(np.linspace(1, 0, n)).reshape(40, 25)
    token = generator.integers(0, 50, (40, 25))
    # Nine of ten of the strongest go to one token, as those of a head with a favourite do.
    token[(attention > 0.9) & (generator.random((40, 25)) < 0.9)] = 7
    document = np.arange(40)[:, None].repeat(25, axis=1)
    found = choose(attention, token, document, 12)
    assert [one.selection for one in found] == ["strongest"] * 6 + ["spread"] * 6
    value = {one: attention[one.sequence, one.destination] for one in found}
    assert len({one.sequence for one in found}) == 12
    tokens = [int(token[one.sequence, one.destination]) for one in found]
    assert len(set(tokens)) == 12
    assert all(value[one] > 0.9 for one in found[:6])
    assert found[0].quantile == pytest.approx(1 - 0.5 / n)
    for number, one in enumerate(found[6:]):
        assert 1 - (number + 1) / 6 - 1e-9 <= value[one] <= 1 - number / 6 + 1e-9
        assert one.quantile == pytest.approx(float((attention < value[one]).mean()), abs=1 / n)


def test_documents_differ_where_sequences_of_one_are_many() -> None:
    """Twelve sequences, of which the ten with the largest attention are of one document."""
    attention = np.full((12, 10), 0.9) - np.arange(12)[:, None] / 100
    attention -= np.arange(10) / 10_000
    document = np.array([0] * 10 + [1, 2])[:, None].repeat(10, axis=1)
    token = np.arange(120).reshape(12, 10)
    found = choose(attention, token, document, 3)
    assert [one.selection for one in found] == ["strongest", "strongest", "spread"]
    chosen = [int(document[one.sequence, 0]) for one in found]
    assert chosen[0] == 0
    assert chosen[2] in (1, 2)
    # With one token and document in all, places still are of different sequences.
    alike = np.zeros((12, 10), dtype=int)
    again = choose(attention, alike, alike, 12)
    assert len({one.sequence for one in again}) == len(again) == 12
    assert choose(np.full((2, 4), -1.0), np.zeros((2, 4)), np.zeros((2, 4)), 4) == []


def test_documents_are_those_of_the_view() -> None:
    """BOS ends a document; one that a sequence begins with does not."""
    ids = [[0, 5, 6, 0, 7, 8], [0, 5, 0, 0, 7, 8]]
    rows = pl.DataFrame({"documents": [[4, 9], [1, 2, 3]], "token_ids": ids})
    found = token_documents(rows, Separator(0))
    assert found.tolist() == [[4, 4, 4, 4, 9, 9], [1, 1, 1, 2, 3, 3]]
    own = pl.DataFrame({"documents": [[3, 4, 9]], "token_ids": ids[:1]})
    assert token_documents(own, Separator(0, prepend_bos=False)).tolist() == [[3, 4, 4, 4, 9, 9]]


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
