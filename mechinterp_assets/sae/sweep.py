"""SAEs of several sparsities for one layer: trained on the same batches, evaluated side by side.

Belongs here: the rows of the table sae_frontier. Does not belong here: training (train.py),
measures (evaluation.py), which variants (a study's section `sweep`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.trainer import TrainingResult

# Columns that sae_frontier takes over from the evaluation of its SAEs.
MEASURES = (
    "l0",
    "ce_recovered",
    "ce_recovered_mean",
    "explained_variance",
    "dead_fraction",
    "mse",
    "kl",
    "ce_clean",
    "ce_spliced",
    "ce_zero",
    "ce_mean",
    "n_tokens",
)
FRONTIER_SCHEMA: dict[str, type[pl.DataType]] = {
    "layer": pl.Int32,
    "sae_variant": pl.String,
    "architecture": pl.String,
    "sparsity_setting": pl.String,
    "sparsity": pl.Float64,
    "d_sae": pl.Int32,
    **{name: pl.Int64 if name == "n_tokens" else pl.Float64 for name in MEASURES},
    "training_tokens": pl.Int64,
    "learning_rate": pl.Float64,
    "seed": pl.Int64,
}


@dataclass(frozen=True)
class Variant:
    """One trained SAE of a sweep, and which setting decides its sparsity."""

    settings: SaeSettings
    result: TrainingResult
    sparsity_setting: str
    sparsity: float


def frontier_rows(
    layer: int, variants: Mapping[str, Variant], evaluation: pl.DataFrame
) -> pl.DataFrame:
    """Table sae_frontier without study, of one layer.

    evaluation: rows of evaluation.evaluate_variants, whose `name` are the names of `variants`.
    """
    measured = {row["name"]: row for row in evaluation.filter(pl.col("layer") == layer).to_dicts()}
    rows = [
        {
            "layer": layer,
            "sae_variant": name,
            "architecture": variant.settings.architecture,
            "sparsity_setting": variant.sparsity_setting,
            "sparsity": variant.sparsity,
            "d_sae": variant.settings.d_sae,
            **{measure: measured[name][measure] for measure in MEASURES},
            "training_tokens": variant.result.info["training_tokens"],
            "learning_rate": variant.settings.learning_rate,
            "seed": variant.settings.seed,
        }
        for name, variant in variants.items()
    ]
    return pl.DataFrame(rows, schema=FRONTIER_SCHEMA)
