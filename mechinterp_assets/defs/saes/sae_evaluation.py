"""How good the SAEs are, on held-out sequences."""

from collections.abc import Iterator

import polars as pl

from mechinterp_assets.orchestration.artefacts import open_sae, token_ids
from mechinterp_assets.orchestration.publishing import Metadata
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables


@tables(
    "sae_evaluation",
    reads=["language_model", "tokenized_corpus", "attention_sae", "activation_statistics"],
    settings=["sae.evaluation_tokens", "corpus.context_size"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
    together=True,
)
def sae_evaluation(run: Run) -> Iterator[Made]:
    """L0, explained variance, CE loss recovered, KL and more, on held-out sequences.

    The layers of one run share the clean forward passes.
    """
    from mechinterp_assets.activations.statistics import mean_z_of
    from mechinterp_assets.sae.evaluation import evaluate_layers

    held_out = token_ids(
        run,
        "held_out",
        max(1, run.study.sae.evaluation_tokens // run.study.corpus.context_size),
    )
    runs = {layer: run.at(layer) for layer in run.layers}
    result = evaluate_layers(
        run.model,
        {layer: open_sae(own) for layer, own in runs.items()},
        held_out,
        {
            layer: mean_z_of(own.frame("activation_statistics"), layer)
            for layer, own in runs.items()
        },
    )
    for layer, own in runs.items():
        row = result.filter(pl.col("layer") == layer)
        numbers: Metadata = {
            column: float(value)
            for column, value in row.row(0, named=True).items()
            if isinstance(value, float)
        }
        yield own.made({"sae_evaluation": row}, {"sae_evaluation": numbers})
