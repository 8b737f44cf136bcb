"""Omega SVD of all heads of a GPT-2-small-sized model: QR factors against the dense SVD per head.

    python benchmarks/omega.py [--dense 3]

Ours does all 144 heads; the dense SVD is timed on a few heads and scaled to 144. The limit is the
batched SVD of the 64 x 64 cores alone, which no factored route can avoid. Times are CPU seconds, so
that other load on the machine hardly disturbs them.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from mechinterp_assets.circuits.omega import OmegaFactors, omega_svd

LAYERS, HEADS, D_MODEL, D_HEAD = 12, 12, 768, 64


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Least CPU time of `repeats` calls after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", type=int, default=3, help="heads that the dense SVD is timed on")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    heads = LAYERS * HEADS
    W_Q, W_K = (torch.randn(heads, D_MODEL, D_HEAD, generator=generator) for _ in range(2))
    b_Q, b_K = (torch.randn(heads, D_HEAD, generator=generator) for _ in range(2))

    ours = seconds(lambda: omega_svd(W_Q, b_Q, W_K, b_K))
    factors = OmegaFactors.of(W_Q, b_Q, W_K, b_K)
    limit = seconds(factors.inner_svd)

    left = torch.cat([W_Q, b_Q[:, None]], 1).double().numpy()
    right = torch.cat([W_K, b_K[:, None]], 1).double().numpy()
    start = time.process_time()
    spectra = [np.linalg.svd(left[h] @ right[h].T)[1][:D_HEAD] for h in range(arguments.dense)]
    peer = (time.process_time() - start) / arguments.dense * heads
    S = omega_svd(W_Q, b_Q, W_K, b_K).S[: arguments.dense].numpy()
    error = float(np.abs(S - np.stack(spectra)).max() / S.max())

    print(f"{heads} heads, d_model {D_MODEL}, d_head {D_HEAD}, {torch.get_num_threads()} threads")
    print(f"ours            {ours:8.3f} s")
    print(f"dense SVD       {peer:8.1f} s  ({arguments.dense} heads timed, scaled)")
    print(f"ratio           {peer / ours:8.0f} x   (goal 100 x)")
    print(f"limit           {limit:8.3f} s  (inner SVDs alone; share {limit / ours:.2f})")
    print(f"worst relative difference of singular values {error:.1e}")


if __name__ == "__main__":
    main()
