"""The sections `sae`, `sweep` and `residual_sae` of a study: the one place of every setting of SAE
training, and of SAEs that are trained elsewhere.

Belongs here: their keys, the checks that concern them alone, and what a layer's SAE is trained
with. Does not belong here: how SAEs are trained (trainer.py), what an architecture needs
(traits.py), memory (memory.py).
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.traits import (
    AUXK_SETTINGS,
    RESAMPLING_SETTINGS,
    architecture_names,
    check_own_settings,
    traits_of,
)
from mechinterp_assets.settings.messages import messages_of
from mechinterp_assets.settings.section import (
    Index,
    LocalName,
    NotNegative,
    Positive,
    PositiveFloat,
    Section,
    Share,
    repeated,
)

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
# Keys that external SAEs have too.
EXTERNAL_KEYS = frozenset({"architecture", "evaluation_tokens", "seed"})
# Keys that external SAEs alone have.
EXTERNAL_ALONE = frozenset({"path", "trained_on", "max_fvu", "expected_l0", "expected_hash"})
TrainedOn = Literal["auto", "raw", "processed"]
FolderHash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
# Settings that belong to some architectures only; the others leave them None.
ARCHITECTURE_SETTINGS = (
    "k",
    "k_start",
    "l1_coefficient",
    "l0_coefficient",
    "bandwidth",
    "initial_threshold",
    "group_sizes",
)
# What an SAE learns does not depend on these: how often it is saved, where rows come from (streams
# have an identity of their own), what is done with it afterwards, and other layers' widths.
_NOT_LEARNED_FROM = frozenset(
    {
        "checkpoint_every",
        "source",
        "buffer_rows",
        "buffer_dtype",
        "evaluation_tokens",
        "d_sae_by_layer",
        "l1_coefficient_by_layer",
        *EXTERNAL_ALONE,
    }
)
SEEDS_PER_LAYER = 1000  # layers of one seed must not share seeds with those of the next


class SaeSettings(Section):
    """Attention-output SAEs (K24 section 2), one per layer. Steps = training_tokens // batch_size.

    Sparsity: `k` (topk, batchtopk, matryoshka), `l1_coefficient` (standard, gated) or
    `l0_coefficient` (jumprelu). What an architecture does not have is refused.

    `architecture: external` takes SAEs trained elsewhere, in SAELens's format for hook_z. Of the
    other keys path, trained_on, max_fvu, expected_l0, expected_hash, evaluation_tokens and seed
    remain.
    """

    READ_ALONE: ClassVar[frozenset[str]] = frozenset({"checkpoint_every", "evaluation_tokens"})
    architecture: TrainedOrExternal = "topk"
    """A file of sae/architectures (activation function and loss), or external: SAEs trained
    elsewhere."""
    path: LocalName | dict[Index, LocalName] | None = None
    """Folders of external SAEs: one name with {layer} in it (gpt2/blocks.{layer}.hook_z), or a
    mapping of layers to folders."""
    trained_on: TrainedOn = "auto"
    """z of which weights an external SAE was trained on: raw, or processed by TransformerLens,
    which folds b_V and LayerNorm's bias into b_O (K24's were). auto: whichever leaves less
    unexplained. Both are measured (sae_adoption)."""
    max_fvu: PositiveFloat = 0.5
    """The largest fraction of the variance of the study's z that an external SAE may leave
    unexplained, constant errors counted: 1 - R^2."""
    expected_l0: PositiveFloat | dict[Index, PositiveFloat] | None = None
    """Mean active features per token as published of an external SAE, for all layers or by layer;
    it is refused where the study's tokens give another by a factor above 1.5."""
    expected_hash: FolderHash | dict[Index, FolderHash] | None = None
    """external_hash of an external SAE's folder, or by layer (`mechinterp sae-check` prints it);
    another folder is refused."""
    source: Literal["cache", "forward"] = "cache"
    """Where rows come from. cache: the activation cache, layer by layer. forward: one forward pass
    over the train split for all layers of a run, which then train in lockstep and need no disk."""
    d_sae: Positive = 0
    """Number of features; needed, but by external SAEs."""
    d_sae_by_layer: dict[Index, Positive] = {}
    """Another number of features for single layers."""
    k: Positive | None = None
    """Active features per token (topk); their mean over a batch (batchtopk, matryoshka)."""
    k_start: Positive | None = None
    """k falls linearly from this to k over sparsity_warmup (null: k throughout)."""
    l1_coefficient: NotNegative | None = None
    """Weight of sum_i f_i per token (standard; gated: of the gate's positive pre-activations),
    inputs scaled as under normalize_input."""
    l1_coefficient_by_layer: dict[Index, NotNegative] = {}
    """Another l1_coefficient for single layers (K24 chose one for each)."""
    l0_coefficient: NotNegative | None = None
    """Weight of the number of active features per token (jumprelu)."""
    bandwidth: PositiveFloat | None = None
    """Width of the kernel that estimates the threshold's gradient (jumprelu; null: its file's
    BANDWIDTH), in units of scaled activations."""
    initial_threshold: PositiveFloat | None = None
    """Threshold of every feature at the start (jumprelu; null: its file's INITIAL_THRESHOLD), in
    the same units."""
    group_sizes: tuple[Positive, ...] | None = None
    """Widths of the nested prefixes, rising, the last of them d_sae (matryoshka)."""
    training_tokens: Positive = 0
    """Activation rows to train on; more than the data holds means several passes. Needed, but by
    external SAEs."""
    batch_size: Positive = 2048
    """Rows of a step."""
    buffer_rows: Positive = 131_072
    """Rows of each layer that are held and mixed at a time."""
    buffer_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """They are held in this where they come from forward passes."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """dtype of the encoder's matrix product; weights and sums stay float32. auto: bfloat16 on CUDA
    and float32 elsewhere."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's; K24 uses 0.001."""
    adam_betas: tuple[Share, Share] = (0.9, 0.99)
    """Adam's decay rates; K24 uses 0.9 and 0.99."""
    adam_epsilon: PositiveFloat = 1e-8
    """Adam's epsilon."""
    lr_warmup: Share = 0.05
    """Share of the steps over which the learning rate rises linearly from 0."""
    lr_decay: Share = 0.2
    """Share of the steps, at the end, over which the learning rate falls linearly to 0."""
    sparsity_warmup: Share = 0.2
    """Share of the steps over which l1_coefficient or l0_coefficient rises linearly from 0, or k
    falls from k_start."""
    max_gradient_norm: PositiveFloat | None = None
    """The gradient's norm is clipped to this (null: never)."""
    normalize_input: bool = True
    """Train on rows scaled so that E||x - mean||^2 = d_in, over a sample without its 0.1% of rows
    of largest norm; the scale is folded into the biases at the end, so the SAE takes raw z."""
    max_row_norm: PositiveFloat | None = 5.0
    """Rows farther from the mean than this many times the root mean square of that distance (of the
    same rows) are drawn in to it in training, so that no single token rules a step (null: never).
    No row of SmolLM2-135M's 30 layers is farther than 4.2."""
    decoder_init: Literal["random", "data"] = "random"
    """random unit rows, or data: unit rows in the directions of sampled x - b_dec."""
    b_dec_init: Literal["mean", "geometric_median"] = "mean"
    """Of a sample of rows."""
    encoder_scale: PositiveFloat | None = None
    """The encoder starts as the decoder's transpose times this (null: the architecture's own: 0.1
    under an L1 penalty, which from 1 silences features before they have learned anything; 1
    elsewhere)."""
    sample_rows: Positive = 32_768
    """Rows drawn for initialisation, and for each resampling."""
    dead_after_tokens: Positive = 250_000
    """A feature that fired on none of this many tokens is dead."""
    auxk_coefficient: NotNegative = 1.0
    """Weight of the aux-k loss (topk, batchtopk, matryoshka; Gao et al. 2024, A.2: 1/32 there; 1
    leaves half the dead features of 1/8 in short runs, at the same explained variance)."""
    auxk: Positive | None = None
    """Dead features that reconstruct the error (null: d_in // 2)."""
    resample_at: tuple[Share, ...] = (0.125, 0.25, 0.375, 0.5)
    """Shares of the steps at which dead features are resampled (architectures that do; Bricken et
    al. 2023)."""
    resample_warmup_steps: Positive = 1000
    """After each resampling the learning rate starts at 0.1x and returns along a cosine over this
    many steps (K24: 1000), at most a tenth of all steps."""
    log_every: Positive = 50
    """Steps between rows of the training log."""
    checkpoint_every: Positive = 1000
    """Steps between checkpoints."""
    evaluation_tokens: Positive = 65_536
    """Held-out tokens that the SAE is evaluated on."""
    seed: int = 0
    """Seed of initialisation, order and resampling; every layer derives its own."""

    @model_validator(mode="after")
    def _trained_or_external(self) -> "SaeSettings":
        if self.architecture == EXTERNAL:
            if self.path is None:
                raise ValueError("external SAEs need path, a folder name with {layer} in it")
            if foreign := sorted(self.model_fields_set - EXTERNAL_KEYS - EXTERNAL_ALONE):
                raise ValueError(f"external SAEs are not trained: remove {', '.join(foreign)}")
            return self
        if alone := sorted(self.model_fields_set & EXTERNAL_ALONE):
            raise ValueError(
                f"{', '.join(alone)}: for SAEs trained elsewhere alone; set architecture to "
                "external or remove them"
            )
        if missing := [name for name in ("d_sae", "training_tokens") if not getattr(self, name)]:
            raise ValueError(f"required keys are missing: {', '.join(missing)}; add them")
        for message in self._misfits():
            raise ValueError(message)
        given = {name: getattr(self, name) for name in ARCHITECTURE_SETTINGS}
        check_own_settings(self.architecture, given)
        return self

    def _misfits(self) -> Iterator[str]:
        """What cannot train together."""
        if self.steps < 1:
            yield (
                f"training_tokens ({self.training_tokens}) is less than batch_size "
                f"({self.batch_size}); raise training_tokens or lower batch_size"
            )
        if self.k is not None and self.k > self.d_sae:
            yield f"k is {self.k}; give a value from 1 to d_sae ({self.d_sae})"
        if self.k_start is not None and not (self.k or 0) <= self.k_start <= self.d_sae:
            yield (
                f"k_start is {self.k_start}; give a value from k ({self.k}) to d_sae ({self.d_sae})"
            )
        if self.group_sizes is not None:
            widths = self.group_sizes
            rising = all(a < b for a, b in zip((0, *widths), widths, strict=False))
            if not widths or not rising or widths[-1] != self.d_sae:
                yield (
                    f"group_sizes is {list(widths)}; give rising widths of nested prefixes, the "
                    f"last of them d_sae ({self.d_sae})"
                )
        if self.l1_coefficient_by_layer and self.l1_coefficient is None:
            yield (
                f"architecture {self.architecture!r} has no l1_coefficient, so no "
                "l1_coefficient_by_layer either; remove it"
            )
        for name in self._without_use():
            value = getattr(self, name)
            if name in self.model_fields_set and value is not None:
                yield f"architecture {self.architecture!r} has no {name}, got {value}; remove it"

    def _without_use(self) -> tuple[str, ...]:
        """Settings with a default that mean nothing to the architecture."""
        traits = traits_of(self.architecture)
        return (() if traits.auxk else AUXK_SETTINGS) + (
            () if traits.resamples else RESAMPLING_SETTINGS
        )

    @property
    def steps(self) -> int:
        """Training steps: whole batches in the token budget."""
        return self.training_tokens // self.batch_size

    @property
    def resample_steps(self) -> list[int]:
        """Steps after which dead features are resampled."""
        return sorted({round(share * self.steps) for share in self.resample_at} - {0})

    @property
    def sparsity(self) -> tuple[str, float]:
        """Name and value of the setting that decides how sparse an SAE becomes."""
        name = traits_of(self.architecture).sparsity_setting
        return name, float(getattr(self, name))

    def for_layer(self, layer: int) -> "SaeSettings":
        """Settings of the SAE of one layer: its own width and coefficient, and a seed that no other
        layer has.

        Raises SaeError for a layer whose width does not fit the rest.
        """
        own: dict[str, Any] = {"d_sae": self.d_sae_by_layer.get(layer, self.d_sae)}
        if layer in self.l1_coefficient_by_layer:
            own["l1_coefficient"] = self.l1_coefficient_by_layer[layer]
        try:
            return self.with_changes(
                **own,
                d_sae_by_layer={},
                l1_coefficient_by_layer={},
                seed=self.seed * SEEDS_PER_LAYER + layer,
            )
        except ValidationError as error:
            raise SaeError(f"layer {layer}: {messages_of(error)}") from None

    def on_device(self, device_type: str) -> "SaeSettings":
        """These settings with `compute_dtype: auto` as what it means on cpu, cuda or mps."""
        if self.compute_dtype != "auto":
            return self
        return self.with_changes(compute_dtype="bfloat16" if device_type == "cuda" else "float32")

    def fingerprint(self) -> str:
        """sha256 over every setting that changes what is learned, 16 hex digits.

        log_every is among them, since the log is part of the result. Equal for settings that were
        given and those that follow a default.
        """
        content = self.model_dump(mode="json", exclude=set(_NOT_LEARNED_FROM))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def of_layer(self, name: Literal["expected_l0", "expected_hash"], layer: int) -> Any:
        """What a study expects of the external SAE of a layer, None where it says nothing."""
        value = getattr(self, name)
        return value.get(layer) if isinstance(value, dict) else value

    def external_folder(self, layer: int) -> Path:
        """Folder of an external SAE. Raises SaeError if `path` names none for this layer."""
        if isinstance(self.path, dict):
            if layer not in self.path:
                raise SaeError(f"sae.path: no folder for layer {layer}; add it")
            return Path(self.path[layer])
        try:
            return Path(str(self.path).format(layer=layer))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise SaeError(
                f"sae.path: {self.path!r} is not a folder name with {{layer}} in it ({error})"
            ) from error


