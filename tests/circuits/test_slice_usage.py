"""Slice usage and consensus subspaces against direct recomputation."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from trace_reference import Reference

from mechinterp_assets.circuits.consensus import CONSENSUS_SCHEMA, NODE, consensus_signal
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.settings import TraceSettings
from mechinterp_assets.circuits.slice_usage import slice_usage, text_of_the_same_lengths
from mechinterp_assets.circuits.slice_writers import slice_writers
from mechinterp_assets.circuits.slices import attention_slices, slice_terms
from mechinterp_assets.circuits.token_norms import token_norms
from mechinterp_assets.circuits.trace import trace_circuit
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.roles import position_roles, role_positions
from mechinterp_assets.storage.declarations import table_specs


@pytest.mark.parametrize("which", ["organism", "tiny_llama"])
def test_usage_of_firing_pairs_is_that_of_attention_slices(
    which: str, request: pytest.FixtureRequest, make_prompts: Callable[..., pl.DataFrame]
) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    prompts = (
        request.getfixturevalue("organism_prompts")
        if which == "organism"
        else make_prompts(model, 5, 11)
    )
    found = slice_usage(model, prompts, silent_pairs=3)
    slices = attention_slices(model, prompts)
    expected = slices.group_by("layer", "head", "n_slices").agg(n_pairs=pl.len().cast(pl.Int64))
    key = ["layer", "head", "n_slices"]
    assert found.counts.sort(key).equals(expected.sort(key))
    for name, frame in (
        ("attention_slice_counts", found.counts),
        ("attention_slice_usage", found.usage),
    ):
        columns = {c.name: c.polars_type for c in table_specs()[name].science_columns}
        assert dict(frame.schema) == {k: v for k, v in columns.items() if k != "text_source"}
    for (layer, head), rows in slices.partition_by("layer", "head", as_dict=True).items():
        usage = found.usage.filter(layer=layer, head=head, fires=True).sort("slice")
        terms = np.array(rows["slice_terms"].to_list())
        selected = np.zeros_like(terms)
        for at, chosen in enumerate(rows["slices"]):
            selected[at, chosen.to_list()] = 1
        assert usage["n_pairs"].unique().to_list() == [rows.height]
        assert np.allclose(usage["selected_share"].to_numpy(), selected.mean(0))
        assert np.allclose(usage["mean_term"].to_numpy(), terms.mean(0), rtol=1e-4, atol=1e-5)
        share = terms / np.abs(terms).sum(1, keepdims=True)
        assert np.allclose(usage["mean_term_share"].to_numpy(), share.mean(0), rtol=1e-4, atol=1e-6)
    silent = found.usage.filter(~pl.col("fires"))
    most = 3 * prompts.height
    assert (silent["n_pairs"] <= most).all()
    # What does not fire has lower scores than what does.
    score = found.usage.group_by("layer", "head", "fires").agg(pl.col("mean_term").sum())
    both = score.filter("fires").join(score.filter(~pl.col("fires")), on=["layer", "head"])
    assert (both["mean_term"] > both["mean_term_right"]).mean() > 0.9
    again = slice_usage(model, prompts, silent_pairs=3)
    assert again.usage.equals(found.usage)


def test_text_is_cut_to_the_prompts_lengths() -> None:
    prompts = pl.DataFrame({"n_tokens": [3, 5, 4]})
    text = text_of_the_same_lengths(
        pl.DataFrame({"token_ids": [[1, 2, 3, 4], [5, 6, 7, 8]]}), prompts
    )
    assert text.to_dicts() == [
        {"prompt": 0, "token_ids": [1, 2, 3], "n_tokens": 3},
        {"prompt": 1, "token_ids": [5, 6, 7, 8], "n_tokens": 4},
    ]


def test_consensus_and_signal(organism: LanguageModel, organism_prompts: pl.DataFrame) -> None:
    roots = [(layer, head) for layer in (2, 3) for head in range(organism.config.n_heads)]
    trace = trace_circuit(organism, organism_prompts, roots)
    omega = ModelOmega(organism)
    consensus, signal = consensus_signal(organism, organism_prompts, trace.slices, omega=omega)
    for name, frame in (("attention_consensus", consensus), ("attention_token_signal", signal)):
        declared = {
            c.name: c.polars_type for c in table_specs()[name].science_columns if c.name != "task"
        }
        assert dict(frame.schema) == declared
    assert consensus["in_consensus"].any()
    assert ((consensus["selected_share"] >= 0.5) == consensus["in_consensus"]).all()

    node = signal.filter(pl.col("n_dimensions") > 0).row(0, named=True)
    of_node = {k: node[k] for k in ("layer", "head", "destination_role", "source_role")}
    chosen = consensus.filter(**of_node).filter("in_consensus")["slice"].to_list()
    assert len(chosen) == node["n_dimensions"]
    pairs = trace.slices.filter(pl.col("path_multiplicity") > 0).filter(**of_node)
    U, S, V = omega.vectors(node["layer"], node["head"])
    inputs, signs = {}, torch.zeros(len(S), dtype=torch.float64)
    for prompt, ids in organism_prompts.select("prompt", "token_ids").iter_rows():
        with torch.no_grad():
            _, cache = organism.processed.run_with_cache(torch.tensor([ids]))
        x = cache[f"blocks.{node['layer']}.hook_resid_pre"][0].double()
        x = x - x.mean(-1, keepdim=True)
        inputs[prompt] = x / (x.square().mean(-1, keepdim=True) + organism.config.eps).sqrt()
    for row in pairs.iter_rows(named=True):
        a = inputs[row["prompt"]][row["destination"]] @ U[:-1] + U[-1]
        for k in row["slices"]:
            signs[k] += 1 if a[k] >= 0 else -1
    share = {k: sum(k in row for row in pairs["slices"].to_list()) / pairs.height for k in chosen}
    for row in consensus.filter(**of_node).filter("in_consensus").iter_rows(named=True):
        assert row["selected_share"] == pytest.approx(share[row["slice"]])
    direction = torch.where(signs < 0, -1.0, 1.0)[chosen] * S[chosen].sqrt()
    for side, W in (("destination", U), ("source", V)):
        values: dict[str, list[float]] = {}
        for prompt, roles in zip(
            organism_prompts["prompt"], position_roles(organism_prompts), strict=True
        ):
            along = (inputs[prompt] @ W[:-1, chosen] + W[-1, chosen]) @ direction
            for role, value in zip(roles, along.tolist(), strict=True):
                values.setdefault(role, []).append(value)
        for row in signal.filter(side=side).filter(**of_node).iter_rows(named=True):
            expected = np.array(values[row["position_role"]])
            assert row["n"] == expected.size
            assert row["mean_signal"] == pytest.approx(expected.mean(), rel=1e-4, abs=1e-4)
            assert row["sd_signal"] == pytest.approx(expected.std(), rel=1e-3, abs=1e-3)


def test_signals_multiply_to_the_score_of_one_slice() -> None:
    """With one slice, destination signal times source signal is that slice's term."""
    generator = torch.Generator().manual_seed(0)
    U, V = (torch.randn(5, 1, generator=generator).double() for _ in range(2))
    S, x = torch.tensor([3.0]).double(), torch.randn(2, 4, generator=generator).double()
    a, b = x[0] @ U[:-1] + U[-1], x[1] @ V[:-1] + V[-1]
    sign = a.sign()
    product = (sign * S.sqrt() * a) * (sign * S.sqrt() * b)
    assert torch.allclose(product, slice_terms(U, S, V, x[:1], x[1:])[0])


