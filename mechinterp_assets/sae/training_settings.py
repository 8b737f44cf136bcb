"""What a training run is told: TrainingSettings, its validation and its memory estimate."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.traits import check_own_settings, traits_of

FLOAT_BYTES = 4
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


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one SAE's training. Steps = training_tokens // batch_size.

    architecture        name of a file in sae/architectures
    d_sae               number of features
    training_tokens     activation rows to train on; more than the data holds means several passes
    k                   active features per token (topk); their mean over a batch (batchtopk,
                        matryoshka)
    k_start             k falls linearly from this to k over sparsity_warmup (None: k throughout)
    l1_coefficient      weight of sum_i f_i per token (standard; gated: of the gate's positive
                        pre-activations), inputs scaled as below
    l0_coefficient      weight of the number of active features per token (jumprelu)
    bandwidth           width of the kernel that estimates the threshold's gradient (jumprelu;
                        None: sae.architectures.jumprelu.BANDWIDTH), in units of scaled activations
    initial_threshold   threshold of every feature at the start (jumprelu; None:
                        sae.architectures.jumprelu.INITIAL_THRESHOLD), in the same units
    group_sizes         widths of the nested prefixes, rising, the last d_sae (matryoshka)
    compute_dtype       dtype of the encoder's matrix product; weights and sums stay float32
    batch_size          rows a step
    learning_rate, adam_betas, adam_epsilon  Adam; K24 uses 1e-3, (0.9, 0.99)
    lr_warmup           share of the steps over which the rate rises linearly from 0
    lr_decay            share of the steps, at the end, over which lr falls linearly to 0
    sparsity_warmup     share of the steps over which l1_coefficient or l0_coefficient rises
                        linearly from 0, or k falls from k_start
    max_gradient_norm   gradient norm is clipped to this (None: never)
    normalize_input     train on rows scaled so that E||x - mean||^2 = d_in; the scale is folded
                        into the biases at the end, so the SAE takes raw z
    decoder_init        "random" unit rows, or "data": unit rows in the directions of sampled
                        x - b_dec
    b_dec_init          "mean" or "geometric_median" of a sample of rows
    encoder_scale       the encoder starts as the decoder's transpose times this (None: the
                        architecture's own: 0.1 under an L1 penalty, which from 1 silences
                        features before they have learned anything; 1 elsewhere)
    sample_rows         rows drawn for initialisation, and for each resampling
    dead_after_tokens   a feature that fired on none of this many tokens is dead
    auxk_coefficient    weight of the aux-k loss (topk, batchtopk, matryoshka; Gao et al. 2024, A.2:
                        1/32 there; 1 leaves half the dead features of 1/8 in short runs, at the
                        same explained variance)
    auxk                dead features that reconstruct the error (None: d_in // 2)
    resample_at         shares of the steps at which dead features are resampled (standard;
                        Bricken et al. 2023)
    resample_warmup_steps  after each resampling lr starts at 0.1x and returns along a cosine
                        over this many steps (K24: 1000), at most a tenth of all steps
    seed                of initialisation and resampling (the row stream has its own)
    log_every, checkpoint_every  steps
    """

    architecture: str
    d_sae: int
    training_tokens: int
    k: int | None = None
    k_start: int | None = None
    l1_coefficient: float | None = None
    l0_coefficient: float | None = None
    bandwidth: float | None = None
    initial_threshold: float | None = None
    group_sizes: tuple[int, ...] | None = None
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: int = 2048
    learning_rate: float = 1e-3
    adam_betas: tuple[float, float] = (0.9, 0.99)
    adam_epsilon: float = 1e-8
    lr_warmup: float = 0.05
    lr_decay: float = 0.2
    sparsity_warmup: float = 0.2
    max_gradient_norm: float | None = None
    normalize_input: bool = True
    decoder_init: Literal["random", "data"] = "random"
    b_dec_init: Literal["mean", "geometric_median"] = "mean"
    encoder_scale: float | None = None
    sample_rows: int = 32_768
    dead_after_tokens: int = 250_000
    auxk_coefficient: float = 1.0
    auxk: int | None = None
    resample_at: tuple[float, ...] = (0.125, 0.25, 0.375, 0.5)
    resample_warmup_steps: int = 1000
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 1000

    @property
    def steps(self) -> int:
        """Training steps: whole batches in the token budget."""
        return self.training_tokens // self.batch_size

    @property
    def resample_steps(self) -> list[int]:
        """Steps after which dead features are resampled."""
        return sorted({round(share * self.steps) for share in self.resample_at} - {0})

    def validate(self, d_in: int) -> None:
        """Raise SaeError for settings that cannot train on rows of width d_in."""
        positive = {
            "d_sae": self.d_sae,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "adam_epsilon": self.adam_epsilon,
            "sample_rows": self.sample_rows,
            "dead_after_tokens": self.dead_after_tokens,
            "log_every": self.log_every,
            "checkpoint_every": self.checkpoint_every,
            "resample_warmup_steps": self.resample_warmup_steps,
        }
        positive |= {
            name: value
            for name in ("bandwidth", "initial_threshold", "encoder_scale")
            if (value := getattr(self, name)) is not None
        }
        for name, value in positive.items():
            if value <= 0:
                raise SaeError(f"{name} is {value}; give a value above 0")
        shares = {"lr_warmup": self.lr_warmup, "lr_decay": self.lr_decay}
        shares |= {"sparsity_warmup": self.sparsity_warmup}
        shares |= {f"resample_at[{i}]": share for i, share in enumerate(self.resample_at)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise SaeError(f"{name} is {share}; it is a share of the steps, from 0 to 1")
        if self.steps < 1:
            raise SaeError(
                f"training_tokens ({self.training_tokens}) is less than batch_size "
                f"({self.batch_size}); raise training_tokens or lower batch_size"
            )
        if self.max_gradient_norm is not None and self.max_gradient_norm <= 0:
            raise SaeError(f"max_gradient_norm is {self.max_gradient_norm}; give null or > 0")
        for name in ("auxk_coefficient", "l1_coefficient", "l0_coefficient"):
            coefficient = getattr(self, name)
            if coefficient is not None and not coefficient >= 0:
                raise SaeError(f"{name} is {coefficient}; give 0 or more")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise SaeError(f"compute_dtype is {self.compute_dtype!r}; give 'float32' or 'bfloat16'")
        if self.decoder_init not in ("random", "data"):
            raise SaeError(f"decoder_init is {self.decoder_init!r}; give 'random' or 'data'")
        if self.b_dec_init not in ("mean", "geometric_median"):
            raise SaeError(f"b_dec_init is {self.b_dec_init!r}; give 'mean' or 'geometric_median'")
        if self.k is not None and not 0 < self.k <= self.d_sae:
            raise SaeError(f"k is {self.k}; give a value from 1 to d_sae ({self.d_sae})")
        if self.k_start is not None and not (self.k or 0) <= self.k_start <= self.d_sae:
            raise SaeError(
                f"k_start is {self.k_start}; give a value from k ({self.k}) to d_sae ({self.d_sae})"
            )
        if self.group_sizes is not None:
            _check_prefixes(self.group_sizes, self.d_sae)
        if self.auxk is not None and self.auxk <= 0:
            raise SaeError(f"auxk is {self.auxk}; give null or > 0")
        if d_in <= 0:
            raise SaeError(f"rows have width {d_in}")

    def fingerprint(self) -> str:
        """sha256 over every setting that changes the result, 16 hex digits.

        checkpoint_every is left out; log_every stays in, since the log is part of the result.
        """
        content = {
            name: value for name, value in asdict(self).items() if name != "checkpoint_every"
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check_settings(settings: TrainingSettings, d_in: int, label: str = "the SAE") -> None:
    """Raise SaeError, naming `label`, for settings that cannot train on rows of width d_in."""
    try:
        settings.validate(d_in)
        given = {name: getattr(settings, name) for name in ARCHITECTURE_SETTINGS}
        check_own_settings(settings.architecture, given)
    except SaeError as error:
        raise SaeError(f"{label}: {error}") from None


def training_bytes(settings: TrainingSettings, d_in: int) -> int:
    """Bytes of device memory that training needs at its peak, estimated from above.

    Weights, gradients and two Adam moments; one more copy of the weights for the projection's
    temporaries; pre-activations, their gradient and masks of a batch (the architecture's
    TRAITS say how many); row-wide
    temporaries of a batch; and the sample for initialisation. The row stream's buffer is the
    caller's.
    """
    return lockstep_bytes([settings], d_in)


def lockstep_bytes(members: Sequence[TrainingSettings], d_in: int) -> int:
    """As training_bytes for several SAEs trained together: they take their steps in turn, so the
    temporaries of the largest are needed once.
    """
    return sum(_kept_bytes(m, d_in) for m in members) + max(_step_bytes(m, d_in) for m in members)


def _weights(settings: TrainingSettings, d_in: int) -> int:
    return 2 * settings.d_sae * d_in + settings.d_sae + d_in


def _kept_bytes(settings: TrainingSettings, d_in: int) -> int:
    return FLOAT_BYTES * 4 * _weights(settings, d_in)


def _step_bytes(settings: TrainingSettings, d_in: int) -> int:
    wide = traits_of(settings.architecture).wide_matrices * settings.d_sae
    batch = settings.batch_size * (wide + 6 * d_in)
    sample = settings.sample_rows * 3 * d_in
    return FLOAT_BYTES * (2 * _weights(settings, d_in) + batch + sample)


def _check_prefixes(widths: tuple[int, ...], d_sae: int) -> None:
    rising = all(a < b for a, b in zip((0, *widths), widths, strict=False))
    if not widths or not rising or widths[-1] != d_sae:
        raise SaeError(
            f"group_sizes is {list(widths)}; give rising widths of nested prefixes, the last of "
            f"them d_sae ({d_sae})"
        )