def layer_folder(path: str, layer: int) -> Path:
    """The folder of a layer, of those whose name has {layer} in it."""
    return Path(path.replace("{layer}", str(layer)))


class ResidualSaeSettings(Section):
    """SAEs on the residual stream before attention layers, trained elsewhere: they split what a
    head reads at a source (recursive attribution) and the keys of scores (qk_features).
    """

    path: LocalName | None = None
    """Folders with {layer} in their name, in SAELens's format for hook_resid_pre."""
    layers: Literal["all"] | list[Index] = "all"
    """Layers that have one."""
    centre: bool = False
    """They read the stream less its mean, as those trained on centred weights do."""

    @model_validator(mode="after")
    def _usable(self) -> "ResidualSaeSettings":
        if self.path is not None and "{layer}" not in self.path:
            raise ValueError(f"path: {self.path!r} has no {{layer}} in it")
        if self.path is None and self.layers != "all":
            raise ValueError("layers: the SAEs of these layers need a path")
        if self.layers != "all" and (not self.layers or repeated(self.layers) is not None):
            raise ValueError("layers: name at least one, each once")
        return self

    def folders(self, n_layers: int) -> dict[int, Path]:
        """Layer -> folder, of a model with `n_layers` layers."""
        path = self.path
        if path is None:
            return {}
        layers = range(n_layers) if self.layers == "all" else sorted(self.layers)
        return {layer: layer_folder(path, layer) for layer in layers}


