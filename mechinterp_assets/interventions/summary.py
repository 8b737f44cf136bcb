"""Effects of interventions over prompts, with bootstrap intervals and their controls.

Belongs here: aggregation of intervention_results. Does not belong here: running, and effects per
prompt (SQL view intervention_effects).

effect = patched - clean, per prompt, for every metric alike: negative logit_diff and prob, positive
loss and kl mean that the model got worse at the task.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.interventions.runner import SPEC_SCHEMA
from mechinterp_assets.interventions.spec import InterventionError

SUMMARY_VALUES: dict[str, Any] = {
    "metric": pl.String,
    "n": pl.Int64,
    "mean_clean": pl.Float64,
    "mean_patched": pl.Float64,
    "mean_effect": pl.Float64,
    "sd_effect": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "mean_n_slices": pl.Float64,
    "mean_cosine": pl.Float64,
    "mean_norm_ratio": pl.Float64,
    "n_controls": pl.Int64,
    "control_n": pl.Int64,
    "control_mean_effect": pl.Float64,
    "control_ci_low": pl.Float64,
    "control_ci_high": pl.Float64,
}
SUMMARY_SCHEMA: dict[str, Any] = {**SPEC_SCHEMA, **SUMMARY_VALUES}
# What an intervention and its controls have in common.
MATCH = [name for name in SPEC_SCHEMA if name not in {"intervention", "is_control", "seed"}]


def intervention_summary(
    results: pl.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """Mean effect of every intervention and metric: frame intervention_summary.

    Intervals are 95% percentile bootstrap intervals of the mean over prompts; all interventions
    with the same number of prompts share one set of resamples. Controls (is_control) are not rows
    of their own: their effect is averaged over seeds prompt by prompt, on the prompts of the real
    intervention, and stands in the control_ columns, NULL where there is no control.
    """
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
    ).sort("intervention", "metric", "prompt")
    rows = []
    for (_, metric), frame in joined.group_by(["intervention", "metric"], maintain_order=True):
        effect = frame["effect"].to_numpy()
        control = frame["control_effect"].drop_nulls().to_numpy()
        low, high = bootstrap_interval(effect, n_bootstrap, seed)
        control_low, control_high = bootstrap_interval(control, n_bootstrap, seed)
        rows.append(
            {
                **frame.select(SPEC_SCHEMA.keys()).row(0, named=True),
                "metric": metric,
                "n": len(effect),
                "mean_clean": frame["clean"].mean(),
                "mean_patched": frame["patched"].mean(),
                "mean_effect": float(effect.mean()),
                "sd_effect": float(effect.std(ddof=1)) if len(effect) > 1 else None,
                "ci_low": low,
                "ci_high": high,
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


def bootstrap_interval(
    values: NDArray[np.float64], n_bootstrap: int, seed: int
) -> tuple[float | None, float | None]:
    """95% percentile bootstrap interval of the mean of `values` [n]; (None, None) below 2."""
    if len(values) < 2:
        return None, None
    means = _resample_weights(len(values), n_bootstrap, seed) @ values
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@lru_cache(maxsize=64)
def _resample_weights(n: int, n_bootstrap: int, seed: int) -> NDArray[np.float64]:
    """How often each of n values is drawn, over n: [n_bootstrap, n]."""
    generator = np.random.default_rng([seed, n])
    return generator.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) / n
