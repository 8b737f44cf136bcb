"""Double precision on every device, and how far two computations in one precision may differ.

Belongs here: conversions (to float64 also where the device has none: Apple's MPS), and what
rounding makes of one step. Does not belong here: the measure of a difference, and what it grows to
through a whole model (agreement.py).
"""

import torch
from torch import Tensor


def rounding(dtype: torch.dtype) -> float:
    """Largest relative error of a number that is rounded to `dtype`: 2**-24 in float32, 2**-11 in
    float16, 2**-8 in bfloat16."""
    return float(torch.finfo(dtype).eps) / 2


def same_layer(dtype: torch.dtype) -> float:
    """Relative rms by which two ways to compute z of one residual stream may differ.

    Measured with peaked attention over 1,024 positions: 2e-7, .0002 (float16), .0015 (bfloat16),
    which is the rounding of z itself. TF32 products of a GPU are wrong by .0005. Rotary frequencies
    rounded to float16 make it .003 to .025, to bfloat16 .013 to .2; another activation 1.
    """
    return 1e-3 + rounding(dtype)


def same_sum(dtype: torch.dtype) -> float:
    """Relative error that an identity of activations may have that a model rounded one by one.

    Such as a residual stream and the sum of what was written to it. A stream is rounded after each
    addition, what is added after each product, independently: some square root of their number
    times the error of one, in bfloat16 .003 for 5 layers and .02 for 30. Blocks of another form
    are wrong by 1.
    """
    return 1e-3 + 8 * rounding(dtype)


def float64(tensor: Tensor) -> Tensor:
    """`tensor` in float64, on its device, or on the CPU where the device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).to(torch.float64)


def is_narrow(dtype: torch.dtype) -> bool:
    """Whether a number of this floating-point type has fewer than 32 bits."""
    return torch.finfo(dtype).bits < 32


def widened(tensor: Tensor) -> Tensor:
    """`tensor` in float32 where it is a narrower floating-point one, else itself."""
    return tensor.float() if tensor.is_floating_point() and is_narrow(tensor.dtype) else tensor
