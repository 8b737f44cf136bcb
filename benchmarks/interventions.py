"""Interventions per second of the runner against naive hooks, at three model sizes.

    python benchmarks/interventions.py [--sizes small medium gpt2] [--prompts 16] [--device cuda]

Weights are random; nothing is downloaded. Prompts are random tokens of equal length, each with a
counterfactual. Naive: one whole forward pass over all prompts with hooks per intervention, on the
same bridge, once with logits at every position and once with END alone. It is timed on a sample of
the interventions, evenly spaced over layers, because its cost per intervention does not depend on
which one it is. The runner's time includes unedited runs, metrics and the frame; the bridge with
processed weights is made before. Times are CPU seconds of the process, or wall seconds on a GPU.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.kinds.activation_patching import patching_sweep
from mechinterp_assets.interventions.kinds.head_ablation import head_ablations
from mechinterp_assets.interventions.kinds.path_patching import path_sweep
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import last_position

# layers, heads, d_model, vocabulary
SIZES = {
    "small": (5, 8, 192, 4096),
    "medium": (8, 8, 512, 16_384),
    "gpt2": (12, 12, 768, 50_257),
}
LENGTH = 16
Hooks = list[tuple[str, Callable[[Tensor, Any], Tensor]]]


def random_model(size: str, device: str) -> LanguageModel:
    """A GPT-2 of this size with random weights."""
    layers, heads, width, vocabulary = SIZES[size]
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=128,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=0,
        eos_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(config).save_pretrained(folder)
        model = LanguageModel.load(folder, device=device)
        _ = model.weights
    return model


def random_prompts(n: int, vocabulary: int) -> pl.DataFrame:
    """`n` prompts and their counterfactuals in the common form, with the role END."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocabulary, (2 * n, LENGTH), generator=generator)
    return pl.DataFrame(
        {
            "task": ["random"] * (2 * n),
            "prompt": range(2 * n),
            "pair_id": [*range(n), *range(n)],
            "variant": ["base"] * n + ["corrupt"] * n,
            "token_ids": ids.tolist(),
            "n_tokens": [LENGTH] * (2 * n),
            "roles": [["END"]] * (2 * n),
            "positions": [[LENGTH - 1]] * (2 * n),
            "answer_token_ids": ids[:, 2:3].tolist(),
            "wrong_token_ids": ids[:, 3:4].tolist(),
        }
    )


def naive_passes(model: LanguageModel, prompts: pl.DataFrame, family: str) -> list[list[Hooks]]:
    """Hooks of every intervention of a family: one list per forward pass it takes."""
    shape = model.config
    corrupt = torch.tensor(prompts.filter(variant="corrupt")["token_ids"].to_list())
    clean = torch.tensor(prompts.filter(variant="base")["token_ids"].to_list())
    _, other = model.processed.run_with_cache(corrupt.to(model.device))
    _, own = model.processed.run_with_cache(clean.to(model.device))

    def zero(head: int) -> Callable[[Tensor, Any], Tensor]:
        def hook(z: Tensor, hook: Any) -> Tensor:
            z[:, :, head] = 0.0
            return z

        return hook

    def patch(name: str) -> Callable[[Tensor, Any], Tensor]:
        def hook(value: Tensor, hook: Any) -> Tensor:
            value[:, -1] = other[name][:, -1]
            return value

        return hook

    def frozen(layer: int, head: int) -> Hooks:
        hooks: Hooks = []
        for each in range(shape.n_layers):
            name = f"blocks.{each}.attn.hook_z"
            z = own[name].clone()
            if each == layer:
                z[:, :, head] = other[name][:, :, head]
            hooks.append((name, lambda value, hook, z=z: z))
        return hooks

    layers, heads = range(shape.n_layers), range(shape.n_heads)
    if family == "head ablation":
        return [[[(f"blocks.{la}.attn.hook_z", zero(h))]] for la in layers for h in heads]
    if family == "activation patching":
        names = [
            f"blocks.{la}.hook_{site}"
            for la in layers
            for site in ("attn_out", "mlp_out", "resid_pre")
        ]
        return [[[(name, patch(name))]] for name in names]
    return [[frozen(la, h)] for la in layers for h in heads]


def planned(model: LanguageModel, family: str) -> Sequence[Planned]:
    """The same interventions for the runner."""
    shape = model.config
    if family == "head ablation":
        return head_ablations(shape.n_layers, shape.n_heads, modes=("zero",))
    if family == "activation patching":
        return patching_sweep(
            shape.n_layers,
            shape.n_heads,
            mode="noise",
            source_variant="corrupt",
            position_roles=("END",),
        )
    return path_sweep(
        shape.n_layers,
        shape.n_heads,
        receiver="logits",
        source_variant="corrupt",
        via_mlp=family.endswith("recomputed"),
    )


FAMILIES = (
    "head ablation",
    "activation patching",
    "paths to logits, MLPs frozen",
    "paths to logits, MLPs recomputed",
)


@torch.no_grad()
def measure(size: str, n: int, device: str, sample: int) -> None:
    """Print one row per family of interventions."""
    model = random_model(size, device)
    prompts = random_prompts(n, model.config.d_vocab)
    ids = torch.tensor(prompts.filter(variant="base")["token_ids"].to_list(), device=device)

    def clock() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def timed(work: Callable[[], object]) -> float:
        start = clock()
        work()
        return clock() - start

    def naive(chosen: list[Hooks], last: Hooks) -> float:
        def all_of_them() -> None:
            for hooks in chosen:
                model.processed.run_with_hooks(ids, fwd_hooks=[*hooks, *last])

        return timed(all_of_them) / len(chosen)

    for family in FAMILIES:
        interventions = planned(model, family)
        ours = timed(partial(run, model, prompts, interventions)) / len(interventions)
        passes = naive_passes(model, prompts, family)
        step = max(1, len(passes) // sample)
        chosen = [hooks for one in passes[step // 2 :: step] for hooks in one]

        whole = naive(chosen, [])
        end = naive(chosen, [("unembed.hook_in", last_position)])
        print(
            f"{size:8s} {family:34s} {len(interventions):4d} {1 / ours:9.2f} {1 / whole:9.2f} "
            f"{1 / end:9.2f} {whole / ours:7.1f} {end / ours:7.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--sample", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{arguments.prompts} prompts of {LENGTH} tokens; interventions per second")
    print(
        f"{'size':8s} {'interventions':34s}  all    runner     naive naive END   ratio  to END",
        flush=True,
    )
    for size in arguments.sizes:
        measure(size, arguments.prompts, arguments.device, arguments.sample)


if __name__ == "__main__":
    main()
