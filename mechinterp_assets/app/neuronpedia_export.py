"""Layers of a study as Neuronpedia bulk-import folders, from the lake and the stored SAEs.

Belongs here: reading what an export needs. What is written: dashboards/neuronpedia.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from mechinterp_assets.attribution.logit_effects import logit_histograms
from mechinterp_assets.dashboards.collect import NEEDED, OPTIONAL, layer_frames
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.dashboards.neuronpedia import Publication, export_layer
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.artefacts import read_sae
from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study import Study, site_key

_UNUSED = {"families", "proxies", "labels", "ngrams", "dfa_matrix"}
READS = (
    *("language_model", "attention_sae", "tokenized_corpus", "vocabulary", "feature_activations"),
    *NEEDED.values(),
    *(OPTIONAL[name] for name in OPTIONAL if name not in _UNUSED),
)


def export_study(
    lake: Lake,
    tensors: Tensors,
    study: Study,
    model: LanguageModel,
    folder: Path,
    publication: Publication,
    layers: Sequence[int],
) -> Iterator[Path]:
    """Write the layers one after the other; yields each finished folder.

    Raises:
        LakeError: a layer has not been materialized; the message names the asset.
        StaleInputError: the SAE or the model is not the one that the tables were made with.
        ValueError: a folder is there already.
    """
    for layer in layers:
        key = site_key(study.study, layer)
        settings = DeclaredSettings(study, ["corpus"], "the Neuronpedia export")
        inputs = Inputs(lake, tensors, settings, READS, "the Neuronpedia export")
        inputs.model(model)
        sae = read_sae(inputs, key, model)
        frames = _frames(inputs, key, layer)
        counts, centres = logit_histograms(sae.W_dec, model.weights.W_O[layer], model.weights.W_U)
        wanted = frames.example_sequences().implode()
        sequences = inputs.table("tokenized_corpus", study.study)
        tokens = inputs.table("vocabulary", study.study).sort("token_id").select("token").collect()
        yield export_layer(
            frames,
            folder,
            publication,
            layer=layer,
            model=inputs.row("language_model", study.study),
            sae=inputs.row("attention_sae", key),
            sequences=sequences.filter(pl.col("sequence").is_in(wanted))
            .select("sequence", "token_ids")
            .collect(),
            token_strings=tokens["token"].to_list(),
            logit_histograms={
                feature: (counts[feature].tolist(), centres[feature].tolist())
                for feature in range(len(counts))
            },
            corpus=study.corpus.dataset or study.corpus.format,
        )


# ---- private -------------------------------------------------------------------------------------


def _frames(inputs: Inputs, key: str, layer: int) -> LayerFrames:
    """Frames of all features that fired, with the activations in the sequences of all examples."""

    def read(table: str) -> pl.LazyFrame | None:
        if table not in READS:
            return None
        return inputs.table(table, key) if table in NEEDED.values() else inputs.find(table, key)

    statistics = inputs.table("feature_statistics", key).filter(pl.col("n_active") > 0)
    features = statistics.select("feature").collect()["feature"].to_list()
    frames = layer_frames(read, layer, features, whole=False)
    examples = [
        frame.select("feature", "sequence")
        for frame in (frames.top_examples, frames.interval_examples)
    ]
    activations = (
        inputs.table("feature_activations", key)
        .join(pl.concat(examples).unique().lazy(), on=["feature", "sequence"], how="semi")
        .collect()
    )
    return replace(frames, activations=activations)
