"""Effects of interventions over prompts, with bootstrap intervals and their controls.

Belongs here: aggregation of intervention_results. Does not belong here: running, and effects per
prompt (SQL view intervention_effects).

effect = patched - clean, per prompt, for every metric alike: negative logit_diff and prob, positive
loss and kl mean that the model got worse at the task. Fractions recovered normalise means over
prompts, not single prompts: (mean patched - mean base) / (mean clean - mean base), base being the
corrupt run or the ablated run.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.interventions.runner import SPEC_SCHEMA
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.statistics.bootstrap import mean_interval, resample_weights

SUMMARY_VALUES: dict[str, Any] = {
    "metric": pl.String,
    "n": pl.Int64,
    "mean_clean": pl.Float64,
    "mean_corrupt": pl.Float64,
    "mean_ablated": pl.Float64,
    "mean_patched": pl.Float64,
    "mean_effect": pl.Float64,
    "sd_effect": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "recovered": pl.Float64,
    "recovered_ci_low": pl.Float64,
    "recovered_ci_high": pl.Float64,
    "recovered_from_ablated": pl.Float64,
    "recovered_from_ablated_ci_low": pl.Float64,
    "recovered_from_ablated_ci_high": pl.Float64,
    "mean_n_slices": pl.Float64,
    "mean_cosine": pl.Float64,
    "mean_norm_ratio": pl.Float64,
    "n_controls": pl.Int64,
    "control_n": pl.Int64,
    "control_mean_effect": pl.Float64,
    "control_ci_low": pl.Float64,
    "control_ci_high": pl.Float64,
}
SUMMARY_SCHEMA: dict[str, Any] = {"task": pl.String, **SPEC_SCHEMA, **SUMMARY_VALUES}
# What an intervention and its controls have in common.
MATCH = ["task", *(n for n in SPEC_SCHEMA if n not in {"intervention", "is_control", "seed"})]


def intervention_summary(
    results: pl.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """Mean effect of every intervention and metric: frame intervention_summary.

    Intervals are 95% percentile bootstrap intervals of the mean over prompts; all interventions
    with the same number of prompts share one set of resamples. Controls (is_control) are not rows
    of their own: their effect is averaged over seeds prompt by prompt, on the prompts of the real
    intervention, and stands in the control_ columns, NULL where there is no control.
    """
    # A metric that is not defined for a prompt (logit_diff without wrong tokens) is left out.
    results = results.filter(pl.col("patched").is_not_null() & pl.col("clean").is_not_null())
    if n_bootstrap < 1:
        raise InterventionError(f"n_bootstrap is {n_bootstrap}; draw at least 1 resample")
    effects = results.with_columns((pl.col("patched") - pl.col("clean")).alias("effect"))
    real = effects.filter(~pl.col("is_control"))
    if real.is_empty():
        return pl.DataFrame(schema=SUMMARY_SCHEMA)
    controls = (
        effects.filter(pl.col("is_control"))
        .group_by([*MATCH, "metric", "prompt"])
        .agg(pl.col("effect").mean().alias("control_effect"), pl.len().alias("n_controls"))
    )
    joined = real.join(
        controls, on=[*MATCH, "metric", "prompt"], how="left", nulls_equal=True
    ).sort("task", "intervention", "metric", "prompt")
    rows = []
    keys = ["task", "intervention", "metric"]
    for (task, _, metric), frame in joined.group_by(keys, maintain_order=True):
        effect = frame["effect"].to_numpy()
        control = frame["control_effect"].drop_nulls().to_numpy()
        low, high = mean_interval(effect, n_bootstrap=n_bootstrap, seed=seed)
        control_low, control_high = mean_interval(control, n_bootstrap=n_bootstrap, seed=seed)
        rows.append(
            {
                "task": task,
                **frame.select(SPEC_SCHEMA.keys()).row(0, named=True),
                "metric": metric,
                "n": len(effect),
                "mean_clean": frame["clean"].mean(),
                "mean_corrupt": frame["corrupt"].mean(),
                "mean_ablated": frame["ablated"].mean(),
                "mean_patched": frame["patched"].mean(),
                "mean_effect": float(effect.mean()),
                "sd_effect": float(effect.std(ddof=1)) if len(effect) > 1 else None,
                "ci_low": low,
                "ci_high": high,
                **_recovered("recovered", frame, "corrupt", n_bootstrap, seed),
                **_recovered("recovered_from_ablated", frame, "ablated", n_bootstrap, seed),
                "mean_n_slices": frame["n_slices"].mean(),
                "mean_cosine": frame["cosine"].mean(),
                "mean_norm_ratio": frame["norm_ratio"].mean(),
                "n_controls": frame["n_controls"].max() or 0,
                "control_n": len(control),
                "control_mean_effect": float(control.mean()) if len(control) else None,
                "control_ci_low": control_low,
                "control_ci_high": control_high,
            }
        )
    return pl.DataFrame(rows, schema=SUMMARY_SCHEMA)


def recovered_fraction(
    clean: NDArray[np.float64],
    base: NDArray[np.float64],
    patched: NDArray[np.float64],
    n_bootstrap: int,
    seed: int,
) -> tuple[float | None, float | None, float | None]:
    """(mean patched - mean base) / (mean clean - mean base) and its 95% bootstrap interval.

    All [n], over the same prompts. Prompts are drawn and all three means are taken over the same
    draw. None where clean and base have the same mean; no interval below 2 prompts or where that
    happens in a draw.
    """
    values = np.stack([clean, base, patched], axis=1)
    mean_clean, mean_base, mean_patched = values.mean(axis=0)
    if mean_clean == mean_base:
        return None, None, None
    fraction = float((mean_patched - mean_base) / (mean_clean - mean_base))
    if len(clean) < 2:
        return fraction, None, None
    drawn = resample_weights(len(clean), n_bootstrap, seed) @ values
    size = drawn[:, 0] - drawn[:, 1]
    if not size.all():
        return fraction, None, None
    low, high = np.quantile((drawn[:, 2] - drawn[:, 1]) / size, [0.025, 0.975])
    return fraction, float(low), float(high)


def _recovered(
    name: str, frame: pl.DataFrame, base: str, n_bootstrap: int, seed: int
) -> dict[str, float | None]:
    columns = (name, f"{name}_ci_low", f"{name}_ci_high")
    if frame[base].null_count():
        return dict.fromkeys(columns)
    clean, against, patched = (frame[c].to_numpy() for c in ("clean", base, "patched"))
    found = recovered_fraction(clean, against, patched, n_bootstrap, seed)
    return dict(zip(columns, found, strict=True))
