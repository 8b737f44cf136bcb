"""One SAE training step: ours, sae-lens's, and the limit, over three widths.

    make peers; .venv-peers/bin/python benchmarks/sae_step.py

Rows of a table, all timed in turn, round by round, on the same batches; each prints its least CPU
seconds (all threads together, so that a busy machine matters little) and its least wall seconds:

- compiled: our step with the compiled CPU kernels; torch: the same without them.
- For "standard" at two points of a training: at the start, where half of all features are active,
  and with 2% active; and with compute_dtype bfloat16. sae-lens's step costs the same at both.
- sae-lens: SAETrainer.step of the same architecture. Needs the environment that `make peers` makes.
- limit: the GEMMs that the step cannot do without in float32: one for topk (encode), five for
  standard (encode, decode, gradients of f, W_dec and W_enc). Our topk step can pass that limit:
  it does its GEMM in bfloat16 and computes in float32 only what that leaves undecided.
- autograd: the six GEMMs that autograd takes for either (those five and the gradient of x).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from mechinterp_assets.sae import sparse_ops
from mechinterp_assets.sae.cpu_kernels import kernels
from mechinterp_assets.sae.registry import training_step_class
from mechinterp_assets.sae.settings import SaeSettings

Work = Callable[[], object]
SPARSE = -2.054  # a normal variable exceeds its negative with probability 2%


def ours(
    architecture: str,
    batches: list[Tensor],
    d_sae: int,
    k: int,
    *,
    compiled: bool = True,
    b_enc: float = 0.0,
    compute_dtype: Any = "float32",
) -> Work:
    """One step: gradients, projection, Adam, unit norm."""
    own: dict[str, Any] = {"k": k} if architecture == "topk" else {"l1_coefficient": 1.0}
    settings = SaeSettings(
        architecture=architecture,
        d_sae=d_sae,
        training_tokens=10**9,
        batch_size=len(batches[0]),
        encoder_scale=1.0,
        compute_dtype=compute_dtype,
        **own,
    )
    decoder = torch.randn(d_sae, batches[0].shape[1])
    decoder /= decoder.norm(dim=1, keepdim=True)
    step = training_step_class(architecture)(settings, decoder, torch.zeros_like(batches[0][0]))
    with torch.no_grad():
        step.b_enc.fill_(b_enc)
    turn = _in_turn(batches)

    def work() -> None:
        vars(sparse_ops)["kernels"] = kernels if compiled else lambda: None
        step.gradients(next(turn), progress=1.0)
        step.apply(1e-5)

    return work


def sae_lens(architecture: str, batches: list[Tensor], d_sae: int, k: int) -> Work | None:
    """sae-lens's own trainer step on the same batches; None where it is not installed."""
    try:
        peer: Any = import_module("sae_lens")
    except ImportError:
        return None
    training: Any = import_module("sae_lens.training.sae_trainer")
    trainer_config: Any = import_module("sae_lens.config").SAETrainerConfig
    d_in = batches[0].shape[1]
    if architecture == "topk":
        sae = peer.TopKTrainingSAE(peer.TopKTrainingSAEConfig(d_in=d_in, d_sae=d_sae, k=k))
    else:
        sae = peer.StandardTrainingSAE(peer.StandardTrainingSAEConfig(d_in=d_in, d_sae=d_sae))
    trainer = training.SAETrainer(
        cfg=trainer_config(
            total_training_samples=10**9,
            train_batch_size_samples=len(batches[0]),
            device="cpu",
            autocast=False,
            lr_end=3e-5,
        ),
        sae=sae,
        data_provider=_in_turn(batches),
    )

    def work() -> None:
        trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1

    return work


