"""The sections `sae` and `sweep` of a study, and the trainings they ask for.

Belongs here: keys, the checks of them that need no weights, and how they become TrainingSettings,
whose names and defaults they share; no torch. Does not belong here: what a setting of the training
does (training_settings.py).
"""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.training_settings import (
    ARCHITECTURE_SETTINGS,
    TrainingSettings,
    check_settings,
)
from mechinterp_assets.sae.traits import (
    AUXK_SETTINGS,
    RESAMPLING_SETTINGS,
    architecture_names,
    traits_of,
)
from mechinterp_assets.settings.section import (
    NotNegative,
    Positive,
    PositiveFloat,
    Section,
    Share,
    StudyError,
)

ComputeDtype = Literal["float32", "bfloat16"]
SEEDS_PER_LAYER = 1000  # layers of one seed must not share seeds with those of the next


EXTERNAL_KEYS = {
    "architecture", "path", "min_explained_variance", "evaluation_tokens", "seed"
}  # fmt: skip


EXTERNAL = "external"  # SAEs trained elsewhere: no architecture of ours


def _known(*others: str) -> tuple[Any, ...]:
    """How a name of an architecture, or one of `others`, is checked and stands in the schema."""

    def names() -> list[str]:
        return [*architecture_names(), *others]

    def check(name: str) -> str:
        if name not in names():
            listed = ", ".join(f"'{known}'" for known in names())
            raise ValueError(f"no SAE architecture has this name; give one of {listed}")
        return name

    def schema(found: dict[str, Any]) -> None:
        found["enum"] = names()

    return AfterValidator(check), Field(json_schema_extra=schema)


Architecture = Annotated[str, *_known()]


TrainedOrExternal = Annotated[str, *_known(EXTERNAL)]


