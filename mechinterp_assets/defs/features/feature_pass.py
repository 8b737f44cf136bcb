"""What each SAE feature fires on, writes and reads.

Belongs here: the pass over a layer's activations, what weights alone say, attribution of the top
examples. Does not belong here: what follows from sparse activations (feature_relations.py), what
features mean (feature_meaning.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.orchestration.artefacts import open_cache, open_sae
from mechinterp_assets.orchestration.publishing import Metadata
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables
from mechinterp_assets.storage.sort import SortedRuns

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from mechinterp_assets.activations.cache import ActivationReader
    from mechinterp_assets.attribution.activation_stream import TokenGrid
    from mechinterp_assets.attribution.feature_pass import FeaturePass

SEQUENCES_AT_ONCE = 256
DENSITY_BINS = 16


@tables(
    "feature_statistics",
    "feature_activations",
    "feature_top_examples",
    "feature_intervals",
    "feature_interval_examples",
    reads=["language_model", "activation_cache", "attention_sae"],
    settings=[
        "features.top_examples",
        "features.context_window",
        "features.max_tokens",
        "features.intervals",
        "features.interval_examples",
        "features.interval_top_examples",
    ],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
)
def feature_pass(run: Run) -> Iterator[Made]:
    """One streaming pass: statistics, every activation, top examples, intervals, their examples."""
    from mechinterp_assets.attribution.feature_pass import ACTIVATION_SCHEMA
    from mechinterp_assets.attribution.feature_pass import feature_pass as pass_over
    from mechinterp_assets.attribution.intervals import interval_tables, with_tokens

    settings, strings = run.study.features, run.model.token_strings()
    sae, reader = open_sae(run), open_cache(run, None)
    # A layer's activations may be larger than memory: they are sorted on disk.
    with run.scratch() as folder:
        runs = SortedRuns(folder, "feature", ACTIVATION_SCHEMA)
        result = pass_over(
            reader.batches(SEQUENCES_AT_ONCE),
            sae,
            top_k=settings.top_examples,
            window_before=settings.context_window,
            max_tokens=settings.max_tokens,
            on_activations=runs.add,
        )
        intervals = interval_tables(
            runs.frames(),
            result.max_activation,
            n_intervals=settings.intervals,
            n_top=settings.interval_top_examples,
            n_random=settings.interval_examples,
        )
        statistics = result.statistics(sae)
        read = tokens_read(reader, result.n_tokens)
        yield run.made(
            {
                "feature_statistics": statistics,
                "feature_top_examples": result.top_examples(strings),
                "feature_intervals": intervals.intervals,
                "feature_interval_examples": with_tokens(intervals.examples, read, strings),
                "feature_activations": runs.frames(),
            },
            {"feature_statistics": _pass_metadata(result, statistics)},
        )


@tables(
    "feature_logit_effects",
    "feature_head_attribution",
    reads=["language_model", "attention_sae"],
    settings=["features.logit_tokens"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["direct_effects"],
)
def feature_weights(run: Run) -> Made:
    """What a feature's decoder row writes: direct logit effects, and the heads it is made of."""
    from mechinterp_assets.attribution.head_attribution import feature_head_attribution
    from mechinterp_assets.attribution.logit_effects import feature_logit_effects

    model, sae = run.model, open_sae(run)
    effects = feature_logit_effects(
        sae.W_dec,
        model.weights.W_O[run.layer],
        model.weights.W_U,
        model.token_strings(),
        k=run.study.features.logit_tokens,
    )
    attribution = feature_head_attribution(sae.W_dec, model.config.n_heads)
    by_head = attribution.group_by("head").agg(pl.col("attribution").mean()).sort("head")
    return run.made(
        {"feature_logit_effects": effects, "feature_head_attribution": attribution},
        {
            "feature_logit_effects": {
                "largest_effect": float(effects["logit_effect"].to_numpy().max())
            },
            "feature_head_attribution": {
                "mean_by_head": dg.MetadataValue.md(
                    f"![heads]({tiny_bar_chart(by_head['attribution'].to_list())})"
                )
            },
        },
    )