def gemms(x: Tensor, d_sae: int, count: int) -> Work:
    """The first `count` matrix products of a dense step, nothing else."""
    n, d_in = x.shape
    W_enc, W_dec = torch.randn(d_in, d_sae), torch.randn(d_sae, d_in)
    f, narrow = torch.randn(n, d_sae), torch.empty_like(x)
    wide, down, up = torch.empty_like(f), torch.empty_like(W_dec), torch.empty_like(W_enc)
    products: list[Work] = [
        lambda: torch.mm(x, W_enc, out=wide),
        lambda: torch.mm(f, W_dec, out=narrow),
        lambda: torch.mm(x, W_dec.T, out=wide),
        lambda: torch.mm(f.T, x, out=down),
        lambda: torch.mm(x.T, f, out=up),
        lambda: torch.mm(f, W_enc.T, out=narrow),
    ]

    def work() -> None:
        for product in products[:count]:
            product()

    return work


def works(architecture: str, batches: list[Tensor], d_sae: int, k: int) -> dict[str, Work]:
    """What is timed for one architecture and width, by name of its row."""
    if architecture == "topk":
        rows: dict[str, Work | None] = {
            "ours, compiled": ours("topk", batches, d_sae, k),
            "ours, torch": ours("topk", batches, d_sae, k, compiled=False),
        }
    else:
        rows = {
            "ours, 50% active": ours("standard", batches, d_sae, k),
            "ours, 50% active, torch": ours("standard", batches, d_sae, k, compiled=False),
            "ours, 50% active, bfloat16": ours(
                "standard", batches, d_sae, k, compute_dtype="bfloat16"
            ),
            "ours, 2% active": ours("standard", batches, d_sae, k, b_enc=SPARSE),
        }
    rows["sae-lens"] = sae_lens(architecture, batches, d_sae, k)
    rows["limit"] = gemms(batches[0], d_sae, 1 if architecture == "topk" else 5)
    rows["autograd's six GEMMs"] = gemms(batches[0], d_sae, 6)
    return {name: work for name, work in rows.items() if work is not None}


def least_seconds(rows: dict[str, Work], rounds: int) -> dict[str, tuple[float, float]]:
    """Least CPU and least wall seconds of each row, timed in turn after one warm-up."""
    least = {name: (float("inf"), float("inf")) for name in rows}
    for work in rows.values():
        work()
    for _ in range(rounds):
        for name, work in rows.items():
            cpu, wall = time.process_time(), time.perf_counter()
            work()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            least[name] = (min(least[name][0], cpu), min(least[name][1], wall))
    return least


def _in_turn(batches: list[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", nargs="+", default=["topk", "standard"])
    parser.add_argument("--d-in", type=int, default=768)
    parser.add_argument("--d-sae", type=int, nargs="+", default=[3072, 6144, 12288])
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    batches = [torch.randn(a.batch, a.d_in) for _ in range(4)]
    has_kernels = kernels() is not None
    print(
        f"batch {a.batch}, d_in {a.d_in}, k {a.k}, {a.threads} threads, torch {torch.__version__}"
    )
    print(
        f"compiled kernels: {'yes' if has_kernels else 'NOT AVAILABLE, all rows are plain torch'}"
    )
    growth: dict[str, list[float]] = {}
    for architecture in a.architectures:
        for d_sae in a.d_sae:
            least = least_seconds(works(architecture, batches, d_sae, a.k), a.rounds)
            limit = least["limit"][0]
            peer = least.get("sae-lens", (float("nan"),))[0]
            print(f"\n{architecture}, d_sae {d_sae:27} CPU ms  wall ms  x sae-lens  share of limit")
            for name, (cpu, wall) in least.items():
                print(
                    f"  {name:36} {cpu * 1e3:10.0f} {wall * 1e3:8.0f} {peer / cpu:11.2f}"
                    f" {limit / cpu:15.2f}"
                )
                growth.setdefault(f"{architecture}: {name}", []).append(cpu)
            if "sae-lens" not in least:
                print("  sae-lens is not installed here: run this in the environment of make peers")
    print("\nCPU ms per step at d_sae " + ", ".join(map(str, a.d_sae)))
    for name, seconds in growth.items():
        times = " ".join(f"{value * 1e3:8.0f}" for value in seconds)
        print(f"  {name:46} {times}   x{seconds[-1] / seconds[0]:.2f}")


if __name__ == "__main__":
    main()
