"""Singular vector tracing: identities, an independent recursive reference, a planted circuit."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from trace_reference import Reference
from traced_cases import MODELS, Case

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.settings import MainRule, TraceSettings
from mechinterp_assets.circuits.trace import (
    Root,
    keep_heads,
    trace_circuit,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import table_specs


@pytest.mark.parametrize("rule", ["fc24", "relative"])
@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_equals_the_recursive_reference(case: Case, rule: MainRule) -> None:
    model, prompts, roots = case
    if rule == "relative":  # the reference follows every token's writers
        prompts = prompts.head(2)
    trace = trace_circuit(model, prompts, roots, TraceSettings(trace_rule=rule))
    exact = model.dtype == torch.float64
    # Hugging Face computes rotary angles in single precision whatever the model's type.
    rotary = model.config.positional == "rotary"
    tolerance = (1e-6 if rotary else 1e-9) if exact else 2e-4
    n_edges = 0
    for row in prompts.iter_rows(named=True):
        reference = Reference(model, row["token_ids"]).trace(
            roots, row["pos_end"], row["pos_io"], relative=rule == "relative"
        )
        slices = trace.slices.filter((pl.col("prompt") == row["prompt"]) & pl.col("fires"))
        pairs = {
            (r["layer"], r["head"], r["destination"], r["source"]): r
            for r in slices.iter_rows(named=True)
        }
        assert {pair: r["path_multiplicity"] for pair, r in pairs.items()} == reference.visits
        for pair, r in pairs.items():
            assert r["slices"] == reference.slices[pair]
            for side in ("destination", "source"):
                items = reference.items[pair, side]
                heads = reference.heads_total(pair, side)
                size = sum(map(abs, items.values()))
                assert r[f"{side}_heads"] == pytest.approx(heads, abs=tolerance * size)
                share = reference.head_share[pair, side]
                assert r[f"{side}_head_share"] == pytest.approx(share, abs=tolerance)
                total = sum(items.values())
                assert r[f"{side}_writers"] == pytest.approx(total, abs=tolerance * size)

        edges = trace.edges.filter(pl.col("prompt") == row["prompt"])
        kept = {
            (
                r["upstream_layer"],
                r["upstream_head"],
                r["downstream_layer"],
                r["downstream_head"],
                r["destination"],
                r["source"],
                r["side"],
                r["written_at"],
            ): r
            for r in edges.filter("kept").iter_rows(named=True)
        }
        assert set(kept) == set(reference.edges)
        for key, (contribution, effect, share) in reference.edges.items():
            size = sum(map(abs, reference.items[key[2:6], key[6]].values()))
            got = kept[key]
            assert got["contribution"] == pytest.approx(contribution, abs=tolerance * size)
            assert got["exact_effect"] == pytest.approx(effect, rel=50 * tolerance, abs=tolerance)
            if exact:
                assert got["contribution_share"] == pytest.approx(
                    share, rel=1e-4 if rotary else 1e-7
                )
            assert got["path_multiplicity"] == reference.visits[key[2:6]]
        for r in edges.filter(pl.col("upstream_kind") != "head").iter_rows(named=True):
            pair = (r["downstream_layer"], r["downstream_head"], r["destination"], r["source"])
            writer = (
                r["upstream_kind"],
                -1 if r["upstream_layer"] is None else r["upstream_layer"],
                -1,
            )
            items = reference.items[pair, r["side"]]
            own = pair[2] if r["side"] == "destination" else pair[3]
            assert r["written_at"] in (own, None)
            expected = sum(
                value
                for (by, at), value in items.items()
                if by == writer and (at == own) == (r["written_at"] == own)
            )
            size = sum(map(abs, items.values()))
            assert r["contribution"] == pytest.approx(expected, abs=tolerance * size)
        n_edges += len(kept)
    assert n_edges > 5


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_all_writers_and_the_appended_one_sum_to_the_whole(
    case: Case,
) -> None:
    model, prompts, roots = case
    trace = trace_circuit(model, prompts, roots, TraceSettings(keep_all=True))
    omega = ModelOmega(model)
    tolerance = 1e-8 if model.dtype == torch.float64 else 2e-4
    key = ["prompt", "layer", "head", "destination", "source"]
    sums = (
        trace.edges.rename({"downstream_layer": "layer", "downstream_head": "head"})
        .group_by(*key, "side")
        .agg(pl.col("contribution", "exact_effect").sum(), size=pl.col("contribution").abs().sum())
    )
    traced = trace.slices.filter(pl.col("path_multiplicity") > 0)
    assert sums.height == 2 * traced.height > 0
    per_token = 1 + (model.config.positional == "absolute")
    assert trace.edges.height == sum(
        2 * (per_token + layer * (model.config.n_heads + 2)) for layer in traced["layer"]
    )
    inputs = {
        prompt: _inputs(model, ids) for prompt, ids in prompts["prompt", "token_ids"].iter_rows()
    }
    for r in traced.join(sums, on=key).iter_rows(named=True):
        side = r["side"]
        assert r["contribution"] == pytest.approx(r[f"{side}_writers"], abs=tolerance * r["size"])
        U, S, V = omega.vectors(r["layer"], r["head"], r["destination"] - r["source"])
        x = inputs[r["prompt"]][r["layer"]][[r["destination"], r["source"]]]
        a, b = x[0] @ U, x[1] @ V
        k = r["slices"]
        sign = torch.where(a < 0, -1.0, 1.0)[k]
        near, there = (U, b) if side == "destination" else (V, a)
        constant = float((sign * S[k].sqrt() * near[-1, k]).sum())
        whole = r["contribution"] + constant
        assert whole == pytest.approx(r[f"{side}_whole"], abs=tolerance * r["size"])
        exact = r["exact_effect"] + float((S[k] * near[-1, k] * there[k]).sum())
        assert exact == pytest.approx(r["slice_sum"], rel=10 * tolerance)


def _inputs(model: LanguageModel, ids: list[int]) -> list[torch.Tensor]:
    """Normalised inputs with appended 1 of every layer [position, d_model + 1]."""
    with torch.no_grad():
        _, cache = model.processed.run_with_cache(torch.tensor([ids]))
    found = []
    for layer in range(model.config.n_layers):
        x = cache[f"blocks.{layer}.hook_resid_pre"][0].double()
        if model.config.normalization == "LN":
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + model.config.eps).sqrt()
        found.append(torch.cat([x, torch.ones_like(x[:, :1])], -1))
    return found


@pytest.mark.parametrize("case", ["organism", "tiny_llama"], indirect=True)
def test_batching_changes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from mechinterp_assets.circuits import trace as module

    model, prompts, roots = case
    whole = trace_circuit(model, prompts, roots)
    monkeypatch.setattr(module, "prompts_per_batch", lambda *args: 2)
    monkeypatch.setattr(module, "_ROUND_BYTES", 1)
    monkeypatch.setattr(module, "_ROUND", 2)
    calls: list[tuple[int, int]] = []
    parts = trace_circuit(model, prompts, roots, progress=lambda *done: calls.append(done))
    assert calls[-1] == (prompts.height, prompts.height)
    key = [*whole.edges.columns[:6], "destination", "source", "side", "written_at"]
    left, right = whole.edges.sort(key), parts.edges.sort(key)
    numbers = ["contribution", "exact_effect", "contribution_share", "head_share"]
    assert left.drop(numbers).equals(right.drop(numbers))
    difference = left["contribution"].to_numpy() - right["contribution"].to_numpy()
    assert np.abs(difference).max() < 1e-4


@pytest.mark.parametrize("case", ["organism", "tiny_gpt2"], indirect=True)
def test_frames_follow_their_tables(
    case: Case,
) -> None:
    model, prompts, roots = case
    trace = trace_circuit(model, prompts, roots)
    for name, frame in (("attention_slices", trace.slices), ("trace_edges", trace.edges)):
        declared = {
            c.name: c.polars_type for c in table_specs()[name].science_columns if c.name != "task"
        }
        assert dict(frame.schema) == declared
    assert trace.edges.filter(pl.col("kept") & (pl.col("upstream_kind") != "head")).is_empty()
    heads = trace.edges.filter(pl.col("upstream_kind") == "head")
    assert heads["kept"].all()
    only_heads = trace_circuit(model, prompts, roots, TraceSettings(other_writers=False))
    assert only_heads.edges.equals(heads)
    kept = heads.group_by("prompt", "downstream_layer", "downstream_head", "destination", "source")
    counted = trace.slices.select(pl.sum_horizontal("destination_kept", "source_kept").sum()).item()
    assert kept.len()["len"].sum() == counted


def test_roots_that_do_not_fire_are_recorded_and_not_traced(
    organism: LanguageModel, organism_prompts: pl.DataFrame
) -> None:
    layer = organism.config.n_layers - 1
    roots = [(layer, head) for head in range(organism.config.n_heads)]
    trace = trace_circuit(organism, organism_prompts, roots)
    pairs = trace.slices.filter("is_root").join(organism_prompts, on="prompt")
    assert pairs.height == len(roots) * organism_prompts.height
    assert (pairs["destination"] == pairs["pos_end"]).all()
    assert (pairs["source"] == pairs["pos_io"]).all()
    silent = trace.slices.filter(~pl.col("fires"))
    assert silent["is_root"].all()
    assert silent.height > 0
    assert (silent["path_multiplicity"] == 0).all()
    assert silent["destination_heads"].null_count() == silent.height
    firing = pairs.filter("fires").group_by("head").len()
    counts = dict(firing.iter_rows())
    for row in trace.roots.iter_rows(named=True):
        assert row["n_firing"] == counts.get(row["head"], 0)
        assert row["n_prompts"] == organism_prompts.height


def test_a_root_can_start_at_another_name(
    organism: LanguageModel, organism_prompts: pl.DataFrame
) -> None:
    layer = organism.config.n_layers - 1
    sources: tuple[str, ...] = ("S2", "IO", "S1")
    roots = [Root(layer, head, source) for head in (0, 1) for source in sources]
    trace = trace_circuit(organism, organism_prompts, roots)
    pairs = trace.slices.filter("is_root").join(organism_prompts, on="prompt")
    assert pairs.height == len(roots) * organism_prompts.height
    for source in ("IO", "S1", "S2"):
        of = pairs.filter(source_role=source)
        assert of.height == 2 * organism_prompts.height
        assert (of["source"] == of[f"pos_{source.lower()}"]).all()
    for row in trace.roots.iter_rows(named=True):
        of = pairs.filter(
            (pl.col("head") == row["head"])
            & (pl.col("source_role") == row["source"])
            & (pl.col("attention") >= 0.5)
            & (pl.col("attention_score") >= 0)
        )
        assert row["n_firing"] == of.height


@pytest.mark.parametrize(
    ("roots", "message"),
    [
        ([], "no root heads"),
        ([(99, 0)], "99.0 does not exist"),
        ([(1, 0), (1, 0)], "distinct"),
        ([(1, 0, "NOBODY")], "source 'NOBODY'"),
    ],
)
def test_bad_roots_are_named(
    organism: LanguageModel,
    organism_prompts: pl.DataFrame,
    roots: list[tuple[int, int]],
    message: str,
) -> None:
    with pytest.raises(CircuitError, match=message):
        trace_circuit(organism, organism_prompts, roots)


def test_bad_settings_are_named() -> None:
    for settings_, message in (
        ({"firing_threshold": 0.0}, "firing_threshold\n.*greater than 0"),
        ({"contribution_fraction": 1.5}, "contribution_fraction\n.*less than or equal to 1"),
        ({"memory_mib": 0}, "memory_mib\n.*greater than 0"),
    ):
        with pytest.raises(ValidationError, match=message):
            TraceSettings(**settings_)


# ---- the 70% rule --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contributions", "kept"),
    [
        ([5.0, 3.0, 1.0, 1.0], [0, 1]),
        ([5.0, -3.0, 1.0], [0]),
        ([-1.0, -2.0, 0.5], []),
        ([-3.0, -1.0], []),
        ([0.0, 0.0], []),
        ([1.0, 1.0, 1.0], [0, 1, 2]),
        ([7.0], [0]),
        ([], []),
    ],
)
def test_kept_heads_examples(contributions: list[float], kept: list[int]) -> None:
    mask = keep_heads(torch.tensor([contributions], dtype=torch.float64))
    assert mask[0].nonzero()[:, 0].tolist() == kept


@given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=10))
@settings(max_examples=80, deadline=None)
def test_kept_heads_are_the_shortest_sufficient_prefix(contributions: list[float]) -> None:
    values = np.array(contributions)
    mask = keep_heads(torch.tensor(contributions, dtype=torch.float64)).numpy()
    if values.sum() <= 0:
        assert not mask.any()
        published = keep_heads(
            torch.tensor(contributions, dtype=torch.float64), always_one=True
        ).numpy()
        assert published.sum() == 1
        assert values[published] == values.max()
        return
    ordered = np.sort(values)[::-1]
    sums = np.cumsum(ordered)
    enough = np.nonzero(sums > 0.7 * values.sum())[0]
    if values.sum() < 1e-9 * np.abs(values).sum():  # rounds to 0
        return
    # Sums near the limit may round either way.
    if np.abs(sums - 0.7 * values.sum()).min() > 1e-9:
        assert mask.sum() == enough[0] + 1
    assert values[mask].min() >= values[~mask].max(initial=-np.inf)


# ---- a circuit built by hand ---------------------------------------------------------------------


def test_a_planted_induction_circuit_is_found(planted: LanguageModel) -> None:
    ids = [[0, 5, 3, 7, 8, 2, 5], [0, 9, 4, 6, 1, 3, 4]]
    prompts = pl.DataFrame(
        {
            "prompt": [0, 1],
            "token_ids": ids,
            "n_tokens": [7, 7],
            "pos_io": [2, 3],
            "pos_end": [6, 6],
        }
    )
    trace = trace_circuit(planted, prompts, [(1, 0)], TraceSettings(keep_all=True))
    assert trace.roots["n_firing"].to_list() == [2]
    # The source side: 0.0 alone, and it wrote nearly all that makes the key.
    source = trace.edges.filter(side="source", downstream_layer=1)
    best = source.filter("kept")
    assert best.select("prompt", "upstream_layer", "upstream_head").rows() == [(0, 0, 0), (1, 0, 0)]
    assert best["contribution_share"].null_count() == 0
    assert best["contribution_share"].to_numpy().min() > 0.9
    decoy = source.filter(upstream_kind="head", upstream_layer=0, upstream_head=1)
    assert np.abs(decoy["contribution_share"].to_numpy()).max() < 0.1
    # The destination side: the token itself, not a head.
    destination = trace.edges.filter(side="destination", downstream_layer=1)
    embedding = destination.filter(upstream_kind="embedding")["contribution"].to_numpy()
    others = destination.filter(pl.col("upstream_kind") != "embedding")["contribution"].to_numpy()
    assert embedding.min() > 3 * np.abs(others).max()
    # 0.0's own pair: the position after the first mention attends to the first mention.
    upstream = trace.slices.filter((pl.col("layer") == 0) & (pl.col("destination") < 6))
    assert upstream.select("prompt", "head", "destination", "source").sort("prompt").rows() == [
        (0, 0, 2, 1),
        (1, 0, 3, 2),
    ]
    assert upstream["path_multiplicity"].to_list() == [1.0, 1.0]


def test_a_residual_stream_that_is_no_sum_of_writers_is_refused(
    tiny_gpt2: LanguageModel, make_prompts: Callable[..., pl.DataFrame]
) -> None:
    hook = tiny_gpt2.processed.blocks[1].hook_resid_pre
    tiny_gpt2.processed.add_hook(hook.name, lambda value, hook: value + value.flip(-1))
    try:
        with pytest.raises(CircuitError, match="add up"):
            trace_circuit(tiny_gpt2, make_prompts(tiny_gpt2, 2, 8), [(2, 0)])
    finally:
        tiny_gpt2.processed.reset_hooks()
