"""Tracing of IOI-sized prompts on a GPT-2-small-sized model against its bare forward pass.

    python benchmarks/trace.py [--prompts 64 128 256] [--device cuda]

The weights are random, with queries and keys sharpened until about as many pairs fire per prompt as
in a trained model; nothing is downloaded. The limit is the Hugging Face forward pass over the same
prompts; the goal is a trace of 256 prompts in under twice that, and memory that does not grow with
prompts. Each count runs in a process of its own; "added" is the most resident memory seen after any
batch of the trace less that before it. The trunk without logits is shown too, because a trace needs
logits at one position at most. Times are CPU seconds of the process, which other load on the
machine hardly disturbs, or wall seconds on a GPU.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.trace import TraceSettings, trace_batches
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import equal_length_groups

LENGTH = 16
Result = TypeVar("Result")


def sharpened_model(device: str, sharpness: float) -> LanguageModel:
    """Random GPT-2 small whose heads attend sharply."""
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.weight[:, : 2 * 768] *= sharpness
    with tempfile.TemporaryDirectory() as folder:
        hf.save_pretrained(folder)
        del hf
        model = LanguageModel.load(folder, device=device)
        _ = model.weights
    return model


def prompts_of(n: int, d_vocab: int) -> pl.DataFrame:
    """Random prompts of equal length; the root pair is (last position, 2)."""
    ids = torch.randint(1, d_vocab, (n, LENGTH), generator=torch.Generator().manual_seed(0))
    return pl.DataFrame(
        {
            "prompt": range(n),
            "token_ids": ids.tolist(),
            "n_tokens": [LENGTH] * n,
            "pos_io": [2] * n,
            "pos_end": [LENGTH - 1] * n,
        }
    )


def resident() -> float:
    """Resident memory of this process now, MiB; 0 where the system does not tell."""
    table = Path("/proc/self/statm")
    if not table.is_file():
        return 0.0
    return int(table.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(n: int, device: str, sharpness: float, memory_mib: int) -> None:
    """Trace `n` prompts and print one row."""
    model = sharpened_model(device, sharpness)
    prompts = prompts_of(n, model.config.d_vocab)
    roots = [(layer, head) for layer in (9, 10) for head in range(12)]
    settings = TraceSettings(memory_mib=memory_mib)

    def clock() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def timed(work: Callable[[], Result]) -> tuple[float, Result]:
        start = clock()
        result = work()
        return clock() - start, result

    @torch.no_grad()
    def forward(module: torch.nn.Module) -> None:
        for _, ids in equal_length_groups(prompts, 32):
            module(ids.to(model.device))

    omega = ModelOmega(model)

    def traced(count: int) -> tuple[int, int, float, float]:
        pairs, edges, error, most = 0, 0, 0.0, 0.0
        for (part,) in trace_batches(model, prompts.head(count), roots, [settings], omega=omega):
            fires = part.slices.filter("fires")
            pairs, edges = pairs + fires.height, edges + part.edges.filter("kept").height
            error = max(error, float(fires["relative_identity_error"].to_numpy().max()))
            most = max(most, resident())
        return pairs, edges, error, most

    svd, _ = timed(lambda: [omega.inner(layer, LENGTH) for layer in range(model.config.n_layers)])
    traced(4)
    limit = min(timed(lambda: forward(model.hf))[0] for _ in range(2))
    trunk = min(timed(lambda: forward(model.trunk))[0] for _ in range(2))
    before = resident()
    ours, (pairs, edges, error, most) = timed(lambda: traced(n))
    print(
        f"{n:7d} {pairs:8d} {edges:8d} {ours:8.2f} {limit:8.2f} {trunk:8.2f} {ours / limit:8.2f} "
        f"{before:7.0f} {most - before:6.0f} {svd:6.2f}   {error:.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sharpness", type=float, default=4.0)
    parser.add_argument("--memory-mib", type=int, default=128)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        n = arguments.prompts[0]
        measure(n, arguments.device, arguments.sharpness, arguments.memory_mib)
        return
    print(f"GPT-2 small size, {LENGTH} tokens a prompt, streams of {arguments.memory_mib} MiB")
    print(
        "prompts    pairs    edges  trace s forward s  trunk s    ratio  MiB at  added  SVD s   "
        "worst identity error"
    )
    rest = ["--device", arguments.device, "--sharpness", str(arguments.sharpness)]
    rest += ["--memory-mib", str(arguments.memory_mib), "--one"]
    for n in arguments.prompts:
        command = [sys.executable, os.path.abspath(__file__), "--prompts", str(n), *rest]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
