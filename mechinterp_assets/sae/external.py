"""SAEs trained elsewhere: read, measured on a study's activations, adopted or refused.

Belongs here: what an SAE folder that another program wrote must satisfy before a study adopts it,
and the rows that say where it came from and how it was measured. Does not belong here: the folder
format (io.py, foreign_config.py), the measures (readings.py), where adopted SAEs are kept
(resources/tensors.py).

A folder seldom carries a fingerprint of the model it was trained on, and what it says of itself may
be wrong, so the proof is a measurement on the study's own activations:
  1. It must leave at most max_fvu of the variance, as an SAE of raw z or of z of processed weights,
     whichever `trained_on` says or (auto) leaves less. The latter is cured exactly: b_dec += c.
  2. No other reading may be clearly better: the other weights, another k, fewer features than a
     ReLU lets through (a TopK SAE that is called standard).
  3. With its heads in another order z must fit worse, or the SAE is not one of these heads.
  4. L0, the folder's hash and fingerprints must be those that are known.
What the folder says and the study does not (another model name, another context) becomes a warning
in attention_sae.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from torch import Tensor

from mechinterp_assets.files.sha256 import file_sha256
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.folder import CONFIG, WEIGHTS
from mechinterp_assets.sae.io import (
    SaeMetadata,
    keys_not_read,
    load_sae,
    read_hook,
    read_metadata,
)
from mechinterp_assets.sae.readings import (
    FEW_ROWS,
    Reading,
    best,
    heads_rotated,
    measured,
    usual_scale,
    with_largest_k,
    with_offset,
)
from mechinterp_assets.sae.settings import TrainedOn
from mechinterp_assets.sae.train import SAE_SCHEMA

# Names under which one model is known, beside that of its folder.
ALIASES = {"gpt2": "gpt2-small"}
# Another reading is the right one where it leaves less than this share of what the declared one
# does. Weights: an SAE of the others leaves an eighth more at the least (GPT-2 small).
OTHER_WEIGHTS, NEARLY_ALIKE = 0.75, 0.9
# Right TopK SAEs leave .79 or more of it with a better k (organism, five layers): training does not
# make k the best number. Below the first SAEs are refused, below the second there is a warning.
OTHER_K, PERHAPS_OTHER_K = 0.6, 0.75
# Fewer features never help an SAE that was trained with all of them (1.00 for L1, JumpReLU, gated
# and BatchTopK); TopK SAEs through a ReLU leave .61 to .85 of it with a third of them or less.
FEWER_FEATURES = 0.9
OTHER_HEADS = 0.75
L0_FACTOR = 1.5

ADOPTION_SCHEMA: dict[str, type[pl.DataType]] = {
    "layer": pl.Int32,
    "reading": pl.String,
    "n_largest": pl.Int32,
    "adopted": pl.Boolean,
    "offset_norm": pl.Float64,
    "fvu": pl.Float64,
    "explained_variance": pl.Float64,
    "l0": pl.Float64,
    "n_tokens": pl.Int64,
}


@dataclass(frozen=True)
class Expectation:
    """What a study says of an SAE from elsewhere.

    trained_on: which weights' z it was trained on; max_fvu: the most that it may leave unexplained;
    l0: mean active features per token as published; folder_hash: as external_hash.
    """

    trained_on: TrainedOn = "auto"
    max_fvu: float = 0.5
    l0: float | None = None
    folder_hash: str | None = None


@dataclass(frozen=True)
class ExternalSae:
    """An SAE from elsewhere: its weights as its folder has them, its folder with the sha256 of
    cfg.json and sae_weights.safetensors together (16 hex digits), what it says of its training, and
    in what it does not match the study.
    """

    sae: SparseAutoencoder
    folder: Path
    folder_hash: str
    metadata: SaeMetadata
    warnings: tuple[str, ...]

    def adopted(
        self, model: LanguageModel, layer: int, context_size: int, trained_on: str
    ) -> SaeMetadata:
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
                    "trained_on": trained_on,
                    "warnings": list(self.warnings),
                }
            },
        )


@dataclass(frozen=True)
class Fit:
    """How an SAE fits activations.

    readings: all that were measured; chosen: the one of them that the SAE is read by; sae: the SAE
    so read, for raw z; objections: why it must not be adopted, each with its remedy; warnings: what
    the measures leave open.
    """

    readings: tuple[Reading, ...]
    chosen: Reading
    sae: SparseAutoencoder
    objections: tuple[str, ...]
    warnings: tuple[str, ...]


def read_external(
    folder: Path, model: LanguageModel, layer: int, *, context_size: int
) -> ExternalSae:
    """The SAE in `folder`, for z of `layer` of `model`.

    Raises SaeError for a folder that is none, a hook other than hook_z, another layer or width, a
    normalisation that cannot be folded, or fingerprints of another model or tokenizer.
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
    _check_fingerprints(folder, metadata, model)
    return ExternalSae(
        sae=sae,
        folder=folder,
        folder_hash=folder_hash(folder),
        metadata=metadata,
        warnings=tuple(_mismatches(folder, metadata, model, context_size)),
    )