def test_consensus_of_rotary_models(
    tiny_llama: LanguageModel, make_prompts: Callable[..., pl.DataFrame]
) -> None:
    """u_k is the same at every offset; source signals are those for each pair's destination."""
    prompts = make_prompts(tiny_llama, 3, 9)
    slices = attention_slices(tiny_llama, prompts).with_columns(path_multiplicity=pl.lit(1.0))
    omega = ModelOmega(tiny_llama)
    consensus, signal = consensus_signal(tiny_llama, prompts, slices, omega=omega)
    assert consensus["in_consensus"].any()
    node = signal.filter(side="source").row(0, named=True)
    of_node = {name: node[name] for name in NODE}
    layer, head = node["layer"], node["head"]
    chosen = consensus.filter(**of_node).filter("in_consensus")
    pairs = slices.filter(**of_node)
    reference = {
        row["prompt"]: Reference(tiny_llama, row["token_ids"]) for row in prompts.to_dicts()
    }
    # The majority of sign(u_k . x_i) over the pairs that select k.
    signs = dict.fromkeys(chosen["slice"], 0.0)
    U = omega.vectors(layer, head)[0].numpy()
    for row in pairs.iter_rows(named=True):
        along = reference[row["prompt"]].input(layer, row["destination"]) @ U
        for k in set(row["slices"]) & set(signs):
            signs[k] += np.sign(along[k])
    roles = dict(zip(prompts["prompt"], position_roles(prompts), strict=True))
    expected: dict[str, list[float]] = {}
    for prompt, destination in pairs.select("prompt", "destination").unique().iter_rows():
        for position in range(destination + 1):
            _, S, V = (part.numpy() for part in omega.vectors(layer, head, destination - position))
            x = reference[prompt].input(layer, position)
            value = sum(np.sign(s or 1) * np.sqrt(S[k]) * (V[:, k] @ x) for k, s in signs.items())
            expected.setdefault(roles[prompt][position], []).append(float(value))
    found = signal.filter(side="source").filter(**of_node)
    assert set(found["position_role"]) == set(expected)
    for row in found.iter_rows(named=True):
        values = np.array(expected[row["position_role"]])
        assert row["n"] == len(values)
        assert row["mean_signal"] == pytest.approx(values.mean(), abs=1e-6)
        assert row["sd_signal"] == pytest.approx(values.std(), abs=1e-6)


