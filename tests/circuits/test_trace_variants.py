"""Rules of tracing beside the main one, their counts, and the published code's graph."""

import gc
import io
import weakref
from collections import Counter
from collections.abc import Callable

import networkx as nx
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from trace_reference import Reference
from traced_cases import MODELS, Case

from mechinterp_assets.circuits import trace as trace_module
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.published_graph import (
    published_graphml,
    published_networkx,
    published_roles,
)
from mechinterp_assets.circuits.residual import ResidualStream
from mechinterp_assets.circuits.settings import IoiSettings, RuleName, TraceSettings
from mechinterp_assets.circuits.trace import trace_batches, trace_circuit
from mechinterp_assets.circuits.trace_variants import (
    VARIANTS_SCHEMA,
    VariantCounts,
    rule_name,
    variant_settings,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import table_specs

VARIANTS: tuple[RuleName, ...] = ("near", "negative", "all_slices", "fc24_code", "relative")
PAIR = ["prompt", "downstream_layer", "downstream_head", "destination", "source", "side"]


def counts_of(case: Case, variant: RuleName) -> VariantCounts:
    model, prompts, roots = case
    counts = VariantCounts(rule_name(variant, "fc24"), prompts)
    settings = variant_settings(variant, TraceSettings(), near=0.25)
    counts.add(trace_circuit(model, prompts, roots, settings))
    return counts


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_published_counts_equal_those_of_a_recursion_along_every_path(case: Case) -> None:
    model, prompts, roots = case
    edges = counts_of(case, "fc24_code").edges()
    assert edges["side"].null_count() == edges.height > 0
    found: Counter[tuple[int, ...]] = Counter()
    visits = 0
    for row in prompts.iter_rows(named=True):
        reference = Reference(model, row["token_ids"])
        traced = reference.trace(roots, row["pos_end"], row["pos_io"], published=True)
        for key, count in traced.edge_visits.items():
            found[key[:4]] += count
        visits += sum(traced.visits.values())
    heads = ["upstream_layer", "upstream_head", "downstream_layer", "downstream_head"]
    ours = edges.group_by(heads).agg(pl.col("path_multiplicity").sum())
    assert {row[:4]: row[4] for row in ours.iter_rows()} == found
    attending = counts_of(case, "fc24_code").nodes().filter(pl.col("source_role").is_not_null())
    assert attending["path_multiplicity"].sum() == visits


@pytest.mark.parametrize("case", ["organism", "tiny_gpt2"], indirect=True)
def test_the_published_graph_equals_one_built_edge_by_edge(
    case: Case,
    request: pytest.FixtureRequest,
) -> None:
    """Every step of the recursion, prompt by prompt, adds to a graph as FC24's code says: an edge
    remembers the prompt that made it and counts every step of other prompts."""
    model, prompts, roots = case
    prompts = prompts.sort("prompt")
    labels = {(p, at): role for p, at, role in published_roles(prompts).iter_rows()}
    built = nx.DiGraph()
    for row in prompts.iter_rows(named=True):
        traced = Reference(model, row["token_ids"]).trace(
            roots, row["pos_end"], row["pos_io"], published=True
        )
        for up_layer, up_head, layer, head, at in traced.events:
            if (role := labels.get((row["prompt"], at))) is None:
                continue
            up, own = f"L{up_layer}H{up_head}", f"L{layer}H{head}"
            down = f"{own} {role}"
            if not built.has_edge(up, down):
                built.add_edge(up, down, prompt=row["prompt"], count=1)
                new = True
            else:
                new = built[up][down]["prompt"] != row["prompt"]
                built[up][down]["count"] += new
            if not built.has_edge(down, own):
                built.add_edge(down, own, count=1)
            else:
                built[down][own]["count"] += new
    graph = counts_of(case, "fc24_code").published()
    declared = {
        c.name: c.polars_type
        for c in table_specs()["trace_published"].science_columns
        if c.name != "task"
    }
    assert dict(graph.schema) == declared
    ours = published_networkx(graph)
    assert set(ours) == set(built)
    assert {(a, b): d["published_count"] for a, b, d in ours.edges(data=True)} == {
        (a, b): d["count"] for a, b, d in built.edges(data=True)
    }
    assert ours.number_of_edges() > 5
    # An edge of several paths in its first prompt is counted once there.
    several = graph.filter(pl.col("path_multiplicity") > pl.col("published_count"))
    assert several.height > 0 or model is not request.getfixturevalue("organism")
    again = nx.read_graphml(io.BytesIO(published_graphml(graph)))
    assert set(again.edges()) == set(ours.edges())


def test_published_roles_of_one_prompt() -> None:
    """The last label of a position holds: end-1 is the verb's, S1+1 is IO-1."""
    columns = {"pos_io": [4], "pos_s1": [2], "pos_s2": [7], "pos_end": [10], "pos_verb": [9]}
    prompt = pl.DataFrame({"prompt": [3], "n_tokens": [11], **columns})
    roles = published_roles(prompt).sort("written_at")
    assert roles.select("written_at", "written_role").rows() == [
        (0, "starts"), (1, "S1-1"), (2, "S1"), (3, "S1+1"), (4, "IO"), (5, "IO+1"), (6, "S2-1"),
        (7, "S2"), (8, "S2+1"), (9, "verb"), (10, "end"),
    ]  # fmt: skip


@pytest.mark.parametrize("case", ["organism", "tiny_gpt2"], indirect=True)
def test_negative_keeps_the_heads_that_write_most_against_the_slices(case: Case) -> None:
    settings = TraceSettings(sign="negative", keep_all=True)
    edges = trace_circuit(*case, settings).edges.filter(upstream_kind="head")
    assert edges.filter("kept").height > 0
    for pair in edges.partition_by(PAIR):
        kept = pair.filter("kept")["contribution"].to_numpy()
        rest = pair.filter(~pl.col("kept"))["contribution"].to_numpy()
        negative = pair["contribution"].to_numpy().clip(max=0)
        assert (kept < 0).all()
        assert kept.max(initial=-np.inf) <= rest.min(initial=np.inf)
        assert kept.sum() <= 0.7 * negative.sum() or not kept.size
        if len(kept) > 1:
            assert np.sort(kept)[:-1].sum() >= 0.7 * negative.sum()


@pytest.mark.parametrize("case", ["organism", "tiny_llama"], indirect=True)
def test_all_slices_is_what_the_contrast_compares_with(case: Case) -> None:
    model, prompts, roots = case
    some = trace_circuit(model, prompts, roots, TraceSettings(slice_contrast=True))
    every = trace_circuit(
        model, prompts, roots, TraceSettings(slice_contrast=True, every_slice=True, keep_all=True)
    )
    rank = model.config.d_head
    assert every.slices["n_slices"].unique().to_list() == [rank]
    assert (every.contrast["n_kept"] == every.contrast["n_kept_all_slices"]).all()
    assert np.allclose(every.contrast["correlation"].drop_nulls().to_numpy(), 1)
    declared = {
        c.name: c.polars_type
        for c in table_specs()["attention_slice_contrast"].science_columns
        if c.name != "task"
    }
    assert dict(some.contrast.schema) == declared
    pairs = some.slices.filter(pl.col("path_multiplicity") > 0).height
    assert some.contrast.height == 2 * pairs > 0
    key = ["prompt", "layer", "head", "destination", "source", "side"]
    both = some.contrast.join(every.contrast, on=key, suffix="_every")
    assert both.height > 0
    assert (both["n_kept_all_slices"] == both["n_kept_every"]).all()
    assert (
        both["n_kept_both"]
        <= both.select(pl.min_horizontal("n_kept", "n_kept_all_slices"))["n_kept"]
    ).all()
    effective = (
        every.edges.filter(upstream_kind="head")
        .rename({"downstream_layer": "layer", "downstream_head": "head"})
        .group_by(key)
        .agg(expected=pl.col("contribution").abs().sum() ** 2 / (pl.col("contribution") ** 2).sum())
    )
    compared = some.contrast.join(effective, on=key)
    assert np.allclose(
        compared["effective_heads_all_slices"].to_numpy(),
        compared["expected"].to_numpy(),
        rtol=1e-3,
    )


@pytest.mark.parametrize("case", ["organism"], indirect=True)
def test_near_roots_are_those_that_almost_fire(case: Case) -> None:
    model, prompts, roots = case
    trace = trace_circuit(model, prompts, roots, TraceSettings(firing_threshold=0.9, near=0.05))
    started = trace.slices.filter(
        pl.col("is_root") & (pl.col("path_multiplicity") > 0) & ~pl.col("fires")
    )
    assert started.height == trace.roots["n_firing"].sum() > 0
    assert started["attention"].is_between(0.05, 0.9, closed="left").all()
    assert (started["attention_score"] >= 0).all()
    # A root that fires fully is reached along kept heads or not at all.
    firing = trace.slices.filter(pl.col("is_root") & pl.col("fires"))
    reached = trace.edges.filter("kept").select("upstream_layer", "upstream_head").rows()
    for row in firing.filter(pl.col("path_multiplicity") > 0).iter_rows(named=True):
        assert (row["layer"], row["head"]) in reached
    upstream = trace.slices.filter(~pl.col("is_root"))
    assert upstream["fires"].all()


@pytest.mark.parametrize("case", ["organism"], indirect=True)
def test_variants_follow_their_tables(case: Case) -> None:
    model, prompts, roots = case
    main = TraceSettings()
    rules = [main, *(variant_settings(name, main, near=0.25) for name in VARIANTS)]
    names = ["fc24", *(rule_name(name, "fc24") for name in VARIANTS)]
    together = [VariantCounts(name, prompts) for name in names]
    for parts in trace_batches(model, prompts, roots, rules):
        for counts, part in zip(together, parts, strict=True):
            counts.add(part)
    for variant, counts in zip(("fc24", *VARIANTS), together, strict=True):
        alone = counts_of(case, variant)
        assert (
            counts.edges().drop("mean_contribution").equals(alone.edges().drop("mean_contribution"))
        )
        for name, frame in (
            ("trace_variants", counts.edges()),
            ("trace_nodes", counts.nodes()),
        ):
            declared = {
                c.name: c.polars_type
                for c in table_specs()[name].science_columns
                if c.name != "task"
            }
            assert dict(frame.schema) == declared
    assert next(iter(VARIANTS_SCHEMA)) == "trace_rule"
    of_main = together[0]
    written = set(of_main.edges().select("upstream_layer", "upstream_head").rows())
    read = set(of_main.edges().select("downstream_layer", "downstream_head").rows())
    roots_alone = set(of_main.nodes().filter("is_root").select("layer", "head").rows())
    assert set(of_main.nodes().select("layer", "head").rows()) == written | read | roots_alone
    assert 0 < of_main.coverage().destination < 1


def test_names_of_rules() -> None:
    """One name, one rule: changes of a main rule have its name, the published code's has none."""
    assert [rule_name(name, "relative") for name in ("near", "negative", "fc24_code", "fc24")] == [
        "relative_near",
        "relative_negative",
        "fc24_code",
        "fc24",
    ]
    assert (
        variant_settings("fc24_code", TraceSettings(trace_rule="relative"), 0.2).any_score is False
    )
    with pytest.raises(ValidationError, match="which trace_rule has already"):
        IoiSettings(trace_variants=["fc24"])


def test_memory_does_not_grow_with_prompts(
    tiny_gpt2: LanguageModel,
    make_prompts: Callable[..., pl.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One residual stream is alive at a time, and its size is that of a batch."""
    alive: weakref.WeakSet[ResidualStream] = weakref.WeakSet()
    most, sizes = [0], set()
    make = trace_module.residual_stream

    def watched(*args: object, **kwargs: object) -> ResidualStream:
        if alive:  # held by nothing but a cycle?
            gc.collect()
        most.append(len(alive))
        stream = make(*args, **kwargs)
        alive.add(stream)
        sizes.add(stream.outputs.nbytes)
        return stream

    monkeypatch.setattr(ResidualStream, "__hash__", object.__hash__)
    monkeypatch.setattr(trace_module, "residual_stream", watched)
    monkeypatch.setattr(trace_module, "prompts_per_batch", lambda *args: 4)
    prompts = make_prompts(tiny_gpt2, 40, 10)
    batches = sum(1 for _ in trace_batches(tiny_gpt2, prompts, [(3, 0)], [TraceSettings()]))
    assert batches == len(most) - 1 == 10
    assert max(most) == 0
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"near": 0.6}, "near is 0.6"),
        ({"near": 0.0}, "near\n.*greater than 0"),
        ({"sign": "both"}, "sign\n.*'positive' or 'negative'"),
    ],
)
def test_bad_rules_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TraceSettings(**settings)


def test_no_rules_is_an_error(
    tiny_gpt2: LanguageModel, make_prompts: Callable[..., pl.DataFrame]
) -> None:
    with pytest.raises(CircuitError, match="no rules"):
        next(trace_batches(tiny_gpt2, make_prompts(tiny_gpt2, 2, 8), [(2, 0)], []))
