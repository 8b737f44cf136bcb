"""Sentences about experiments: their numbers are those of planted rows."""

import math
from typing import Any

import polars as pl
import pytest

from mechinterp_assets.dashboards.answers import answer, unstable_share
from mechinterp_assets.dashboards.links import Links

EDGE = {
    "scope": "global",
    "upstream": "L0H5",
    "downstream": "L1H0",
    "mean_clean": 2.0,
    "control_ci_low": -0.1,
    "control_ci_high": 0.1,
}


def edge(mode: str, effect: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {**EDGE, "mode": mode, "mean_effect": effect, "ci_low": low, "ci_high": high, **more}


def said(statement: str, *rows: dict[str, Any]) -> str:
    return answer(statement, pl.DataFrame(list(rows), infer_schema_length=None))


def test_edges_count_intervals_on_the_side_that_is_asked_for() -> None:
    text = said(
        "experiment_edges",
        edge("ablate", -0.5, -0.6, -0.4, control_ci_low=-0.3, control_ci_high=-0.1),
        edge("ablate", 0.9, 0.8, 1.0, upstream="L2H2"),  # helps: no harm
        edge("ablate", -0.1, -0.3, 0.1),
        edge("boost", 0.3, 0.2, 0.4),
        edge("boost", math.nan, math.nan, math.nan),
    )
    assert text.startswith(
        "Ablating hurts in 1 of 3 cases (random slices in 1); boosting helps in 1 of 1 cases "
        "(random slices in 0)."
    )
    assert "L2H2 to L1H0 (global, ablate) changes the logit difference of 2 by +0.9" in text


def splice(layers: str, share: float, ablated: float) -> dict[str, Any]:
    return {
        "metric": "logit_diff",
        "layers": layers,
        "mean_clean": 2.0,
        "mean_ablated": ablated,
        "recovered_from_ablated": share,
    }


def test_shares_of_almost_nothing_are_left_out_and_said() -> None:
    rows = [splice("L0", 0.9, 0.0), splice("L1", 0.5, 1.0), splice("L2", -30.0, 1.9)]
    assert [unstable_share(row) for row in rows] == [False, False, True]
    text = said("experiment_splice", *rows)
    assert "recover 70% of the logit difference in the median; 50% (L1) to 90% (L0)." in text
    assert "1 of 3 are left out" in text
    assert said("experiment_splice", rows[2]).startswith("1 of 1 are left out")


@pytest.mark.parametrize(
    ("statement", "rows", "expected"),
    [
        (
            "experiment_noising",
            [
                {"layers": layers, "ablated_run": None, "recovered": share, "source_variant": name}
                for layers, share, name in (
                    ("L1+L2", 0.9, "a"),
                    ("L1+L2", 0.7, "a"),
                    ("L1+L2", 0.1, "b"),
                    ("L1+L2", math.nan, "b"),
                    ("L1", -0.6, "a"),
                )
            ],
            "With a in L1+L2, 80% of the logit difference is left; with b, 10%.",
        ),
        (
            "experiment_sets",
            [
                {
                    "metric": "logit_diff",
                    "joint_effect": joint,
                    "sum_of_members": 1.0,
                    "interaction": joint - 1.0,
                    "interaction_se": 0.1,
                }
                for joint in (1.0, 1.1, 2.0)
            ],
            "2 of 3 sets add up within two standard errors; together they do 110% of the sum, in "
            "the median.",
        ),
        (
            "experiment_features",
            [
                {
                    "layer": 1,
                    "feature": feature,
                    "position_role": "S2",
                    "mean_clean": 3.0,
                    "mean_effect": effect,
                    "ci_low": effect - 0.1,
                    "ci_high": effect + 0.1,
                }
                for feature, effect in ((3, -0.4), (None, 0.05))
            ],
            "1 of 2 ablations change the logit difference of 3; most of all L1F3 at S2, by −0.4.",
        ),
        (
            "faithfulness_curves",
            [
                {
                    "task": "ioi",
                    "ranking": ranking,
                    "ranked_by": "signed",
                    "smallest_k_90": least,
                }
                for ranking, least in (("eap", 0.2), ("eap_ig", 0.05), ("random", 0.8))
            ],
            "Ranked by eap_ig (signed), 5% of the edges do 90% of the task ioi; edges in random "
            "order need 80%.",
        ),
    ],
)
def test_sentences(statement: str, rows: list[dict[str, Any]], expected: str) -> None:
    assert said(statement, *rows) == expected


def test_nothing_is_said_of_no_rows_or_an_unknown_statement() -> None:
    assert answer("experiment_edges", pl.DataFrame()) == ""
    assert said("something_new", {"a": 1}) == ""
    assert said("experiment_magnitudes", {"mean_cosine": math.nan, "mean_norm_ratio": 1.0}) == ""


def test_names_of_heads_and_features_become_links_and_nothing_else_does() -> None:
    links = Links("s", {1})
    assert str(links.text("<b> L2H3 reads L1F7, not L4F7 or XL2H3")) == (
        '&lt;b&gt; <a href="../s.heads/L02H03.html">L2H3</a> reads '
        '<a href="../s.L01/features/7.html">L1F7</a>, not L4F7 or XL2H3'
    )
