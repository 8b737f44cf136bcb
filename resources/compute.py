"""Where tensors are computed: device, precision, threads, seeds, and a memory check.

Belongs here: everything that differs between a laptop and a GPU box. Does not belong here: what is
computed. No asset chooses a device.
"""

import os
import random
from typing import TYPE_CHECKING, Literal

import dagster as dg

if TYPE_CHECKING:  # torch takes seconds to import: only processes that compute pay for it
    import torch


class ComputeError(RuntimeError):
    """A device or an amount of memory that this machine does not have."""


class ComputeResource(dg.ConfigurableResource["ComputeResource"]):
    """Device and precision of every computation of a run."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    tf32: bool = True
    threads: int = 0
    memory_fraction: float = 0.8

    def torch_device(self) -> "torch.device":
        """The device asked for; `auto` takes cuda, then mps, then cpu. Raises ComputeError."""
        import torch

        available = {
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
            "cpu": True,
        }
        name = next(n for n in available if available[n]) if self.device == "auto" else self.device
        if not available[name]:
            raise ComputeError(
                f"device {name!r} is not available here; set compute.device to one of "
                f"{[n for n in available if available[n]]} or to auto"
            )
        return torch.device(name)

    def prepare(self, seed: int) -> "torch.device":
        """Set threads, precision and every seed of this process; return the device."""
        import numpy as np
        import torch

        if self.threads > 0:
            torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return self.torch_device()

    def available_bytes(self) -> int:
        """Memory that one allocation may take: memory_fraction of what is free on the device."""
        device = self.torch_device()
        if device.type == "cuda":
            import torch

            free, _ = torch.cuda.mem_get_info(device)
        else:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            free = max(free, _reclaimable_bytes())
        return int(free * self.memory_fraction)

    def require_memory(self, needed: int, what: str, setting: str) -> None:
        """Raise ComputeError, before work starts, if `needed` bytes are more than is available."""
        available = self.available_bytes()
        if needed > available:
            raise ComputeError(
                f"{what} needs {needed / 2**30:.2f} GiB but {available / 2**30:.2f} GiB are "
                f"available on {self.torch_device()}; lower {setting}"
            )


def _reclaimable_bytes() -> int:
    """Linux's own estimate of memory that can be had without swapping (0 elsewhere)."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
