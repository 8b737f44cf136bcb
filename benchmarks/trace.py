"""Tracing of IOI-sized prompts on a GPT-2-small-sized model against its bare forward pass.

    python benchmarks/trace.py [--prompts 256] [--device cuda]

The weights are random, with queries and keys sharpened until about as many pairs fire per prompt as
in a trained model; nothing is downloaded. The limit is the Hugging Face forward pass over the same
prompts; the goal is a trace in under twice that. The trunk without logits is shown beside it,
because a trace needs logits at one position at most. Times are CPU seconds of this process, which
other load on the machine hardly disturbs, or wall seconds on a GPU.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

import polars as pl
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.circuits.ioi import equal_length_groups
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.trace import TraceSettings, trace_circuit
from mechinterp_assets.language_model import LanguageModel

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sharpness", type=float, default=4.0)
    parser.add_argument("--memory-mib", type=int, default=512)
    arguments = parser.parse_args()
    model = sharpened_model(arguments.device, arguments.sharpness)
    prompts = prompts_of(arguments.prompts, model.config.d_vocab)
    roots = [(layer, head) for layer in (9, 10) for head in range(12)]
    settings = TraceSettings(memory_mib=arguments.memory_mib)

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
    svd, _ = timed(lambda: [omega.inner(layer, LENGTH) for layer in range(model.config.n_layers)])
    trace_circuit(model, prompts.head(8), roots, settings, omega=omega)
    limit = min(timed(lambda: forward(model.hf))[0] for _ in range(2))
    trunk = min(timed(lambda: forward(model.trunk))[0] for _ in range(2))
    ours, trace = timed(lambda: trace_circuit(model, prompts, roots, settings, omega=omega))
    pairs, edges = trace.slices.filter("fires"), trace.edges
    print(f"{arguments.prompts} prompts of {LENGTH} tokens, GPT-2 small size, {model.device}")
    print(f"traced pairs    {pairs.height:8d}    ({pairs.height / arguments.prompts:.0f} a prompt)")
    print(f"kept edges      {edges.filter('kept').height:8d}    rows {edges.height}")
    print(f"ours            {ours:8.2f} s  (and {svd:.2f} s of SVDs, once per model)")
    print(f"forward         {limit:8.2f} s  (trunk without logits {trunk:.2f} s)")
    print(f"ratio           {ours / limit:8.2f} x  (goal under 2; to the trunk {ours / trunk:.2f})")
    print(f"worst identity error {pairs['identity_error'].to_numpy().max():.1e}")


if __name__ == "__main__":
    main()
