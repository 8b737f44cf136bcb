"""Experiments on traced edges: what is chosen from a planted trace, additivity, controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import duckdb
import polars as pl
import pytest

from mechinterp_assets.app.queries import all_queries
from mechinterp_assets.interventions.api import request, run
from mechinterp_assets.interventions.edge_choice import edge_interventions
from mechinterp_assets.interventions.experiment_context import (
    ExperimentContext,
    NothingToRun,
)
from mechinterp_assets.interventions.experiments import edges_together, parallel_sets
from mechinterp_assets.interventions.kinds.edge import EditEdge
from mechinterp_assets.interventions.measured_context import experiment_context
from mechinterp_assets.interventions.published import PUBLISHED
from mechinterp_assets.interventions.published_fc24 import (
    edges_into,
    readers,
    serial_pairs,
    writers,
)
from mechinterp_assets.interventions.published_sets import published_entries
from mechinterp_assets.interventions.runner import RESULTS_SCHEMA, intervention_sets
from mechinterp_assets.interventions.sets import InterventionSet
from mechinterp_assets.interventions.settings import InterventionSettings
from mechinterp_assets.interventions.summary import intervention_summary
from mechinterp_assets.interventions.terms import Watched
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelShape
from mechinterp_assets.storage.declarations import SQL_FOLDER, table_spec
from mechinterp_assets.storage.table_spec import plain_table
from tests.interventions.conftest import EdgeFrame, choose

NAMES = [name for name in PUBLISHED if name.startswith("fc24_")]
ROLES = ("END", "IO")
# writer, reader, roles of the pair, side, contribution, prompts, root
Planted = tuple[tuple[int, int], tuple[int, int], tuple[str, str], str, float, int, bool]
PLANTED: list[Planted] = [
    ((1, 1), (3, 3), ROLES, "source", 5.0, 6, True),
    ((1, 2), (3, 3), ROLES, "source", 4.0, 6, True),
    ((2, 6), (3, 3), ROLES, "source", 1.0, 6, True),
    ((1, 0), (3, 3), ROLES, "destination", 2.0, 4, True),
    ((0, 7), (1, 0), ("END", "S2"), "destination", 9.0, 8, True),
    ((0, 2), (2, 6), ("IO", "S1"), "destination", 0.5, 8, False),
    ((0, 7), (2, 6), ("IO", "S1"), "source", 0.4, 8, False),
    ((0, 7), (2, 5), ("IO", "S1"), "source", 0.4, 7, False),
]


def planted_trace(
    base: pl.DataFrame, traced_edge: EdgeFrame, rows: Sequence[Planted]
) -> pl.DataFrame:
    return pl.concat(
        traced_edge(base.head(n), writer, reader, roles, side, [0, 2, 3]).with_columns(
            pl.lit(contribution / n).alias("contribution"), pl.lit(root).alias("is_root")
        )
        for writer, reader, roles, side, contribution, n, root in rows
    )


def context_of(
    model: LanguageModel, prompts: pl.DataFrame, trace_edges: pl.DataFrame, edges: int = 2
) -> ExperimentContext:
    return experiment_context(
        request(model, prompts, (), limit=8, trace_edges=trace_edges),
        with_role={},
        scores=pl.DataFrame(
            schema={"layer": pl.Int32, "head": pl.Int32, "score": pl.String}
        ).with_columns(pl.lit(None, pl.Float64).alias("value")),
        trace_edges=trace_edges,
        trace_graph=pl.DataFrame(),
        settings=InterventionSettings(published_edges=edges),
    )


@pytest.fixture(scope="module")
def planted(
    organism: LanguageModel, ioi: pl.DataFrame, base: pl.DataFrame, traced_edge: EdgeFrame
) -> ExperimentContext:
    return context_of(organism, ioi, planted_trace(base, traced_edge, PLANTED))


def test_readers_writers_and_series_of_a_planted_trace(planted: ExperimentContext) -> None:
    assert [str(one) for one in readers(planted)] == [
        "L1H0 END <- S2",
        "L3H3 END <- IO",
        "L2H6 IO <- S1",
    ]
    into = edges_into(planted, readers(planted)[1])
    assert into.select("upstream_layer", "upstream_head", "side").rows() == [
        (1, 0, "destination"),
        (1, 1, "source"),
        (1, 2, "source"),
    ]
    assert [head for head, _ in writers(planted)[:2]] == [(0, 7), (1, 1)]
    (first, _), (second, _) = serial_pairs(planted)
    # 2.6 attends from IO, and writes there what 3.3 reads at its source.
    assert {frame["downstream_head"].to_list()[0] for frame in (first, second)} == {6}
    assert all(frame["downstream_head"].to_list()[1] == 3 for frame in (first, second))
    assert first["upstream_head"].to_list() == [2, 6]


def test_every_experiment_of_a_planted_trace(planted: ExperimentContext) -> None:
    chosen, listed = choose(NAMES, planted)
    assert set(listed["experiment"]) == set(NAMES)
    assert listed["intervention"].null_count() == 0
    by_name = dict(listed.group_by("experiment").agg("intervention").rows())
    # Edges times modes, scopes, and own or random slices: 3 into 3.3, 1 into 1.0, 2 into 2.6.
    assert len(by_name["fc24_edges_in"]) == 6 * 2 * 2 * 2
    sets = {one.id: one for one in chosen if isinstance(one, InterventionSet)}
    members = {member.id for one in sets.values() for member in one.members}
    assert members <= {one.id for one in chosen}
    assert set(by_name["fc24_magnitudes"]) == {one.id for one in chosen}
    singles = [one for one in chosen if isinstance(one, EditEdge)]
    assert {one.occurrence for one in singles} == {"traced"}


def test_what_could_be_run_in_no_prompt_is_not_chosen(
    organism: LanguageModel, ioi: pl.DataFrame, base: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    early: list[Planted] = [((0, 7), (1, 0), ("END", "S2"), "destination", 2.0, 2, True)]
    late: list[Planted] = [((0, 7), (1, 3), ("END", "S2"), "destination", 1.0, 2, True)]
    apart = pl.concat(
        [planted_trace(base, traced_edge, early), planted_trace(base.tail(4), traced_edge, late)]
    )
    half = organism.config.d_head // 2
    slices = pl.when(pl.col("downstream_head") == 0).then(pl.lit(list(range(half + 1))))
    apart = apart.with_columns(slices=slices.otherwise("slices").cast(pl.List(pl.Int32)))
    chosen, listed = choose(NAMES, context_of(organism, ioi, apart))
    # 0.7's readers share no prompt, so that its edges cannot be ablated together; the slices of 1.0
    # are more than half of all, so that none are left for a control.
    assert not any(isinstance(one, InterventionSet) for one in chosen)
    controls = {one.head for one in chosen if isinstance(one, EditEdge) and one.is_control}
    assert controls == {3}
    results = run(organism, ioi, chosen, trace_edges=apart)
    assert set(listed["intervention"].drop_nulls()) == set(results["intervention"])


def test_nothing_traced_is_said(
    organism: LanguageModel, ioi: pl.DataFrame, planted: ExperimentContext
) -> None:
    empty = context_of(organism, ioi, planted.trace_edges.clear())
    with pytest.raises(NothingToRun, match="no edge between heads was traced"):
        readers(empty)
    chosen, listed = choose(NAMES, empty)
    assert chosen == ()
    assert all(reason.startswith("not run: ") for reason in listed["chosen_by"])


def test_published_heads_serve_their_own_model_alone(organism: LanguageModel) -> None:
    assert published_entries("fc24-readers", "readers", organism.config) == []
    small = replace(
        organism.config, n_layers=12, n_heads=12, n_kv_heads=12, d_model=768, d_vocab=50257
    )
    assert [9, 9, "END", "IO"] in published_entries("fc24-readers", "readers", small)
    for name in ("fc24-parallel-sets", "fc24-serial-sets"):
        for edges in published_entries(name, "edges", small):
            assert all(len(edge) == 7 and edge[0] < edge[2] for edge in edges)


def test_traced_edges_are_edited_wherever_their_pair_was(
    busy: LanguageModel, base: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    traced = planted_trace(
        base,
        traced_edge,
        [
            ((0, 1), (2, 3), ROLES, "destination", 1.0, 3, True),
            ((1, 4), (2, 3), ROLES, "source", 1.0, 5, True),
        ],
    )
    rows = traced.unique("side", maintain_order=True)
    counts = {}
    for occurrence in ("kept", "traced"):
        made = edge_interventions(rows, modes=("ablate",), scopes=("local",), occurrence=occurrence)
        frame = run(busy, base, made, trace_edges=traced).filter(metric="kl")
        counts[occurrence] = dict(frame.filter(~pl.col("is_control")).group_by("side").len().rows())
        # As many random slices as slices of the edge, in every prompt.
        by_prompt = frame.group_by("side", "prompt").agg(pl.col("n_slices").unique())
        assert by_prompt["n_slices"].to_list() == [[3]] * by_prompt.height
        assert frame.filter("is_control").height == frame.height / 2
        assert set(frame["occurrence"]) == {occurrence}
    assert counts == {
        "kept": {"destination": 3, "source": 5},
        "traced": {"destination": 5, "source": 5},
    }
    assert intervention_summary(run(busy, base, made, trace_edges=traced))["n_controls"].min() == 1


def test_a_score_is_additive_on_one_side_and_bilinear_in_both(
    busy: LanguageModel, base: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    """Scores are linear in the query: local edits of it add up; with edits of keys they do not."""
    traced = planted_trace(
        base,
        traced_edge,
        [
            ((0, 1), (2, 3), ROLES, "destination", 1.0, 8, True),
            ((1, 4), (2, 3), ROLES, "destination", 1.0, 8, True),
            ((1, 5), (2, 3), ROLES, "source", 1.0, 8, True),
        ],
    )
    edges = traced.unique(["upstream_head", "side"], maintain_order=True)
    watch = Watched(layer=2, head=3, destination_role="END", source_role="IO")
    sets = parallel_sets(edges, busy.config, occurrence="traced", watch=watch)
    assert [len(one.members) for one in sets] == [2, 3]
    alone = edge_interventions(
        edges, modes=("ablate",), scopes=("local",), n_controls=0, occurrence="traced"
    )
    found = _additivity(run(busy, base, [*sets, *alone], trace_edges=traced), sets, busy.config)
    scores = {row["members"]: row for row in found if row["metric"] == "attn_score"}
    assert scores[2]["n"] == 8
    assert scores[2]["relative_deviation"] < 1e-4
    assert scores[2]["additivity_ratio"] == pytest.approx(1.0, abs=1e-3)
    assert scores[3]["relative_deviation"] > 1e-3
    together = edges_together(
        edges.head(2), "parallel", busy.config, scope="global", occurrence="traced"
    )
    assert together is not None


def test_one_output_is_not_edited_twice(
    organism: LanguageModel, traced_edge: EdgeFrame, base: pl.DataFrame
) -> None:
    shape = organism.config
    rows: list[Planted] = [
        ((0, 1), (2, 3), ROLES, "destination", 1.0, 8, True),
        ((0, 1), (3, 3), ROLES, "destination", 1.0, 8, True),
    ]
    edges = planted_trace(base, traced_edge, rows).unique("downstream_layer", maintain_order=True)
    assert edges_together(edges, "parallel", shape, scope="global") is None
    local = edges_together(edges, "parallel", shape, scope="local")
    assert local is not None
    assert len(local.members) == 2


# ---- planted numbers through the SQL -------------------------------------------------------------


def _additivity(
    results: pl.DataFrame, sets: Sequence[InterventionSet], shape: ModelShape
) -> list[dict[str, object]]:
    with duckdb.connect() as con:
        _fill(con, intervention_results=results, intervention_sets=intervention_sets(sets, shape))
        con.execute((SQL_FOLDER / "views" / "intervention_set_additivity.sql").read_text())
        return _rows(con, "SELECT * FROM intervention_set_additivity ORDER BY ALL")


def _fill(con: duckdb.DuckDBPyConnection, **frames: pl.DataFrame) -> None:
    for table, frame in frames.items():
        con.execute(plain_table(table_spec(table)))
        con.register("frame", frame.to_arrow())
        con.execute(f"INSERT INTO {table} BY NAME SELECT 'organism' AS study, * FROM frame")


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, object]]:
    found = con.execute(sql)
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _answers(con: duckdb.DuckDBPyConnection, number: int) -> list[dict[str, object]]:
    (query,) = [one for one in all_queries() if one.name.startswith(str(number))]
    return _rows(con, query.sql)


def test_queries_on_planted_numbers(
    organism: LanguageModel, traced_edge: EdgeFrame, base: pl.DataFrame
) -> None:
    """An edge in FC24's order, one against it, and two that add up to 3/4 of their sum."""
    rows: list[Planted] = [
        ((0, 1), (2, 3), ROLES, "destination", 1.0, 8, True),
        ((1, 4), (2, 3), ROLES, "destination", 1.0, 8, True),
    ]
    edges = planted_trace(base, traced_edge, rows).unique("upstream_head", maintain_order=True)
    (whole,) = parallel_sets(edges, organism.config, occurrence="traced")
    made = [*edge_interventions(edges, occurrence="traced"), whole]
    wrong_way = {False: -1.0, True: 1.0}

    def effect(one: EditEdge | InterventionSet, prompt: int) -> float:
        noise = 0.01 * (prompt - 3.5)
        if isinstance(one, InterventionSet):
            return 0.75 * (-1.0 + 1.0 * 3) + noise
        if one.is_control:
            return noise
        size = 3.0 if one.upstream_layer else 1.0
        sign = wrong_way[bool(one.upstream_layer) != (one.mode == "boost")]
        return sign * size * (10.0 if one.scope == "global" else 1.0) + noise

    results = pl.DataFrame(
        [
            {
                "task": "ioi",
                "prompt": prompt,
                "intervention": one.id,
                "kind": "set",
                "is_control": False,
                "via_mlp": True,
                **(
                    {}
                    if isinstance(one, InterventionSet)
                    else {
                        **{k: v for k, v in one.model_dump().items() if k in RESULTS_SCHEMA},
                        "position_role": one.edited_role,
                    }
                ),
                "metric": metric,
                "clean": 2.0,
                "patched": 2.0 + (effect(one, prompt) if metric == "logit_diff" else 0.0),
                "cosine": 0.9 if isinstance(one, InterventionSet) else 0.99,
                "norm_ratio": 1.0,
            }
            for one in made
            for prompt in range(8)
            for metric in ("logit_diff", "kl")
        ],
        schema=RESULTS_SCHEMA,
    )
    listed = pl.DataFrame(
        [
            {"task": "ioi", "experiment": name, "intervention": one.id, "part": part}
            for one in made
            for part, experiment in [
                ("sets", "fc24_parallel_sets")
                if isinstance(one, InterventionSet)
                else ("single edges", "fc24_edges_in")
            ]
            for name in (experiment, "fc24_magnitudes")
        ]
    )
    with duckdb.connect() as con:
        _fill(
            con,
            intervention_results=results,
            intervention_sets=intervention_sets(made, organism.config),
            intervention_experiments=listed,
            intervention_summary=intervention_summary(results, n_bootstrap=200),
        )
        for view in ("edge_mode_comparison", "intervention_set_additivity"):
            con.execute((SQL_FOLDER / "views" / f"{view}.sql").read_text())
        order = {row["scope"]: row for row in _answers(con, 49)}
        assert set(order) == {"local", "global"}
        for row in order.values():
            assert row["edges"] == 2
            assert row["random_does_neither"] == 1.0
            shares = ("means_in_order", "ablating_hurts", "ablating_helps", "boosting_helps")
            assert [row[name] for name in (*shares, "all_three")] == [0.5] * 5
        assert order["local"]["ablate"] == pytest.approx((-1.0 + 3.0) / 2)
        for row in _answers(con, 50):
            assert row["same_sign"]
            assert row["global_over_local"] == pytest.approx(10.0)
        (together,) = _answers(con, 51)
        assert together["n"] == 8
        assert together["together"] == pytest.approx(1.5)
        assert together["sum_of_single_effects"] == pytest.approx(2.0)
        assert together["together_over_sum"] == pytest.approx(0.75)
        assert _answers(con, 52) == []
        columns = ("part", "scope", "mode", "random_slices")
        moved = {tuple(row[name] for name in columns): row for row in _answers(con, 53)}
        assert len(moved) == 1 + 2 * 2 * 2
        assert moved["sets", "local", "ablate", False]["cosine_50"] == pytest.approx(0.9)
        assert moved["single edges", "global", "boost", True]["cosine_50"] == pytest.approx(0.99)
