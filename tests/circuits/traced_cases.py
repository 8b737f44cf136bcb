"""Models whose traces are compared with references, with heads that fire in their prompts."""

import polars as pl

from mechinterp_assets.circuits.slices import attention_slices
from mechinterp_assets.model.language_model import LanguageModel

# A model, its prompts and (layer, head) of roots.
Case = tuple[LanguageModel, pl.DataFrame, list[tuple[int, int]]]
MODELS = ["organism", "stories", "tiny_gpt2", "tiny_llama"]


def firing_roots(
    model: LanguageModel, prompts: pl.DataFrame, count: int
) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
    """Prompts whose IO position is moved to where late heads fire from END, and these heads."""
    fires = attention_slices(model, prompts).join(prompts.select("prompt", "pos_end"), on="prompt")
    late = fires.filter(
        (pl.col("destination") == pl.col("pos_end"))
        & (pl.col("layer") >= model.config.n_layers - 2)
    )
    targets = late.group_by("prompt").agg(pl.col("source").mode().first())
    moved = prompts.join(targets, on="prompt").with_columns(pos_io=pl.col("source")).drop("source")
    hit = late.join(moved.select("prompt", "pos_io"), on="prompt").filter(
        pl.col("source") == pl.col("pos_io")
    )
    best = hit.group_by("layer", "head").len().sort("len", "layer", "head", descending=True)
    return moved, [(int(a), int(b)) for a, b, _ in best.head(count).iter_rows()]
