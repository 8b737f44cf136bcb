"""One SAE training step at GPT-2 small's sizes: ours, SAELens's, and the GEMM roofline.

    python benchmarks/sae_step.py [--architecture topk] [--rounds 5] [--threads 2] [--device cpu]

The limit is the six dense GEMMs that autograd needs for an SAE (encode, decode, gradients of f,
W_dec, W_enc and x). The TopK step needs one of them, so it can pass that limit. SAELens is timed
when it can be imported: it wants another transformer_lens than this project, so run this file in an
environment of its own (it needs torch, numpy, polars and tqdm from ours). All rows are timed in
turn, round by round; each prints its least CPU seconds (all threads), or wall seconds on a GPU.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from mechinterp_assets.sae.settings import TrainingSettings
from mechinterp_assets.sae.standard import StandardStep
from mechinterp_assets.sae.steps import TrainingStep
from mechinterp_assets.sae.topk import TopKStep

Work = Callable[[], object]


def ours(architecture: str, batches: list[Tensor], d_sae: int, k: int) -> Work:
    """One step: gradients, projection, Adam, unit norm."""
    own: dict[str, Any] = {"k": k} if architecture == "topk" else {"l1_coefficient": 1.0}
    settings = TrainingSettings(
        architecture, d_sae=d_sae, tokens=10**9, batch_size=len(batches[0]), **own
    )
    decoder = torch.randn(d_sae, batches[0].shape[1], device=batches[0].device)
    decoder /= decoder.norm(dim=1, keepdim=True)
    kind = TopKStep if architecture == "topk" else StandardStep
    step: TrainingStep = kind(settings, decoder, torch.zeros_like(batches[0][0]))
    turn = _in_turn(batches)

    def work() -> None:
        step.gradients(next(turn), progress=1.0)
        step.apply(1e-4)

    return work


def sae_lens(architecture: str, batches: list[Tensor], d_sae: int, k: int) -> Work | None:
    """SAELens's own trainer step on the same batches; None where it is not installed."""
    try:
        peer: Any = import_module("sae_lens")
    except ImportError:
        return None
    training: Any = import_module("sae_lens.training.sae_trainer")
    trainer_config: Any = import_module("sae_lens.config").SAETrainerConfig
    d_in, device = batches[0].shape[1], str(batches[0].device)
    if architecture == "topk":
        config = peer.TopKTrainingSAEConfig(d_in=d_in, d_sae=d_sae, k=k, device=device)
        sae = peer.TopKTrainingSAE(config)
    else:
        config = peer.StandardTrainingSAEConfig(d_in=d_in, d_sae=d_sae, device=device)
        sae = peer.StandardTrainingSAE(config)
    trainer = training.SAETrainer(
        cfg=trainer_config(
            total_training_samples=10**9,
            train_batch_size_samples=len(batches[0]),
            device=device,
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


def six_gemms(x: Tensor, d_sae: int) -> Work:
    """The matrix products of a dense step, nothing else."""
    n, d_in = x.shape
    W_enc, W_dec = x.new_ones(d_in, d_sae).normal_(), x.new_ones(d_sae, d_in).normal_()
    f, narrow = x.new_ones(n, d_sae).normal_(), torch.empty_like(x)
    wide, down, up = torch.empty_like(f), torch.empty_like(W_dec), torch.empty_like(W_enc)

    def work() -> None:
        torch.mm(x, W_enc, out=wide)
        torch.mm(f, W_dec, out=narrow)
        torch.mm(x, W_dec.T, out=wide)
        torch.mm(f.T, x, out=down)
        torch.mm(x.T, f, out=up)
        torch.mm(f, W_enc.T, out=narrow)

    return work


def _in_turn(batches: list[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from batches


def _seconds(work: Work, device: str) -> float:
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", choices=["topk", "standard"], default="topk")
    parser.add_argument("--d-in", type=int, default=768)
    parser.add_argument("--d-sae", type=int, default=6144)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    batches = [torch.randn(a.batch, a.d_in, device=a.device) for _ in range(4)]
    rows = {
        "ours": ours(a.architecture, batches, a.d_sae, a.k),
        "SAELens": sae_lens(a.architecture, batches, a.d_sae, a.k),
        "six GEMMs": six_gemms(batches[0], a.d_sae),
    }
    works = {name: work for name, work in rows.items() if work is not None}
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(a.rounds):
        for name, work in works.items():
            times[name].append(_seconds(work, a.device))
    least = {name: min(values) for name, values in times.items()}
    print(
        f"{a.architecture} {a.d_in} x {a.d_sae}, k {a.k}, batch {a.batch}, "
        f"{a.device}, {a.threads} threads"
    )
    for name, value in least.items():
        print(
            f"{name:10s} {value * 1e3:9.1f} ms   "
            f"limit's time / its time {least['six GEMMs'] / value:5.2f}"
        )
    if "SAELens" in least:
        print(f"ratio      {least['SAELens'] / least['ours']:9.2f} x")
    else:
        print("SAELens is not installed here: no ratio")


if __name__ == "__main__":
    main()