def folder_hash(folder: Path) -> str:
    """sha256 of the sha256 of an SAE folder's two files, 16 hex digits."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        digest.update(bytes.fromhex(file_sha256(folder / name)))
    return digest.hexdigest()[:16]


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


def measure_fit(
    external: ExternalSae, rows: Tensor, offset: Tensor, n_heads: int, expected: Expectation
) -> Fit:
    """Measure an SAE on raw z of its layer, rows [n, d_in], in every way that it may be meant.

    offset [d_in]: what processed weights take from z (model/value_offset.py).
    """
    views = {"raw": (external.sae, measured("raw", external.sae, rows))}
    if (norm := float(offset.norm())) > 0:
        moved = with_offset(external.sae, offset)
        views["processed"] = (moved, measured("processed", moved, rows, norm))
    name = min(views, key=lambda view: views[view][1].loss)
    if expected.trained_on in views:
        name = expected.trained_on
    sae, chosen = views[name]
    rotated = heads_rotated(rows, n_heads)[:FEW_ROWS]
    controls = [
        replace(measured("permuted_heads", sae, rotated), offset_norm=chosen.offset_norm),
        replace(
            measured("rescaled", external.sae, rows[:FEW_ROWS] * usual_scale(rows)), offset_norm=0.0
        ),
        *with_largest_k(sae, rows, chosen.offset_norm),
    ]
    readings = (*(reading for _, reading in views.values()), *controls)
    judged = _Judged(external, expected, chosen, readings, n_heads, usual_scale(rows))
    return Fit(readings, chosen, sae, tuple(judged.objections()), tuple(judged.warnings()))


def check_fits(external: ExternalSae, fit: Fit) -> None:
    """Raise SaeError, with every objection, unless the SAE may be adopted."""
    if fit.objections:
        raise SaeError(
            f"the SAE in {external.folder} is not adopted: {'; '.join(fit.objections)}. It says: "
            f"model {external.metadata.model_name!r}, {external.metadata.hook_name}"
        )


def external_row(layer: int, external: ExternalSae, fit: Fit, path: str) -> pl.DataFrame:
    """Table attention_sae without study: one row, of an adopted SAE whose weights are in `path`.

    What only its training would tell is null.
    """
    row = {
        "layer": layer,
        "architecture": fit.sae.architecture,
        "d_in": fit.sae.d_in,
        "d_sae": fit.sae.d_sae,
        "k": fit.sae.k,
        "trained_on": fit.chosen.name,
        "path": path,
        "weights_hash": fit.sae.weights_hash(),
        "external_folder": str(external.folder),
        "external_hash": external.folder_hash,
        "external_warnings": "; ".join((*external.warnings, *fit.warnings)) or None,
    }
    return pl.DataFrame([row], schema=SAE_SCHEMA)


def adoption_rows(layer: int, fit: Fit) -> pl.DataFrame:
    """Table sae_adoption without study: one row per reading."""
    rows = [
        {
            "layer": layer,
            "reading": reading.name,
            "n_largest": reading.k,
            "adopted": reading is fit.chosen,
            "offset_norm": reading.offset_norm,
            "fvu": reading.fvu,
            "explained_variance": reading.explained_variance,
            "l0": reading.l0,
            "n_tokens": reading.n_tokens,
        }
        for reading in fit.readings
    ]
    return pl.DataFrame(rows, schema=ADOPTION_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """What the readings of an SAE say against it."""

    external: ExternalSae
    expected: Expectation
    chosen: Reading
    readings: tuple[Reading, ...]
    n_heads: int
    scale: float

    def objections(self) -> Iterator[str]:
        """Why it must not be adopted, each with its remedy."""
        yield from self._hash()
        yield from self._fit()
        yield from self._weights()
        yield from self._k()
        yield from self._heads()
        yield from self._l0()

    def warnings(self) -> Iterator[str]:
        """What the measures leave open."""
        chosen, other = self.chosen, self._other_view()
        share = 0.0 if other is None else _share(chosen, other)
        if self._explains and other is not None and NEARLY_ALIKE < share < 1 / NEARLY_ALIKE:
            yield (
                f"raw and processed weights fit nearly alike (unexplained {chosen.loss:.3f} and "
                f"{other.loss:.3f}); taken as {chosen.name}"
            )
        k, declared = self._best_k(), self._at_declared_k()
        if k is None or declared is None or self.external.sae.k is None:
            return
        if OTHER_K <= _share(k, declared) < PERHAPS_OTHER_K:
            yield (
                f"k = {k.k} leaves {k.loss:.3f} of the variance unexplained, the declared "
                f"{declared.k} {declared.loss:.3f}"
            )

    @property
    def _explains(self) -> bool:
        return self.chosen.loss <= self.expected.max_fvu

    def _named(self, name: str) -> Reading | None:
        return next((one for one in self.readings if one.name == name), None)

    def _other_view(self) -> Reading | None:
        return self._named("processed" if self.chosen.name == "raw" else "raw")

    def _best_k(self) -> Reading | None:
        return best([one for one in self.readings if one.name == "largest_k"])

    def _at_declared_k(self) -> Reading | None:
        """The folder's own number of features, on the same rows as the others: its k, or all."""
        k = self.external.sae.k
        found = [one for one in self.readings if one.name == "largest_k" and k in (None, one.k)]
        return found[-1] if found else None

    def _hash(self) -> Iterator[str]:
        known, found = self.expected.folder_hash, self.external.folder_hash
        if known is not None and known != found:
            yield (
                f"its two files hash to {found}, sae.expected_hash says {known}: copy the folder "
                "again from its source, or correct the setting"
            )

    def _fit(self) -> Iterator[str]:
        chosen, most = self.chosen, self.expected.max_fvu
        if self._explains:
            return
        line = (
            f"read as trained on {chosen.name} weights it leaves {_shown(chosen.fvu)} of the "
            f"variance of this layer's z unexplained (1 - {_shown(chosen.fvu)} = R^2, mean not "
            f"subtracted), which may be at most {most} (sae.max_fvu)"
        )
        rescaled = self._named("rescaled")
        if rescaled is not None and rescaled.loss <= min(most, OTHER_WEIGHTS * chosen.loss):
            yield (
                f"{line}, but {rescaled.loss:.3f} of z times {self.scale:.4g}: it was trained on "
                "scaled activations and its folder does not say so; set normalize_activations to "
                "expected_average_only_in in a copy of its cfg.json, beside activation_scaler.json "
                "with the training run's scaling_factor"
            )
            return
        yield (
            f"{line}; it is of another layer, hook or model, or of activations scaled otherwise "
            "(`mechinterp sae-check` tries them)"
        )

    def _weights(self) -> Iterator[str]:
        other, chosen = self._other_view(), self.chosen
        if other is not None and _share(other, chosen) < OTHER_WEIGHTS:
            yield (
                f"sae.trained_on says {chosen.name}, which leaves {chosen.loss:.3f} of the "
                f"variance unexplained, but read as trained on {other.name} weights it leaves "
                f"{other.loss:.3f}; set it to {other.name} or auto"
            )

    def _k(self) -> Iterator[str]:
        sae, k, declared = self.external.sae, self._best_k(), self._at_declared_k()
        if k is None or declared is None:
            return
        if sae.k is not None and _share(k, declared) < OTHER_K:
            yield (
                f"its folder says k = {sae.k}, which leaves {declared.loss:.3f} of the variance "
                f"unexplained, but k = {k.k} leaves {k.loss:.3f}; correct k in a copy of its "
                "cfg.json"
            )
        fewer = k.l0 * L0_FACTOR < declared.l0
        if sae.k is None and fewer and _share(k, declared) < FEWER_FEATURES:
            yield (
                f"its folder says {sae.architecture}, which leaves {declared.loss:.3f} of the "
                f"variance unexplained with {declared.l0:.0f} features a token, but the {k.k} "
                f"largest alone leave {k.loss:.3f}: it is a TopK SAE, or its threshold was lost; "
                "write topk and its k in a copy of its cfg.json, or take the folder from its source"
            )

    def _heads(self) -> Iterator[str]:
        permuted = self._named("permuted_heads")
        if self.n_heads == 1 or permuted is None or permuted.fvu is None or not self._explains:
            return
        if not _share(self.chosen, permuted) < OTHER_HEADS:
            yield (
                f"it leaves {_shown(self.chosen.fvu)} of the variance unexplained, and "
                f"{permuted.loss:.3f} of z with the heads in another order: it does not know these "
                "heads apart; give an SAE of this layer's z"
            )

    def _l0(self) -> Iterator[str]:
        known, found = self.expected.l0, self.chosen.l0
        if known is not None and not known / L0_FACTOR <= found <= known * L0_FACTOR:
            yield (
                f"{found:.1f} features are active at a token, sae.expected_l0 says {known:g} (a "
                f"factor of {L0_FACTOR} apart is allowed); check its k or threshold, and "
                "sae.trained_on"
            )


