"""Summaries and effect views against hand computation."""

import duckdb
import numpy as np
import polars as pl
import pytest

from mechinterp_assets.interventions.runner import RESULTS_SCHEMA
from mechinterp_assets.interventions.summary import (
    intervention_summary,
    recovered_fraction,
)
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.storage.declarations import SQL_FOLDER, polars_schema, table_spec
from mechinterp_assets.storage.table_spec import plain_table

VIEWS = (
    "intervention_effects",
    "intervention_recovery",
    "intervention_magnitudes",
    "edge_ablation_vs_control",
    "edge_mode_comparison",
)


def rows(name: str, effects: dict[int, float], **spec: object) -> list[dict[str, object]]:
    return [
        {
            "task": "ioi",
            "prompt": prompt,
            "intervention": name,
            "is_control": False,
            "metric": "logit_diff",
            "clean": 2.0 + prompt,
            "patched": 2.0 + prompt + effect,
            "n_slices": 3,
            "cosine": 0.9,
            "norm_ratio": 1.1,
            **spec,
        }
        for prompt, effect in effects.items()
    ]


@pytest.fixture(scope="module")
def results() -> pl.DataFrame:
    edge = {
        "kind": "edge",
        "mode": "ablate",
        "layer": 2,
        "head": 1,
        "upstream_layer": 0,
        "upstream_head": 3,
        "destination_role": "END",
        "source_role": "IO",
        "side": "source",
        "scope": "global",
        "alpha": 1.0,
    }
    head = {"kind": "head_ablation", "mode": "zero", "layer": 0, "head": 0, "alpha": 1.0}
    made = [
        *rows("edge", {0: -1.0, 1: -2.0, 2: -3.0}, **edge),
        *rows("edge:control-0", {0: 0.5, 1: 0.1}, **edge, is_control=True, seed=0),
        *rows("edge:control-1", {0: -0.5, 1: 0.3}, **edge, is_control=True, seed=1),
        *rows("head", {0: 0.25}, **head),
    ]
    return pl.DataFrame(made, schema=RESULTS_SCHEMA, infer_schema_length=None)


def test_summary_of_known_effects(results: pl.DataFrame) -> None:
    summary = intervention_summary(results, n_bootstrap=500, seed=1)
    assert summary.schema == polars_schema(table_spec("intervention_summary"))
    assert summary["intervention"].to_list() == ["edge", "head"]
    edge, head = summary.rows(named=True)
    assert (edge["n"], edge["mean_effect"], edge["sd_effect"]) == (3, -2.0, 1.0)
    assert edge["mean_clean"] == pytest.approx(3.0)
    assert edge["mean_patched"] == pytest.approx(1.0)
    assert -3.0 <= edge["ci_low"] < -2.0 < edge["ci_high"] <= -1.0
    # Per prompt the controls average to 0.0 and 0.2; prompt 2 has none.
    assert (edge["n_controls"], edge["control_n"]) == (2, 2)
    assert edge["control_mean_effect"] == pytest.approx(0.1)
    assert (head["n"], head["mean_effect"], head["ci_low"], head["sd_effect"]) == (
        1,
        0.25,
        None,
        None,
    )
    assert (head["n_controls"], head["control_n"], head["control_mean_effect"]) == (0, 0, None)
    assert intervention_summary(results, n_bootstrap=500, seed=1).equals(summary)


def test_recovered_fractions_normalise_means() -> None:
    clean, corrupt = np.array([2.0, 4.0, 1.0]), np.array([-2.0, 0.0, 0.9])
    patched = corrupt + np.array([1.0, 3.0, 0.1])
    fraction, low, high = recovered_fraction(clean, corrupt, patched, 2000, seed=0)
    assert fraction == pytest.approx((1.0 + 3.0 + 0.1) / (4.0 + 4.0 + 0.1))
    assert low is not None
    assert high is not None
    assert 0.25 <= low < fraction < high <= 1.0  # the prompts' own fractions: 1/4, 3/4, 1
    assert recovered_fraction(clean, clean, patched, 100, seed=0) == (None, None, None)
    assert recovered_fraction(clean[:1], corrupt[:1], patched[:1], 100, 0) == (0.25, None, None)
    shared = {"kind": "activation_patching", "mode": "noise", "site": "attn_out", "layer": 1}
    made = [
        {**row, "clean": c, "corrupt": k, "ablated": k - 1.0, "patched": p}
        for row, c, k, p in zip(
            rows("patch", {0: 0.0, 1: 0.0, 2: 0.0}, **shared), clean, corrupt, patched, strict=True
        )
    ]
    results = pl.DataFrame(made, schema=RESULTS_SCHEMA, infer_schema_length=None)
    (row,) = intervention_summary(results, n_bootstrap=2000).rows(named=True)
    assert row["recovered"] == pytest.approx(fraction)
    assert (row["recovered_ci_low"], row["recovered_ci_high"]) == (low, high)
    assert row["mean_corrupt"] == pytest.approx(corrupt.mean())
    assert row["recovered_from_ablated"] == pytest.approx((4.1 + 3.0) / (8.1 + 3.0))
    undefined = results.with_columns(pl.lit(None, pl.Float64).alias("patched"))
    assert intervention_summary(undefined).is_empty()


def test_bad_settings_and_empty_results(results: pl.DataFrame) -> None:
    with pytest.raises(InterventionError, match="n_bootstrap is 0"):
        intervention_summary(results, n_bootstrap=0)
    empty = intervention_summary(results.clear())
    assert empty.is_empty()
    assert empty.schema == intervention_summary(results).schema


def test_views_agree_with_the_summary(results: pl.DataFrame) -> None:
    with duckdb.connect() as con:
        con.execute(plain_table(table_spec("intervention_results")))
        con.register("frame", results.to_arrow())
        con.execute("INSERT INTO intervention_results BY NAME SELECT 's' AS study, * FROM frame")
        con.execute(plain_table(table_spec("intervention_summary")))
        con.register("means", intervention_summary(results, n_bootstrap=100).to_arrow())
        con.execute("INSERT INTO intervention_summary BY NAME SELECT 's' AS study, * FROM means")
        for view in VIEWS:
            con.execute((SQL_FOLDER / "views" / f"{view}.sql").read_text())
        effects = con.execute(
            "SELECT effect FROM intervention_effects WHERE intervention = 'edge' ORDER BY prompt"
        ).fetchall()
        assert [effect for (effect,) in effects] == pytest.approx([-1.0, -2.0, -3.0])
        compared = con.execute(
            "SELECT edge, n, mean_effect, control_mean_effect, effect_difference,"
            " effect_difference_se, share_larger FROM edge_ablation_vs_control"
        ).fetchall()
        modes = con.execute(
            "SELECT edge, n, ablate_effect, boost_effect, random_ablate_effect"
            " FROM edge_mode_comparison"
        ).fetchall()
        moved = con.execute(
            "SELECT kind, n, cosine_50, norm_ratio_95 FROM intervention_magnitudes ORDER BY ALL"
        ).fetchall()
        recovery = con.execute("SELECT count(*) FROM intervention_recovery").fetchall()
    assert modes == [("L0H3 > L2H1", 3, pytest.approx(-2.0), None, pytest.approx(0.1))]
    assert moved == []  # counted once per prompt, by its KL
    assert recovery == [(0,)]
    (row,) = compared
    assert row[0] == "L0H3 > L2H1"
    assert row[1:] == pytest.approx((2, -1.5, 0.1, -1.6, 0.6, 1.0))
