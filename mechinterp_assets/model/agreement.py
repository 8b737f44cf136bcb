"""How far two computations of one thing may differ, and by how much they do.

Belongs here: the measure of a difference and its bound by precision, for every check of a loaded
model (identities.py, the gate of language_model). Does not belong here: what is compared.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mechinterp_assets.model.precision import float64

# Relative rms of what is the same in exact arithmetic, through a whole model. Seen on tiny models
# of 40 families: 1e-6 in float32. In 16 bit a stream is rounded after each addition, in each of two
# computations by itself: .003 to .02 for 2 to 30 layers in bfloat16, an eighth of it in float16.
ALLOWED = {
    torch.float64: 1e-5,
    torch.float32: 1e-4,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}


def disagreement(found: Tensor, expected: Tensor) -> float:
    """rms(found - expected) / rms(expected): 0 where both are 0; infinite where either has NaN or
    infinity, so that no bound lets it pass.
    """
    one, other = float64(found), float64(expected)
    gap, size = float((one - other).norm()), float(other.norm())
    if not (gap < float("inf") and size < float("inf")):
        return float("inf")
    return gap / size if size else (0.0 if gap == 0 else float("inf"))


def worst(errors: Iterable[float]) -> float:
    """The largest error; NaN counts as infinite."""
    return max((error if error == error else float("inf") for error in errors), default=0.0)