def test_norms_of_tokens(organism: LanguageModel, organism_prompts: pl.DataFrame) -> None:
    """Against a projection on the span, made by QR, token by token."""
    layer, head, slices = 3, 3, [1, 4]
    node = {"layer": layer, "head": head, "destination_role": "END", "source_role": "IO"}
    consensus = pl.DataFrame(
        [{**node, "slice": k, "in_consensus": k in slices} for k in (0, *slices)]
        + [{**node, "head": 1, "slice": 0, "in_consensus": False}]
    )
    found = token_norms(organism, organism_prompts, consensus)
    declared = table_specs()["attention_token_norms"].science_columns
    assert dict(found.schema) == {c.name: c.polars_type for c in declared if c.name != "task"}
    assert found.select(*node, "n_dimensions").unique().rows() == [(3, 3, "END", "IO", 2)]

    basis = torch.linalg.qr(ModelOmega(organism).vectors(layer, head)[2][:, slices]).Q
    norms: dict[int, list[float]] = {}
    for (ids,) in organism_prompts.select("token_ids").iter_rows():
        with torch.no_grad():
            _, cache = organism.processed.run_with_cache(torch.tensor([ids]))
        x = cache[f"blocks.{layer}.hook_resid_pre"][0].double()
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + organism.config.eps).sqrt()
        x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
        projected = x @ basis @ basis.T
        for token, row in zip(ids, projected, strict=True):
            norms.setdefault(token, []).append(float(row.norm()))
    at_io = {
        ids[at]
        for ids, at in zip(
            organism_prompts["token_ids"], role_positions(organism_prompts, "IO"), strict=True
        )
    }
    assert {row["token_id"] for row in found.to_dicts() if row["at_source"]} == at_io
    assert set(found["token_id"]) == set(norms)
    for row in found.to_dicts():
        values = np.array(norms[row["token_id"]])
        assert row["n"] == len(values)
        assert row["mean_projection"] == pytest.approx(values.mean(), rel=1e-5)
        # From sums of squares: what is left of them where all values are alike.
        assert row["sd_projection"] == pytest.approx(values.std(), rel=1e-3, abs=1e-4)
    assert found["mean_projection"].is_sorted(descending=True)


def test_norms_of_no_consensus_are_none() -> None:
    nothing = pl.DataFrame(schema=CONSENSUS_SCHEMA)
    assert token_norms(None, pl.DataFrame(), nothing, omega=object()).is_empty()


@pytest.mark.parametrize("which", ["organism", "tiny_llama"])
@pytest.mark.parametrize("rule", ["fc24", "relative"])
def test_writers_of_a_pair_are_those_of_the_trace(
    which: str,
    rule: str,
    request: pytest.FixtureRequest,
    make_prompts: Callable[..., pl.DataFrame],
) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    prompts = (
        request.getfixturevalue("organism_prompts")
        if which == "organism"
        else make_prompts(model, 5, 11)
    )
    roots = [(model.config.n_layers - 1, head) for head in range(model.config.n_heads)]
    threshold = 0.5 if which == "organism" else 0.05
    rules = TraceSettings(trace_rule=rule, firing_threshold=threshold, keep_all=True)
    trace = trace_circuit(model, prompts, roots, rules)
    found = slice_writers(model, prompts, trace.slices, n_nodes=4)
    declared = table_specs()["attention_slice_writers"].science_columns
    assert dict(found.schema) == {c.name: c.polars_type for c in declared if c.name != "task"}
    pair = ["layer", "head", "prompt", "destination", "source"]
    assert found.select(pair).unique().height >= 3
    assert found.select(*NODE).unique().height == found.select(pair).unique().height
    own = pl.when(side="destination").then("destination").otherwise("source")
    traced = trace.edges.filter(upstream_kind="head").filter(written_at=own)
    traced = traced.rename({"downstream_layer": "layer", "downstream_head": "head"})
    key = [*pair, "side", "upstream_layer", "upstream_head"]
    both = found.join(traced, on=key, suffix="_traced")
    # Every head before the reader, on both sides.
    assert both.height == found.height
    assert found.height == sum(
        2 * row[0] * model.config.n_heads for row in found.select(pair).unique().rows()
    )
    size = found["contribution"].abs().max()
    assert both.height
    assert both["contribution"].to_numpy() == pytest.approx(
        both["contribution_traced"].to_numpy(), abs=1e-5 * size
    )
    every = trace_circuit(
        model, prompts, roots, rules.model_copy(update={"every_slice": True})
    ).edges
    every = every.filter(upstream_kind="head").filter(written_at=own)
    every = every.rename({"downstream_layer": "layer", "downstream_head": "head"})
    all_slices = found.join(every, on=key, suffix="_traced")
    assert all_slices.height
    assert all_slices["contribution_all_slices"].to_numpy() == pytest.approx(
        all_slices["contribution_traced"].to_numpy(), abs=1e-5 * size
    )
