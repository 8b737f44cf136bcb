"""The block about what a feature means: people's labels, families, proxies.

Belongs here: how those tables are shown. Families are measured, proxies compared and labels read in
the feature packages.
"""

from typing import Any

from mechinterp_assets.dashboards.charts import number, percent
from mechinterp_assets.dashboards.layer_frames import ByFeature, LayerFrames
from mechinterp_assets.dashboards.tokens import token_label

BAR = 34  # longest bar, in pixels


class MeaningBlock:
    """Contents of the block for the features of one layer."""

    def __init__(self, frames: LayerFrames) -> None:
        self._labels = ByFeature(frames.labels, ("rater", "label", "verdict", "note"), "rater")
        self._families = ByFeature(
            frames.families,
            ("family", "measure", "value", "n", "threshold", "meets_threshold", "required", "text"),
            "family",
            "measure",
        )
        self._proxies = ByFeature(
            frames.proxies,
            (
                "proxy",
                "definition",
                "n_tokens",
                "n_true",
                "n_active",
                "n_active_true",
                "activation_sum",
                "activation_sum_true",
                "specificity_low",
                "specificity_high",
            ),
            "proxy",
        )

    def content(self, feature: int) -> dict[str, Any]:
        """Template values `labels`, `families` (those it belongs to), `measures` and `proxies`."""
        measures = self._families.rows(feature)
        by_family: dict[str, list[dict[str, Any]]] = {}
        for row in measures:
            if row["required"]:
                by_family.setdefault(row["family"], []).append(row)
        # The label of the view feature_family_labels: all required measures pass.
        families = [
            name for name, rows in by_family.items() if all(r["meets_threshold"] for r in rows)
        ]
        return {
            "labels": self._labels.rows(feature),
            "families": [name.replace("_", " ") for name in families],
            "measures": [_measure(row, families) for row in measures],
            "proxies": [_proxy(row) for row in self._proxies.rows(feature)],
        }


# ---- private -------------------------------------------------------------------------------------


def _measure(row: dict[str, Any], families: list[str]) -> dict[str, Any]:
    return {
        "family": row["family"].replace("_", " "),
        "labelled": row["family"] in families,
        "measure": row["measure"].replace("_", " "),
        "value": number(row["value"]),
        "threshold": "" if row["threshold"] is None else number(row["threshold"]),
        "n": f"{row['n']:,}",
        "verdict": {True: "passes", False: "fails", None: "–"}[row["meets_threshold"]],
        "text": None if row["text"] is None else token_label(row["text"]),
    }


def _proxy(row: dict[str, Any]) -> dict[str, Any]:
    specificity = _share(row["n_active_true"], row["n_active"])
    bounds = [row["specificity_low"], row["specificity_high"]]
    return {
        "proxy": row["proxy"],
        "definition": row["definition"],
        "specificity": percent(specificity),
        "interval": "" if None in bounds else " to ".join(percent(b) for b in bounds),
        "width": round(BAR * (specificity or 0.0)),
        "weighted": percent(_share(row["activation_sum_true"], row["activation_sum"])),
        "sensitivity": percent(_share(row["n_active_true"], row["n_true"])),
        "base": percent(_share(row["n_true"], row["n_tokens"])),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