class SaeSection(Section):
    """Attention-output SAEs (K24 section 2), one per layer.

    Sparsity: `k` (topk, batchtopk, matryoshka), `l1_coefficient` (standard, gated) or
    `l0_coefficient` (jumprelu); `group_sizes` are matryoshka's nested prefixes, `k_start` lets k
    fall from there over sparsity_warmup, `bandwidth` and `initial_threshold` are jumprelu's,
    `auxk_coefficient` and `auxk` the TopK family's, `resample_at` (shares of the training) and
    `resample_warmup_steps` those of architectures that resample. What an architecture does not have
    is refused. `d_sae_by_layer` gives single layers another width.

    `source`: where rows come from. cache: the activation cache, layer by layer. forward: one
    forward pass over the train split for all layers of a run, which then train in lockstep and need
    no disk. `buffer_rows` of each layer are held and mixed at a time, by forward in `buffer_dtype`.

    `compute_dtype` of the encoder's matrix product: auto is bfloat16 on CUDA and float32 elsewhere.
    All other keys are those of TrainingSettings, with its defaults.

    `architecture: external` takes SAEs trained elsewhere: folders in SAELens's format for hook_z.
    `path` is one folder name with {layer} in it (gpt2/blocks.{layer}.hook_z), or a mapping of
    layers to folders. Each SAE must explain more than `min_explained_variance` of the variance of
    the study's own activations. Of the other keys evaluation_tokens and seed remain.
    """

    architecture: TrainedOrExternal = "topk"
    path: str | dict[int, str] | None = None
    min_explained_variance: Annotated[float, Field(lt=1)] = 0.0
    source: Literal["cache", "forward"] = "cache"
    d_sae: Positive = 0  # 0: not given, which only external SAEs may leave so
    d_sae_by_layer: dict[Annotated[int, Field(ge=0)], Positive] = {}
    k: Positive | None = None
    k_start: Positive | None = None
    l1_coefficient: NotNegative | None = None
    l0_coefficient: NotNegative | None = None
    bandwidth: PositiveFloat | None = None
    initial_threshold: PositiveFloat | None = None
    group_sizes: tuple[Positive, ...] | None = None
    training_tokens: Positive = 0  # as d_sae
    batch_size: Positive = TrainingSettings.batch_size
    buffer_rows: Positive = 131_072
    buffer_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    learning_rate: PositiveFloat = TrainingSettings.learning_rate
    adam_betas: tuple[Share, Share] = TrainingSettings.adam_betas
    adam_epsilon: PositiveFloat = TrainingSettings.adam_epsilon
    lr_warmup: Share = TrainingSettings.lr_warmup
    lr_decay: Share = TrainingSettings.lr_decay
    sparsity_warmup: Share = TrainingSettings.sparsity_warmup
    max_gradient_norm: PositiveFloat | None = TrainingSettings.max_gradient_norm
    normalize_input: bool = TrainingSettings.normalize_input
    decoder_init: Literal["random", "data"] = TrainingSettings.decoder_init
    b_dec_init: Literal["mean", "geometric_median"] = TrainingSettings.b_dec_init
    encoder_scale: PositiveFloat | None = TrainingSettings.encoder_scale
    dead_after_tokens: Positive = TrainingSettings.dead_after_tokens
    auxk_coefficient: NotNegative | None = None
    auxk: Positive | None = None
    resample_at: tuple[Share, ...] | None = None
    resample_warmup_steps: Positive | None = None
    log_every: Positive = TrainingSettings.log_every
    checkpoint_every: Positive = TrainingSettings.checkpoint_every
    evaluation_tokens: Positive = 65_536
    seed: int = TrainingSettings.seed

    @model_validator(mode="after")
    def _trained_or_external(self) -> "SaeSection":
        if self.architecture == "external":
            if self.path is None:
                raise ValueError("external SAEs need path, a folder name with {layer} in it")
            if foreign := sorted(self.model_fields_set - EXTERNAL_KEYS):
                raise ValueError(f"external SAEs are not trained: remove {', '.join(foreign)}")
            return self
        if self.path is not None or self.min_explained_variance:
            raise ValueError(
                "path and min_explained_variance are for SAEs trained elsewhere: set architecture "
                "to external or remove them"
            )
        if missing := [name for name in ("d_sae", "training_tokens") if not getattr(self, name)]:
            raise ValueError(f"required keys are missing: {', '.join(missing)}; add them")
        return self

    def external_folder(self, layer: int) -> Path:
        """Folder of an external SAE. Raises StudyError if `path` names none for this layer."""
        if isinstance(self.path, dict):
            if layer not in self.path:
                raise StudyError(f"sae.path: no folder for layer {layer}; add it")
            return Path(self.path[layer])
        try:
            return Path(str(self.path).format(layer=layer))
        except (KeyError, IndexError, ValueError) as error:
            raise StudyError(
                f"sae.path: {self.path!r} is not a folder name with {{layer}} in it ({error})"
            ) from error


class SweepVariant(Section):
    """One SAE of a sweep; what is left out comes from the section `sae`."""

    architecture: Architecture
    k: Positive | None = None
    l1_coefficient: NotNegative | None = None
    l0_coefficient: NotNegative | None = None
    group_sizes: tuple[Positive, ...] | None = None
    d_sae: Positive | None = None
    learning_rate: PositiveFloat | None = None


class SweepSection(Section):
    """SAEs of several sparsities per layer, for the frontier of L0 against CE loss recovered.

    All variants of a layer train in lockstep on the same rows. Without variants the table
    sae_frontier is empty. `training_tokens` and `evaluation_tokens` are those of `sae` unless
    given.
    """

    variants: list[SweepVariant] = []
    training_tokens: Positive | None = None
    evaluation_tokens: Positive | None = None

    @field_validator("variants")
    @classmethod
    def _distinct(cls, variants: list[SweepVariant]) -> list[SweepVariant]:
        for i, variant in enumerate(variants):
            if variant in variants[:i]:
                raise ValueError(f"variants[{i}] is there twice; remove it")
        return variants


# Keys that go to a training as they are, where they are given.
_TRAINING = tuple(f.name for f in fields(TrainingSettings))