class SweepVariant(Section):
    """One SAE of a sweep; what is left out comes from the section `sae`.

    Settings that belong to some architectures only are taken from there where the architecture is
    the same.
    """

    architecture: Architecture
    """As sae.architecture."""
    k: Positive | None = None
    """As sae.k."""
    l1_coefficient: NotNegative | None = None
    """As sae.l1_coefficient."""
    l0_coefficient: NotNegative | None = None
    """As sae.l0_coefficient."""
    group_sizes: tuple[Positive, ...] | None = None
    """As sae.group_sizes."""
    d_sae: Positive | None = None
    """As sae.d_sae, for every layer."""
    learning_rate: PositiveFloat | None = None
    """As sae.learning_rate."""

    @property
    def name(self) -> str:
        """How tables and pictures call it: `topk k=16`."""
        own = self.model_dump(exclude_none=True, exclude={"architecture"})
        settings = [
            f"{key}={value:g}" for key, value in own.items() if not isinstance(value, tuple)
        ]
        settings += [
            f"{key}={list(value)}" for key, value in own.items() if isinstance(value, tuple)
        ]
        return " ".join([self.architecture, *settings])


class SweepSettings(Section):
    """SAEs of several sparsities per layer, for the frontier of L0 against CE loss recovered.

    All variants of a layer train in lockstep on the same rows. Without variants the table
    sae_frontier is empty.
    """

    variants: list[SweepVariant] = []
    """The SAEs; no two alike."""
    training_tokens: Positive | None = None
    """Activation rows to train on; default: as many as the section sae."""
    evaluation_tokens: Positive | None = None
    """Held-out tokens to evaluate on; default: as many as the section sae."""

    @field_validator("variants")
    @classmethod
    def _distinct(cls, variants: list[SweepVariant]) -> list[SweepVariant]:
        if (i := repeated(variants)) is not None:
            raise ValueError(f"variants[{i}] is there twice; remove it")
        return variants

    def of(self, sae: SaeSettings) -> dict[str, SaeSettings]:
        """Settings of every variant, by name, in the order given.

        sae: what variants leave out. Raises SaeError for a variant that cannot train.
        """
        return {
            variant.name: self._variant(variant, sae, f"sweep.variants[{i}]")
            for i, variant in enumerate(self.variants)
        }

    def _variant(self, variant: SweepVariant, sae: SaeSettings, key: str) -> SaeSettings:
        external = sae.architecture == EXTERNAL
        if external and (variant.d_sae is None or self.training_tokens is None):
            raise SaeError(
                f"{key}: an external SAE says nothing of training: give the variant d_sae, and the "
                "sweep training_tokens"
            )
        own_alone = {*ARCHITECTURE_SETTINGS, *AUXK_SETTINGS, *RESAMPLING_SETTINGS}
        left_out = {"architecture", *EXTERNAL_ALONE} if external else set()
        if variant.architecture != sae.architecture:
            left_out |= own_alone
        if variant.l1_coefficient is not None or variant.architecture != sae.architecture:
            left_out |= {"l1_coefficient_by_layer"}  # the variant's own, in every layer
        inherited = sae.model_dump(exclude_unset=True, exclude=left_out)
        own = variant.model_dump(exclude_none=True)
        if "d_sae" in own:
            own["d_sae_by_layer"] = {}
        own["training_tokens"] = self.training_tokens or sae.training_tokens
        try:
            return SaeSettings.model_validate({**inherited, **own})
        except ValidationError as error:
            raise SaeError(f"{key}: {messages_of(error)}") from None
