"""Memory that training needs, estimated before it starts.

Belongs here: bytes of one SAE and of several trained together. Does not belong here: buffers of
rows, which are the streams'.
"""

from collections.abc import Sequence

from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.traits import traits_of

FLOAT_BYTES = 4


def training_bytes(settings: SaeSettings, d_in: int) -> int:
    """Bytes of device memory that training needs at its peak, estimated from above.

    Weights, gradients and two Adam moments; one more copy of the weights for the projection's
    temporaries; pre-activations, their gradient and masks of a batch (the architecture's traits say
    how many); row-wide temporaries of a batch; and the sample for initialisation. The row stream's
    buffer is the caller's.
    """
    return lockstep_bytes([settings], d_in)


def lockstep_bytes(members: Sequence[SaeSettings], d_in: int) -> int:
    """As training_bytes for several SAEs trained together: they take their steps in turn, so the
    temporaries of the largest are needed once.
    """
    return sum(_kept_bytes(m, d_in) for m in members) + max(_step_bytes(m, d_in) for m in members)


def _weights(settings: SaeSettings, d_in: int) -> int:
    return 2 * settings.d_sae * d_in + settings.d_sae + d_in


def _kept_bytes(settings: SaeSettings, d_in: int) -> int:
    return FLOAT_BYTES * 4 * _weights(settings, d_in)


def _step_bytes(settings: SaeSettings, d_in: int) -> int:
    wide = traits_of(settings.architecture).wide_matrices * settings.d_sae
    batch = settings.batch_size * (wide + 6 * d_in)
    sample = settings.sample_rows * 3 * d_in
    return FLOAT_BYTES * (2 * _weights(settings, d_in) + batch + sample)