@tables(
    "feature_dfa",
    "feature_dfa_matrix",
    reads=["language_model", "tokenized_corpus", "attention_sae", "feature_top_examples"],
    settings=["features.dfa_examples", "features.dfa_matrix_examples"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
    together=True,
    needs=["feature_attribution"],
)
def feature_dfa(run: Run) -> Iterator[Made]:
    """Direct feature attribution of the top examples: by head, by source, some of them by both.

    The layers of one run share one forward pass over the sequences of their examples.
    """
    from mechinterp_assets.attribution.dfa import (
        DFA_MATRIX_SCHEMA,
        DFA_SCHEMA,
        DfaRequest,
        stream_feature_dfa,
    )

    settings = run.study.features
    runs = {layer: run.at(layer) for layer in run.layers}
    requests = []
    for layer, own in runs.items():
        examples = own.table("feature_top_examples").filter(pl.col("rank") < settings.dfa_examples)
        requests.append(DfaRequest(layer, open_sae(own), examples.collect()))
    wanted = pl.concat(request.examples["sequence"] for request in requests)
    frames = {layer: [pl.DataFrame(schema=DFA_SCHEMA)] for layer in runs}
    matrices = {layer: [pl.DataFrame(schema=DFA_MATRIX_SCHEMA)] for layer in runs}
    for layer, found in stream_feature_dfa(
        run.model,
        requests,
        TokenLookup(run.table("tokenized_corpus"), wanted),
        matrix_ranks=settings.dfa_matrix_examples,
        on_matrix=_keep_in(matrices),
    ):
        frames[layer].append(found)
    for layer, own in runs.items():
        frame = pl.concat(frames.pop(layer)).sort("feature", "rank")
        matrix = pl.concat(matrices.pop(layer)).sort("feature", "rank", "head")
        yield own.made(
            {"feature_dfa": frame, "feature_dfa_matrix": matrix},
            {"feature_dfa": {"largest_identity_error": _largest(frame["identity_error"])}},
        )


def tokens_read(reader: ActivationReader, n_tokens: int) -> TokenGrid:
    """The tokens of a feature pass over `reader` that read `n_tokens` tokens."""
    import torch

    from mechinterp_assets.attribution.activation_stream import TokenGrid

    sequences = torch.arange(reader.n_sequences) + reader.first_sequence
    return TokenGrid.of(sequences, reader.token_ids, reader.valid, n_tokens)


class TokenLookup:
    """Token ids [n, position] of sequences given by their numbers.

    corpus: rows of tokenized_corpus. wanted: numbers that will be asked for.
    """

    def __init__(self, corpus: pl.LazyFrame, wanted: pl.Series) -> None:
        of_wanted = corpus.filter(pl.col("sequence").is_in(wanted.unique().implode()))
        used = of_wanted.select("sequence", "token_ids").collect()
        self._rows = {
            int(number): ids
            for number, ids in zip(used["sequence"], used["token_ids"], strict=True)
        }

    def __call__(self, numbers: NDArray[np.int64]) -> Tensor:
        import torch

        return torch.tensor([self._rows[int(number)].to_list() for number in numbers])


# ---- private -------------------------------------------------------------------------------------


def _pass_metadata(result: FeaturePass, statistics: pl.DataFrame) -> Metadata:
    density = statistics["log10_density"].drop_nulls().to_numpy()
    counts, _ = np.histogram(density, bins=DENSITY_BINS, range=(-7, 0))
    return {
        "tokens": float(result.n_tokens),
        "l0": float(result.n_active.sum()) / result.n_tokens,
        "never_active": float((result.n_active == 0).sum()),
        "log10_density_-7_to_0": dg.MetadataValue.md(
            f"![density]({tiny_bar_chart(counts.tolist())})"
        ),
    }


def _keep_in(kept: dict[int, list[pl.DataFrame]]) -> Callable[[int, pl.DataFrame], None]:
    def keep(layer: int, frame: pl.DataFrame) -> None:
        kept[layer].append(frame)

    return keep


def _largest(series: pl.Series) -> float:
    return float(series.to_numpy().max()) if len(series) else 0.0
