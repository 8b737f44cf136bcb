"""Opening what assets share: a layer's SAE, its activation cache, token sequences.

Belongs here: reading artefacts and sequences as objects of the science packages. Does not belong
here: what is computed of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.orchestration.run import Run
from mechinterp_assets.studies.study import site_key

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Iterable

    from torch import Tensor

    from mechinterp_assets.activations.cache import ActivationReader
    from mechinterp_assets.attribution.residual_saes import ResidualSaes
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.sae.base import SparseAutoencoder

SAE = "attention_sae"
CACHE = "activation_cache"


def read_sae(inputs: Inputs, key: str, model: LanguageModel) -> SparseAutoencoder:
    """The SAE of a site; one made for another model, tokenizer or width is refused."""
    from mechinterp_assets.sae.io import check_compatible, load_sae, read_metadata

    artefact = inputs.artefact(SAE, key)
    metadata = read_metadata(artefact.path)
    check_compatible(metadata, model.config, model.weights_hash, model.tokenizer_hash)
    sae = load_sae(artefact.path)
    inputs.came_from(sae_version=sae.weights_hash())
    return sae.to(model.device)


def open_sae(run: Run, layer: int | None = None) -> SparseAutoencoder:
    """The SAE of the run's layer or another, on its device; the last opened is the provenance."""
    key = site_key(run.name, run.layer if layer is None else layer)
    return read_sae(run.inputs, key, run.model)


def open_saes(run: Run, layers: Iterable[int]) -> dict[int, SparseAutoencoder]:
    """SAEs of several layers, by layer."""
    return {layer: open_sae(run, layer) for layer in layers}


def open_residual_saes(run: Run, n_layers: int | None = None) -> ResidualSaes:
    """SAEs on the residual stream that split trees, of the first `n_layers` layers or all."""
    from mechinterp_assets.attribution.residual_saes import residual_saes_of

    named, rdfa = run.study.residual_sae, run.study.rdfa
    return residual_saes_of(named, rdfa, run.model, n_layers=n_layers)


def open_cache(run: Run, split: str | None) -> ActivationReader:
    """The activation cache of the run's layer, restricted to one split of the corpus."""
    import torch

    from mechinterp_assets.activations.cache import ActivationReader

    artefact = run.artefact(CACHE)
    reader = ActivationReader(artefact.path)
    if split is None:
        return reader
    splits = (
        run.table("tokenized_corpus")
        .sort("sequence")
        .select(pl.col("split") == split)
        .slice(reader.first_sequence, reader.n_sequences)
        .collect()
    )
    return ActivationReader(artefact.path, torch.from_numpy(splits["split"].to_numpy()))


def sequences(run: Run, split: str, count: int | None = None) -> pl.DataFrame:
    """The first `count` sequences of a split, or all: rows of tokenized_corpus in order."""
    found = run.table("tokenized_corpus").filter(pl.col("split") == split).sort("sequence")
    return (found if count is None else found.head(count)).collect()


def token_ids(run: Run, split: str, count: int | None = None) -> Tensor:
    """Token ids [sequence, position] of the first `count` sequences of a split, or of all."""
    import torch

    from mechinterp_assets.corpora.tokenize import token_matrix

    return torch.from_numpy(token_matrix(sequences(run, split, count)))
