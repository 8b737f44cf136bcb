"""Double precision on every device, and how far two computations in one precision may differ.

Belongs here: the conversion to float64 that also works where the device has none (Apple's MPS), the
measure of a difference, and what rounding makes of it. Does not belong here: what is compared.
"""

import torch
from torch import Tensor

# Two ways to compute z of one layer of the same residual stream, relative rms. Measured with peaked
# attention over 1,024 positions: 2e-7, .0015, .0002, mostly the rounding of z itself. A GPU's TF32
# products are wrong by .0005. Rotary frequencies rounded to bfloat16 make it .013 to .2, to float16
# .003 to .025; another activation 1.
SAME_LAYER = {torch.float32: 1e-3, torch.bfloat16: 5e-3, torch.float16: 1e-3}

# An identity of activations that a model rounded one by one: a residual stream and the sum of what
# was written to it, values and W_V on a norm's output. A stream is rounded after each addition, its
# norms' outputs and products too: about the square root of the number of roundings in units of
# 2**-9 (bfloat16) and 2**-12 (float16), which is .003 to .01 and .0004 to .0012 for 2 to 30 layers.
SAME_SUM = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def float64(tensor: Tensor) -> Tensor:
    """`tensor` in float64, on its device, or on the CPU where the device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).to(torch.float64)


def relative_rms(found: Tensor, expected: Tensor) -> float:
    """rms(found - expected) / rms(expected): 0 where both are 0, NaN where either has NaN."""
    difference = float64(found) - float64(expected)
    gap, size = float(difference.norm()), float(float64(expected).norm())
    return gap / size if size else (gap if gap == 0 else float("inf"))
