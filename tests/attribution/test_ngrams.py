"""n-grams against plain loops, planted ones, and what they may not cross."""

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.attribution import ngrams as module
from mechinterp_assets.attribution.activation_stream import TokenGrid
from mechinterp_assets.attribution.feature_pass import ACTIVATION_SCHEMA
from mechinterp_assets.attribution.ngrams import feature_ngrams
from mechinterp_assets.storage.declarations import polars_schema, table_spec

BOS = 0
TEXTS = [f"<{i}>" for i in range(9)]


def grid(token_ids: list[list[int]] | torch.Tensor, n_tokens: int | None = None) -> TokenGrid:
    ids = torch.as_tensor(token_ids)
    valid = valid_positions(ids, BOS)
    total = int(valid.sum())
    return TokenGrid.of(torch.arange(len(ids)) * 3 + 4, ids, valid, n_tokens or total)


def random_case(seed: int) -> tuple[TokenGrid, pl.DataFrame]:
    """A small vocabulary with BOS inside sequences, and features of very different density."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, len(TEXTS), (20, 12), generator=generator) ** 2 % len(TEXTS)
    ids[:, 0] = BOS
    tokens = grid(ids, n_tokens=150)
    rng = np.random.default_rng(seed)
    rows = []
    for feature in range(8):
        on = tokens.read & (rng.random(tokens.read.shape) < feature / 8)
        for row, position in np.argwhere(on):
            rows.append((feature, int(tokens.sequences[row]), int(position), rng.random() + 0.1))
    return tokens, pl.DataFrame(rows, schema=ACTIVATION_SCHEMA, orient="row")


def reference(
    tokens: TokenGrid, activations: pl.DataFrame, n: int
) -> dict[int, list[tuple[object, ...]]]:
    """{feature: (token ids, n_active, n_occurrences, sum), best first}."""
    ending = {}
    occurrences: dict[tuple[int, ...], int] = defaultdict(int)
    for row, sequence in enumerate(tokens.sequences.tolist()):
        for position in range(tokens.token_ids.shape[1]):
            span = range(position - n + 1, position + 1)
            if span.start >= 0 and all(tokens.read[row, p] for p in span):
                gram = tuple(tokens.token_ids[row, p].item() for p in span)
                ending[sequence, position] = gram
                occurrences[gram] += 1
    found: dict[int, dict[tuple[int, ...], list[float]]] = defaultdict(lambda: defaultdict(list))
    for feature, sequence, position, value in activations.rows():
        if (sequence, position) in ending:
            found[feature][ending[sequence, position]].append(value)
    return {
        feature: sorted(
            (
                (gram, len(values), occurrences[gram], sum(values))
                for gram, values in grams.items()
                if len(values) >= 2
            ),
            key=lambda entry: (-entry[1], entry[2], entry[0]),
        )
        for feature, grams in found.items()
    }


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("top", "rows_at_once"), [(3, 10**6), (4, 1), (100, 90)])
def test_ngrams_equal_the_reference(
    seed: int, top: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", rows_at_once)
    tokens, activations = random_case(seed)
    frame = feature_ngrams(activations.iter_slices(37), tokens, TEXTS, top=top)
    fired = dict(activations.group_by("feature").agg(pl.len()).rows())
    assert frame.equals(frame.sort("feature", "ngram_size", "rank"))
    for n in (1, 2, 3):
        expected = reference(tokens, activations, n)
        for feature in range(8):
            rows = frame.filter((pl.col("feature") == feature) & (pl.col("ngram_size") == n))
            best = expected.get(feature, [])[:top]
            assert rows["rank"].to_list() == list(range(len(best)))
            for row, (gram, n_active, occurrences, total) in zip(
                rows.iter_rows(named=True), best, strict=True
            ):
                assert tuple(row["token_ids"]) == gram
                assert row["text"] == "".join(TEXTS[i] for i in gram)
                assert (row["n_active"], row["n_occurrences"]) == (n_active, occurrences)
                assert row["active_share"] == n_active / fired[feature]
                assert row["rate"] == n_active / occurrences
                assert row["mean_activation"] == pytest.approx(total / n_active, rel=1e-6)


def test_a_planted_trigram_feature_is_found() -> None:
    """A feature that fires exactly on 1 2 3 has rate 1 there, and less on its suffixes."""
    tokens = grid([[0, 1, 2, 3, 4, 3, 1, 2, 3], [0, 3, 2, 3, 1, 2, 3, 2, 3]])
    places = [(4, 3), (4, 8), (7, 6)]
    activations = pl.DataFrame(
        [(5, sequence, position, 2.0) for sequence, position in places],
        schema=ACTIVATION_SCHEMA,
        orient="row",
    )
    frame = feature_ngrams([activations], tokens, TEXTS)
    columns = [
        "ngram_size",
        "token_ids",
        "n_active",
        "n_occurrences",
        "active_share",
        "rate",
        "mean_activation",
    ]
    assert frame.select(columns).rows() == [
        (1, [3], 3, 7, 1.0, 3 / 7, 2.0),
        (2, [2, 3], 3, 5, 1.0, 3 / 5, 2.0),
        (3, [1, 2, 3], 3, 3, 1.0, 1.0, 2.0),
    ]


def test_no_ngram_crosses_bos_or_the_start_of_a_sequence() -> None:
    tokens = grid([[0, 1, 2, 0, 1, 2], [3, 1, 2, 0, 2, 1]])
    everywhere = [
        (0, int(tokens.sequences[row]), int(position), 1.0)
        for row, position in np.argwhere(tokens.read)
    ]
    activations = pl.DataFrame(everywhere, schema=ACTIVATION_SCHEMA, orient="row")
    frame = feature_ngrams([activations], tokens, TEXTS, min_active=1)
    counts = {tuple(ids): n for ids, n in frame.select("token_ids", "n_active").rows()}
    assert counts == {(1,): 4, (2,): 4, (1, 2): 3, (2, 1): 1}


def test_ngrams_of_larger_vocabularies_do_not_collide() -> None:
    """A trigram key over 200,000 tokens needs more than 32 bits."""
    ids = torch.tensor([[0, 199_999, 1, 199_998], [0, 1, 199_999, 199_998]] * 2)
    tokens = grid(ids)
    activations = pl.DataFrame(
        [(0, s, 3, 1.0) for s in tokens.sequences.tolist()], schema=ACTIVATION_SCHEMA, orient="row"
    )
    frame = feature_ngrams([activations], tokens, ["x"] * 200_000).filter(pl.col("ngram_size") == 3)
    assert frame["token_ids"].to_list() == [[1, 199_999, 199_998], [199_999, 1, 199_998]]
    assert frame["n_active"].to_list() == [2, 2]


def test_the_frame_is_the_declared_one_even_when_empty() -> None:
    declared = dict(polars_schema(table_spec("feature_ngrams")))
    del declared["layer"]
    tokens, activations = random_case(0)
    assert dict(feature_ngrams([activations], tokens, TEXTS).schema) == declared
    assert dict(feature_ngrams([], tokens, TEXTS).schema) == declared


def test_bad_input_is_refused() -> None:
    tokens, activations = random_case(0)
    with pytest.raises(ValueError, match="top 0"):
        feature_ngrams([activations], tokens, TEXTS, top=0)
    with pytest.raises(ValueError, match="was not read"):
        feature_ngrams([activations], grid(tokens.token_ids, n_tokens=3), TEXTS)
