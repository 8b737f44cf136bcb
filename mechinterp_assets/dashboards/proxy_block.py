"""The block about one feature and the study's proxies: plots, and tokens where the two disagree.

Belongs here: how feature_proxy_histogram and feature_proxy_examples are shown. Does not belong
here: the table of shares (meaning_block.py).

Specificity plot: tokens by activation interval, those at which the proxy is true in one colour.
Expected-value plot: the same weighted by activation (K24 section 3.3; Bricken et al. 2023).
"""

from typing import Any

from markupsafe import Markup

from mechinterp_assets.dashboards.charts import number, percent
from mechinterp_assets.dashboards.layer_frames import ByFeature, LayerFrames

WIDTH, HEIGHT = 240, 70
ERRORS = {
    "false_negative": "proxy true, feature silent",
    "false_positive": "feature active, proxy not true",
}


class ProxyBlock:
    """Contents of the block for the features of one layer."""

    def __init__(self, frames: LayerFrames) -> None:
        counts = ("n_active", "n_active_true", "activation_sum", "activation_sum_true")
        self._histogram = ByFeature(
            frames.proxy_histogram, ("proxy", "low", "high", *counts), "proxy", "interval"
        )
        columns = ("proxy", "error_kind", "n_errors", "sequence", "position", "activation", "text")
        self._examples = ByFeature(frames.proxy_examples, columns, "proxy", "error_kind", "rank")

    def content(self, feature: int) -> dict[str, Any]:
        """Template value `proxy_plots`: for each proxy its plots and its examples by error.

        Only proxies that are true at some active token, or that have examples, are drawn.
        """
        bars: dict[str, list[dict[str, Any]]] = {}
        for row in self._histogram.rows(feature):
            bars.setdefault(row["proxy"], []).append(row)
        errors: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for row in self._examples.rows(feature):
            errors.setdefault(row["proxy"], {}).setdefault(row["error_kind"], []).append(row)
        drawn = [
            proxy
            for proxy, rows in bars.items()
            if proxy in errors or any(row["n_active_true"] for row in rows)
        ]
        return {
            "proxy_plots": [
                {
                    "proxy": proxy,
                    "maximum": number(bars[proxy][-1]["high"]),
                    "specificity": _split_bars(
                        bars[proxy], "n_active", f"active tokens by activation, {proxy}"
                    ),
                    "expected": _split_bars(
                        bars[proxy], "activation_sum", f"the same weighted by activation, {proxy}"
                    ),
                    "errors": [_errors(kind, rows) for kind, rows in errors.get(proxy, {}).items()],
                }
                for proxy in drawn
            ]
        }


# ---- private -------------------------------------------------------------------------------------


def _errors(kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    whole = rows[0]["n_errors"]
    return {
        "title": f"{ERRORS[kind]}: {len(rows)} of {whole:,}",
        "rows": [
            {
                "text": row["text"],
                "where": f"{row['sequence']}:{row['position']}",
                "activation": number(row["activation"]) if row["activation"] else "–",
            }
            for row in rows
        ],
    }


def _split_bars(rows: list[dict[str, Any]], column: str, label: str) -> Markup:
    """A bar per interval, its lower part where the proxy is true; hovering gives the numbers."""
    values = [(float(row[column]), float(row[f"{column}_true"])) for row in rows]
    top = max((whole for whole, _ in values), default=0.0) or 1.0
    step = WIDTH / max(1, len(rows))
    marks = []
    for at, (row, (whole, true)) in enumerate(zip(rows, values, strict=True)):
        share = percent(true / whole) if whole else "–"
        span = f"({number(row['low'])}, {number(row['high'])}]"
        title = f"{span}: {number(whole)}, {share} where the proxy is true"
        parts = []
        for place, (bottom, height) in enumerate(((0.0, true), (true, whole - true))):
            y, tall = HEIGHT * (1 - (bottom + height) / top), HEIGHT * height / top
            parts.append(
                f'<rect class="s{place}" x="{at * step:.1f}" y="{y:.1f}" '
                f'width="{step - 1:.1f}" height="{max(tall, 0):.1f}"/>'
            )
        marks.append(Markup("<g><title>{}</title>{}</g>").format(title, Markup("".join(parts))))
    return Markup(
        '<svg class="plot" role="img" aria-label="{}" width="{}" height="{}" '
        'viewBox="0 0 {} {}">{}</svg>'
    ).format(label, WIDTH, HEIGHT, WIDTH, HEIGHT, Markup("").join(marks))