def _share(one: Reading, other: Reading) -> float:
    """What one reading leaves unexplained as a share of what another does; 1 of nothing."""
    return one.loss / other.loss if 0 < other.loss < float("inf") else 1.0


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _check_fingerprints(folder: Path, metadata: SaeMetadata, model: LanguageModel) -> None:
    """Raise SaeError for an SAE that says it was made with another model than this one."""
    ours = {
        "weights": (metadata.weights_hash, model.weights_hash),
        "tokenizer": (metadata.tokenizer_hash, model.tokenizer_hash),
        "heads": (metadata.n_heads, model.config.n_heads),
    }
    for what, (theirs, own) in ours.items():
        if theirs is not None and theirs != own:
            raise SaeError(
                f"the SAE in {folder} was made with another model ({metadata.model_name!r}, {what} "
                f"{theirs}); {model.source} has {own}. Take the model it was made with, or remove "
                "metadata.mechinterp from a copy of its cfg.json to have it measured alone"
            )


def _mismatches(
    folder: Path, metadata: SaeMetadata, model: LanguageModel, context_size: int
) -> Iterator[str]:
    theirs, ours = _name(metadata.model_name), _name(model.source)
    if theirs != ours:
        yield f"trained on a model called {theirs or '(no name)'}, this one is {ours}"
    if metadata.context_size is not None and metadata.context_size != context_size:
        theirs = str(metadata.context_size)
        yield f"trained on contexts of {theirs} tokens, this study has {context_size}"
    if metadata.prepend_bos and not model.bos.prepended:
        yield "trained on sequences that begin with BOS, this study's do not"
    if not metadata.prepend_bos and model.bos.prepended:
        yield "trained on sequences without BOS, this study's begin with it"
    if unread := keys_not_read(folder):
        yield f"cfg.json has keys of which nothing is known here: {', '.join(unread)}"


def _name(source: str) -> str:
    name = source.rstrip("/").rsplit("/", 1)[-1].lower()
    return ALIASES.get(name, name)
