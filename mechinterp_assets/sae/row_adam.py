"""Adam, the decoder's projection and its unit norm in one pass over memory, on a CUDA device.

Belongs here: when the one-pass kernel may stand in for torch's optimiser, and keeping the
optimiser's state what torch would have made it. Does not belong here: the kernel (gpu_kernels.py),
what a step does otherwise (steps.py).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mechinterp_assets.sae.sparse_ops import on_cuda


def adam_rows_(
    optimizer: torch.optim.Adam, plain: Iterable[nn.Parameter], unit: nn.Parameter, lr: float
) -> bool:
    """Adam on the matrices `plain` and on `unit`, whose rows are and stay of norm 1.

    unit.grad is projected first (steps.project_gradient). Moments and step counts end as
    optimizer.step() would leave them. False, with nothing done, where there is no kernel for them
    or the optimiser has not made its state yet; all else is left to the caller.
    """
    parameters = [*plain, unit]
    gpu = on_cuda(*parameters)
    if gpu is None or any(p not in optimizer.state for p in parameters):
        return False
    group = optimizer.param_groups[0]
    for parameter in parameters:
        assert parameter.grad is not None
        state = optimizer.state[parameter]
        gpu.adam_rows(
            parameter,
            parameter.grad,
            state["exp_avg"],
            state["exp_avg_sq"],
            lr=lr,
            betas=group["betas"],
            eps=group["eps"],
            step=_next_step(state["step"]),
            unit=parameter is unit,
        )
        state["step"].add_(1)
    return True


def _next_step(counter: Tensor) -> int:
    """The number of the coming step; the count on the device is read once, not at every step."""
    known: tuple[int, int] | None = getattr(counter, "_read", None)
    # a counter that somebody else has moved since is read again
    count = known[0] if known and known[1] == counter._version else int(counter)
    counter._read = (count + 1, counter._version + 1)  # type: ignore[attr-defined]  # ours, on the tensor
    return count + 1
