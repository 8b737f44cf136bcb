"""Whether bfloat16 products gain anything on this processor.

Belongs here: the measurement. Does not belong here: what follows. It decides nothing that a result
depends on: another moment may measure something else.
"""

import functools
import time

import torch
from torch import Tensor

ROUNDS = 3


@functools.cache
def bfloat16_speed() -> float:
    """How many times faster than float32 the CPU multiplies bfloat16 matrices of an encoder's form.

    Below 1 where it has no instructions for them: .05 was seen. Takes a fraction of a second, once
    per process.
    """
    left, right = torch.randn(256, 768), torch.randn(768, 2048)
    exact = _seconds(left, right)
    return exact / _seconds(left.bfloat16(), right.bfloat16())


def _seconds(left: Tensor, right: Tensor) -> float:
    """Least time of a product."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        torch.mm(left, right)
        taken.append(time.perf_counter() - start)
    return min(taken)