def sae_settings(
    section: SaeSection, layer: int, compute_dtype: ComputeDtype = "float32"
) -> TrainingSettings:
    """Settings of the SAE of one layer, which has a seed of its own.

    compute_dtype: what "auto" stands for on the device at hand.
    """
    given = {name: getattr(section, name, None) for name in _TRAINING}
    given |= {
        "d_sae": section.d_sae_by_layer.get(layer, section.d_sae),
        "seed": section.seed * SEEDS_PER_LAYER + layer,
        "compute_dtype": compute_dtype
        if section.compute_dtype == "auto"
        else section.compute_dtype,
    }
    return TrainingSettings(**{name: v for name, v in given.items() if v is not None})


def sweep_sections(sae: SaeSection, sweep: SweepSection) -> dict[str, SaeSection]:
    """The variants of a study's sweep as SAE sections, by name, in the order given.

    What a variant does not say comes from the section `sae`; settings that belong to some
    architectures only are taken from it where the architecture is the same.
    """
    sections = {}
    external = sae.architecture == "external"
    for i, variant in enumerate(sweep.variants):
        inherited = sae.model_dump(exclude=EXTERNAL_KEYS if external else None)
        if external and (variant.d_sae is None or sweep.training_tokens is None):
            raise SaeError(
                f"sweep.variants[{i}]: an external SAE says nothing of training: give the variant "
                "d_sae, and the sweep training_tokens"
            )
        if variant.architecture != sae.architecture:
            for name in (*ARCHITECTURE_SETTINGS, *AUXK_SETTINGS, *RESAMPLING_SETTINGS):
                inherited[name] = None
        own = variant.model_dump(exclude_none=True)
        if "d_sae" in own:
            own["d_sae_by_layer"] = {}
        own["training_tokens"] = sweep.training_tokens or sae.training_tokens
        sections[variant_name(variant)] = SaeSection(**{**inherited, **own})
    return sections


def variant_name(variant: SweepVariant) -> str:
    """How tables and pictures call a variant: `topk k=16`."""
    own = variant.model_dump(exclude_none=True)
    own.pop("architecture")
    settings = [f"{name}={value:g}" for name, value in own.items() if not isinstance(value, tuple)]
    settings += [f"{name}={list(v)}" for name, v in own.items() if isinstance(v, tuple)]
    return " ".join([variant.architecture, *settings])


def sparsity_setting(settings: TrainingSettings) -> tuple[str, float]:
    """Name and value of the setting that decides how sparse an SAE becomes."""
    name = traits_of(settings.architecture).sparsity_setting
    return name, float(getattr(settings, name))


def check_sae_sections(sae: SaeSection, sweep: SweepSection, layers: list[int], d_in: int) -> None:
    """Raise SaeError for sections `sae` and `sweep` that cannot train, naming key and remedy."""
    if sae.architecture != "external":
        _check(sae, layers, d_in, "sae")
    for i, section in enumerate(sweep_sections(sae, sweep).values()):
        _check(section, layers, d_in, f"sweep.variants[{i}]")


def _check(section: SaeSection, layers: list[int], d_in: int, key: str) -> None:
    for message in _foreign_settings(section):
        raise SaeError(f"{key}: {message}")
    for layer in section.d_sae_by_layer:
        if layer not in layers:
            raise SaeError(
                f"{key}.d_sae_by_layer: layer {layer} has no SAE; the study's layers are {layers}"
            )
    for layer in layers:
        check_settings(sae_settings(section, layer), d_in, key)


def _foreign_settings(section: SaeSection) -> Iterator[str]:
    """Settings that the architecture has no use for; ARCHITECTURE_SETTINGS are checked by it."""
    architecture = section.architecture
    traits = traits_of(architecture)
    no_use: list[str] = []
    if not traits.auxk:
        no_use += AUXK_SETTINGS
    if not traits.resamples:
        no_use += RESAMPLING_SETTINGS
    for name in no_use:
        value = getattr(section, name)
        if value is not None:
            yield f"architecture {architecture!r} has no {name}, got {value}; remove it"
