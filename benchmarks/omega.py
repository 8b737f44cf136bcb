"""SVD of Omega for all heads of a model against the dense SVD of each (d_model + 1)^2 matrix.

    python benchmarks/omega.py [--threads 2] [--dense 2] [--condition 1]

Three sizes; the goal is 100 times at the size of GPT-2 small (144 heads, d_model 768). Ours does
all heads and returns U, S and V. The dense SVD, with U and V too, is timed on a few heads and
scaled: by torch in float64 and float32 and by numpy in float64 on the same number of threads. CPU
seconds and wall seconds, the least of several runs, ours and the peers' taking turns. The limit is
the inner d_head x d_head SVDs alone, which no factored route avoids. `--condition` spreads the
singular values of the weights over that range: beyond 300 heads take the slower repairs of
thin_qr.py.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

SIZES = ((48, 384, 64), (144, 768, 64), (384, 1024, 64))


def each(svd: Callable[[Any], object], matrices: Iterable[Any]) -> list[object]:
    return [svd(one) for one in matrices]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dense", type=int, default=2, help="heads that dense SVDs are timed on")
    parser.add_argument("--condition", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    # numpy's own BLAS reads this when it is imported.
    os.environ["OPENBLAS_NUM_THREADS"] = str(arguments.threads)
    import numpy as np
    import torch

    from mechinterp_assets.circuits.omega import OmegaFactors, omega_svd

    torch.set_num_threads(arguments.threads)

    def least(works: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
        found = {name: (float("inf"), float("inf")) for name in works}
        for work in works.values():
            work()
        for _ in range(arguments.repeats):
            for name, work in works.items():
                cpu, wall = time.process_time(), time.perf_counter()
                work()
                spent = time.process_time() - cpu, time.perf_counter() - wall
                found[name] = min(found[name][0], spent[0]), min(found[name][1], spent[1])
        return found

    print(f"{arguments.threads} threads, condition {arguments.condition:g}; seconds CPU / wall")
    for heads, d_model, d_head in SIZES:
        generator = torch.Generator().manual_seed(0)
        W_Q, W_K = (torch.randn(heads, d_model, d_head, generator=generator) for _ in range(2))
        b_Q, b_K = (torch.randn(heads, d_head, generator=generator) for _ in range(2))
        if arguments.condition != 1:
            spread = arguments.condition ** -torch.linspace(0, 1, d_head)
            W_Q, W_K, b_Q, b_K = W_Q * spread, W_K * spread, b_Q * spread, b_K * spread
        left, right = (
            torch.cat([W, b[:, None]], 1)[: arguments.dense].double()
            for W, b in ((W_Q, b_Q), (W_K, b_K))
        )
        dense = left @ right.mT
        factors = OmegaFactors.of(W_Q, b_Q, W_K, b_K)
        single, array = dense.float(), dense.numpy()
        times = least(
            {
                "ours float64": partial(omega_svd, W_Q, b_Q, W_K, b_K),
                "ours float32": partial(omega_svd, W_Q, b_Q, W_K, b_K, dtype=torch.float32),
                "inner SVDs": factors.inner_svd,
                "torch float64": partial(each, torch.linalg.svd, dense),
                "torch float32": partial(each, torch.linalg.svd, single),
                "numpy float64": partial(each, np.linalg.svd, array),
            }
        )
        ours = omega_svd(W_Q, b_Q, W_K, b_K)
        U, S, V = (tensor[: arguments.dense] for tensor in (ours.U, ours.S, ours.V))
        rebuilt = float(((U * S[:, None]) @ V.mT - dense).norm() / dense.norm())
        spectrum = torch.linalg.svdvals(dense)[:, :d_head]
        print(f"\n{heads} heads, d_model {d_model}, d_head {d_head}")
        for name, (cpu, wall) in times.items():
            scale = heads / arguments.dense if name.split()[0] in ("torch", "numpy") else 1
            against = "ours float32" if "float32" in name else "ours float64"
            ratio = [scale * a / b for a, b in zip((cpu, wall), times[against], strict=True)]
            print(
                f"  {name:14s} {scale * cpu:9.3f} /{scale * wall:9.3f}"
                + (f"   {ratio[0]:5.0f}x /{ratio[1]:5.0f}x ours" if scale != 1 else "")
            )
        print(f"  rebuilt from U, S, V: relative error {rebuilt:.1e}", end="; ")
        print(f"singular values {float((S - spectrum).abs().max() / S.max()):.1e}")


if __name__ == "__main__":
    main()
