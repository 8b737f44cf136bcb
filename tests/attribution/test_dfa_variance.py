"""Corpus-wide variance of direct feature attribution: an independent slow reference in float64 on
two architectures, a planted head, intervals and classes by hand."""

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.attribution.dfa_variance import (
    DFA_VARIANCE_SCHEMA,
    SOURCE_CLASSES,
    ActiveTokens,
    _classes,
    dfa_variance,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from tests.attribution.random_models import saes_of

LAYER, INTERVALS = 1, 3


def sequences_of(model: LanguageModel, sae: SparseAutoencoder, n: int = 5) -> list[ActiveTokens]:
    generator = torch.Generator().manual_seed(2)
    found = []
    for _ in range(n):
        ids = torch.randint(1, 6, (12,), generator=generator)
        ids[0] = model.bos_token_id
        _, cache = model.raw.run_with_cache(ids[None])
        f = sae.encode(cache[f"blocks.{LAYER}.attn.hook_z"][0].flatten(1))
        f[0] = 0
        position, feature = f.nonzero(as_tuple=True)
        found.append(ActiveTokens(ids, feature, position, f[position, feature]))
    return found


def largest(sequences: list[ActiveTokens], d_sae: int) -> np.ndarray:
    found = np.zeros(d_sae)
    for one in sequences:
        np.maximum.at(found, one.feature.numpy(), one.activation.detach().double().numpy())
    return found


def source_class(ids: list[int], position: int, source: int, main: int, bos: int) -> str:
    if source == 0 or ids[source] == bos:
        return "bos"
    if source == position:
        return "current"
    if ids[source] == main:
        return "main_source_token"
    if ids[source] == ids[position]:
        return "same_token"
    return "after_same_token" if ids[source - 1] == ids[position] else "other"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_against_a_slow_reference(request: pytest.FixtureRequest, name: str) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    sae = saes_of(model)[LAYER]
    sequences, H, dh = sequences_of(model, sae), model.config.n_heads, model.config.d_head
    top, main = largest(sequences, sae.d_sae), np.full(sae.d_sae, -1)
    main[::2] = 3
    frame = dfa_variance(model, sae, LAYER, sequences, top, main, n_intervals=INTERVALS)
    assert frame.schema == DFA_VARIANCE_SCHEMA

    totals: dict[tuple[int, int], list[float]] = defaultdict(list)
    parts: dict[tuple[int, int, object], list[float]] = defaultdict(list)
    for one in sequences:
        ids = one.token_ids.tolist()
        _, cache = model.raw.run_with_cache(one.token_ids[None])
        A = cache[f"blocks.{LAYER}.attn.hook_pattern"][0]
        v = cache[f"blocks.{LAYER}.attn.hook_v"][0]
        rows = zip(*(x.tolist() for x in (one.feature, one.position, one.activation)), strict=True)
        for feature, position, activation in rows:
            sums: dict[object, float] = dict.fromkeys([*range(H), *SOURCE_CLASSES], 0.0)
            for k in range(H):
                w = sae.W_enc[k * dh : (k + 1) * dh, feature]
                for s in range(position + 1):
                    dfa = float(A[k, position, s] * (v[s, k // (H // v.shape[1])] @ w))
                    sums[k] += dfa
                    where = source_class(ids, position, s, int(main[feature]), model.bos_token_id)
                    sums[where] += dfa
            bounds = [top[feature] * (i + 1) / INTERVALS for i in range(INTERVALS - 1)]
            interval = sum(activation > bound for bound in bounds)
            totals[feature, interval].append(sum(sums[k] for k in range(H)))
            for part, value in sums.items():
                parts[feature, interval, part].append(value)
    assert frame.height == len(parts) > 100
    for row in frame.iter_rows(named=True):
        key = row["feature"], row["interval"]
        part = row["source_class"] if row["head"] is None else row["head"]
        t, p = np.array(totals[key]), np.array(parts[(*key, part)])
        assert row["n"] == len(t)
        found = [row[c] for c in DFA_VARIANCE_SCHEMA.names()[6:11]]
        assert found == pytest.approx(
            [t.sum(), (t**2).sum(), p.sum(), (p**2).sum(), (p * t).sum()], rel=1e-6, abs=1e-9
        )
        assert row["activation_above"] == pytest.approx(top[key[0]] * key[1] / INTERVALS)


def test_shares_of_a_feature_that_one_head_alone_makes(gpt2: LanguageModel) -> None:
    """A feature whose encoder column reads head 1 alone: all of its variance is that head's."""
    sae, dh = saes_of(gpt2)[LAYER], gpt2.config.d_head
    with torch.no_grad():
        sae.W_enc[:dh, 0] = 0
        sae.W_enc[2 * dh :, 0] = 0
    sequences = [
        ActiveTokens(
            one.token_ids, torch.zeros(11, dtype=torch.long), torch.arange(1, 12), torch.ones(11)
        )
        for one in sequences_of(gpt2, sae)
    ]
    top = np.ones(sae.d_sae)
    frame = dfa_variance(
        gpt2, sae, LAYER, sequences, top, np.full(sae.d_sae, -1), n_intervals=1
    ).with_columns(
        share=(
            pl.col("part_total_product") - pl.col("part_sum") * pl.col("total_sum") / pl.col("n")
        )
        / (pl.col("total_sum_squares") - pl.col("total_sum") ** 2 / pl.col("n"))
    )
    heads = frame.filter(pl.col("head").is_not_null()).sort("head")["share"].to_list()
    assert heads == pytest.approx([0, 1, 0])
    classes = frame.filter(pl.col("source_class").is_not_null())
    assert classes["share"].sum() == pytest.approx(1)


def test_classes_by_hand() -> None:
    ids = torch.tensor([0, 7, 8, 7, 9, 7])
    one = ActiveTokens(ids, torch.tensor([0, 1]), torch.tensor([5, 5]), torch.ones(2))
    found = _classes(one, torch.tensor([9, -1]), 0)
    names = [[SOURCE_CLASSES[i] for i in row] for row in found.tolist()]
    shared = ["bos", "same_token", "after_same_token", "same_token"]
    assert names[0] == [*shared, "main_source_token", "current"]
    assert names[1] == [*shared, "after_same_token", "current"]
