"""From a study to the settings of its SAEs' training.

Belongs here: how the sections `sae` and `sweep` become TrainingSettings, and the checks of them
that need no weights. Does not belong here: the sections' fields (study_sections.py), what a setting
does (sae/settings.py).
"""

from collections.abc import Iterator
from typing import Literal

from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.settings import ARCHITECTURE_SETTINGS, TrainingSettings
from mechinterp_assets.sae.trainer import check_settings
from mechinterp_assets.sae.traits import AUXK_SETTINGS, RESAMPLING_SETTINGS, traits_of
from mechinterp_assets.studies.sections import (
    EXTERNAL_KEYS,
    SaeSection,
    SweepVariant,
)
from mechinterp_assets.studies.study import Study

ComputeDtype = Literal["float32", "bfloat16"]
SEEDS_PER_LAYER = 1000  # layers of one seed must not share seeds with those of the next


def sae_settings(
    section: SaeSection, layer: int, compute_dtype: ComputeDtype = "float32"
) -> TrainingSettings:
    """Settings of the SAE of one layer, which has a seed of its own.

    compute_dtype: what "auto" stands for on the device at hand.
    """
    given = {
        name: getattr(section, name)
        for name in (*ARCHITECTURE_SETTINGS, *AUXK_SETTINGS, *RESAMPLING_SETTINGS)
        if getattr(section, name) is not None
    }
    chosen = section.compute_dtype
    return TrainingSettings(
        architecture=section.architecture,
        d_sae=section.d_sae_by_layer.get(layer, section.d_sae),
        tokens=section.training_tokens,
        compute_dtype=compute_dtype if chosen == "auto" else chosen,
        batch_size=section.batch_size,
        lr=section.learning_rate,
        betas=section.adam_betas,
        eps=section.adam_epsilon,
        lr_warmup=section.lr_warmup,
        lr_decay=section.lr_decay,
        sparsity_warmup=section.sparsity_warmup,
        max_gradient_norm=section.max_gradient_norm,
        normalize_input=section.normalize_input,
        decoder_init=section.decoder_init,
        b_dec_init=section.b_dec_init,
        encoder_scale=section.encoder_scale,
        dead_after_tokens=section.dead_after_tokens,
        seed=section.seed * SEEDS_PER_LAYER + layer,
        log_every=section.log_every,
        checkpoint_every=section.checkpoint_every,
        **given,
    )


def sweep_sections(study: Study) -> dict[str, SaeSection]:
    """The variants of a study's sweep as SAE sections, by name, in the order given.

    What a variant does not say comes from the section `sae`; settings that belong to some
    architectures only are taken from it where the architecture is the same.
    """
    sections = {}
    external = study.sae.architecture == "external"
    for i, variant in enumerate(study.sweep.variants):
        inherited = study.sae.model_dump(exclude=EXTERNAL_KEYS if external else None)
        if external and (variant.d_sae is None or study.sweep.training_tokens is None):
            raise SaeError(
                f"sweep.variants[{i}]: an external SAE says nothing of training: give the variant "
                "d_sae, and the sweep training_tokens"
            )
        if variant.architecture != study.sae.architecture:
            for name in (*ARCHITECTURE_SETTINGS, *AUXK_SETTINGS, *RESAMPLING_SETTINGS):
                inherited[name] = None
        own = variant.model_dump(exclude_none=True)
        if "d_sae" in own:
            own["d_sae_by_layer"] = {}
        own["training_tokens"] = study.sweep.training_tokens or study.sae.training_tokens
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


def check_sae_sections(study: Study, d_in: int) -> None:
    """Raise SaeError for sections `sae` and `sweep` that cannot train, naming key and remedy."""
    if study.sae.architecture != "external":
        _check(study.sae, study.layers, d_in, "sae")
    for i, section in enumerate(sweep_sections(study).values()):
        _check(section, study.layers, d_in, f"sweep.variants[{i}]")


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
