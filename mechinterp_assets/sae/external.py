"""SAEs trained elsewhere: read, measured on a study's activations, described.

Belongs here: what an SAE folder that another program wrote must satisfy before a study adopts it,
and the row that says where it came from. Does not belong here: the folder format (io.py), where
adopted SAEs are kept (resources/tensors.py).

Such a folder carries no fingerprint of the model it was trained on, so the proof is a measurement:
on the study's own activations it must explain variance. What the folder says and the study does not
(another model name, another context) becomes a warning in attention_sae, not an error.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.evaluation import Measure, evaluate_reconstruction
from mechinterp_assets.sae.folder import CONFIG, WEIGHTS
from mechinterp_assets.sae.io import (
    SaeMetadata,
    load_sae,
    read_hook,
    read_metadata,
)
from mechinterp_assets.sae.train import SAE_SCHEMA

# Names under which one model is known, beside that of its folder.
ALIASES = {"gpt2": "gpt2-small"}


@dataclass(frozen=True)
class ExternalSae:
    """An SAE from elsewhere: its weights for raw z, its folder with the sha256 of cfg.json and
    sae_weights.safetensors together (16 hex digits), what it says of its training, and in what it
    does not match the study.
    """

    sae: SparseAutoencoder
    folder: Path
    folder_hash: str
    metadata: SaeMetadata
    warnings: tuple[str, ...]

    def adopted(self, model: LanguageModel, layer: int, context_size: int) -> SaeMetadata:
        """Metadata to save the SAE with: the study's model, and where the SAE came from."""
        return SaeMetadata.of(
            model,
            layer,
            context_size=context_size,
            dataset=self.metadata.dataset,
            training={
                "external": {
                    "folder": str(self.folder),
                    "folder_hash": self.folder_hash,
                    "model_name": self.metadata.model_name,
                    "context_size": self.metadata.context_size,
                    "warnings": list(self.warnings),
                }
            },
        )


def read_external(
    folder: Path, model: LanguageModel, layer: int, *, context_size: int
) -> ExternalSae:
    """The SAE in `folder`, for z of `layer` of `model`.

    Raises SaeError for a folder that is none, a hook other than hook_z, another layer or width, or
    a normalisation that cannot be folded.
    """
    metadata = read_metadata(folder)
    if metadata.layer != layer:
        raise SaeError(
            f"{folder} is for layer {metadata.layer} ({metadata.hook_name}), the study takes it "
            f"for layer {layer}; correct sae.path"
        )
    sae = load_sae(folder)
    if sae.d_in != model.config.d_z:
        raise SaeError(
            f"the SAE in {folder} has d_in {sae.d_in}, but z of {model.source} has width "
            f"{model.config.d_z} ({model.config.n_heads} heads x {model.config.d_head}); it was "
            "trained on another model"
        )
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return ExternalSae(
        sae=sae,
        folder=folder,
        folder_hash=digest.hexdigest()[:16],
        metadata=metadata,
        warnings=tuple(_mismatches(metadata, model, context_size)),
    )


def read_residual(folder: Path, model: LanguageModel, layer: int) -> SparseAutoencoder:
    """The SAE in `folder`, for the residual stream before `layer` of `model`.

    Raises SaeError for a folder that is none, another hook than hook_resid_pre of this layer, or
    another width.
    """
    sae, hook = load_sae(folder), read_hook(folder)
    if hook != f"blocks.{layer}.hook_resid_pre":
        raise SaeError(f"{folder} is for hook {hook!r}; give one for blocks.{layer}.hook_resid_pre")
    if sae.d_in != model.config.d_model:
        raise SaeError(
            f"the SAE in {folder} has d_in {sae.d_in}, but the residual stream of {model.source} "
            f"has width {model.config.d_model}; it was trained on another model"
        )
    return sae


def check_explains(external: ExternalSae, rows: Tensor, minimum: float) -> dict[str, Measure]:
    """Measures (columns of sae_evaluation) of the SAE on the study's activations, rows [n, d_in].

    Raises SaeError unless its explained variance is above `minimum`: an SAE of another model, of
    processed weights, or of activations scaled otherwise does not get there.
    """
    measures = evaluate_reconstruction(external.sae, rows)
    explained = measures["explained_variance"]
    if not isinstance(explained, float) or not explained > minimum:
        raise SaeError(
            f"the SAE in {external.folder} explains {explained} of the variance of this study's "
            f"activations, which must be above {minimum} (sae.min_explained_variance); check that "
            "it was trained on raw z of this model and layer. It says: model "
            f"{external.metadata.model_name!r}, {external.metadata.hook_name}"
        )
    return measures


def external_row(layer: int, external: ExternalSae, path: str) -> pl.DataFrame:
    """Table attention_sae without study: one row, of an adopted SAE whose weights are in `path`.

    What only its training would tell is null.
    """
    sae = external.sae
    row = {
        "layer": layer,
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": sae.k,
        "path": path,
        "weights_hash": sae.weights_hash(),
        "external_folder": str(external.folder),
        "external_hash": external.folder_hash,
        "external_warnings": "; ".join(external.warnings) or None,
    }
    return pl.DataFrame([row], schema=SAE_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


def _mismatches(metadata: SaeMetadata, model: LanguageModel, context_size: int) -> list[str]:
    found = []
    theirs, ours = _name(metadata.model_name), _name(model.source)
    if theirs != ours:
        found.append(f"trained on a model called {theirs or '(no name)'}, this one is {ours}")
    if metadata.context_size is not None and metadata.context_size != context_size:
        found.append(
            f"trained on contexts of {metadata.context_size} tokens, this study has {context_size}"
        )
    if metadata.prepend_bos and not model.bos.prepended:
        found.append("trained on sequences that begin with BOS, this study's do not")
    if not metadata.prepend_bos and model.bos.prepended:
        found.append("trained on sequences without BOS, this study's begin with it")
    if metadata.weights_hash not in (None, model.weights_hash):
        found.append(f"fingerprint of its model is {metadata.weights_hash}")
    return found


def _name(source: str) -> str:
    name = source.rstrip("/").rsplit("/", 1)[-1].lower()
    return ALIASES.get(name, name)
