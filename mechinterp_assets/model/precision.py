"""Double precision on every device.

Belongs here: the one conversion to float64 that also works where the device has none (Apple's MPS).
"""

import torch
from torch import Tensor


def float64(tensor: Tensor) -> Tensor:
    """`tensor` in float64, on its device, or on the CPU where the device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).to(torch.float64)
