"""Harvest of z at all layers: ours, transformer_lens's run_with_cache, and the bare forward pass.

    python benchmarks/harvest.py [--rounds 5] [--threads 2]

Three sizes of GPT-2 with random weights. All rows are timed in turn, round by round, on the same
token ids; each prints its least CPU seconds (all threads together):

- harvest: activations.harvest over all layers, z kept as computed.
- bare forward: the Hugging Face trunk alone (SDPA, no logits, no hooks): the limit. It runs the
  last layer's output projection and MLP, which the harvest leaves out, so a share above 1 is
  possible; "forward to the last z" is the same pass cut off where the harvest ends, by one hook.
- run_with_cache: TransformerBridge with a filter on hook_z, logits included (its default).
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.activations.harvest import harvest
from mechinterp_assets.model.language_model import LanguageModel

SIZES = [(2, 128, 4), (4, 256, 8), (6, 512, 8)]  # layers, d_model, heads


class _EndError(Exception):
    """Ends a forward pass."""


def random_model(layers: int, d_model: int, heads: int, a: argparse.Namespace) -> LanguageModel:
    """A GPT-2 with random weights, loaded the way every model is."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=a.vocabulary,
        n_positions=a.context,
        n_embd=d_model,
        n_layer=layers,
        n_head=heads,
        bos_token_id=0,
        eos_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(config).save_pretrained(folder)
        return LanguageModel.load(folder)


def works(model: LanguageModel, ids: Tensor, batch: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name of its row."""
    batches = torch.split(ids, batch)

    def ours() -> None:
        for _ in harvest(model, ids, batch_size=batch):
            pass

    def bare() -> None:
        for here in batches:
            model.trunk(input_ids=here, use_cache=False)

    def stop(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        raise _EndError

    def cut() -> None:
        last = model.output_projection(model.config.n_layers - 1)
        handle = last.register_forward_pre_hook(stop)
        for here in batches:
            try:
                model.trunk(input_ids=here, use_cache=False)
            except _EndError:
                continue
        handle.remove()

    bridge = model.raw

    def peer() -> None:
        for here in batches:
            bridge.run_with_cache(here, names_filter=lambda name: name.endswith("attn.hook_z"))

    return {
        "harvest": ours,
        "bare forward": bare,
        "forward to the last z": cut,
        "run_with_cache": peer,
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=5000)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    ids = torch.randint(1, a.vocabulary, (a.sequences, a.context))
    print(f"{ids.numel()} tokens in batches of {a.batch} x {a.context}, {a.threads} threads")
    for layers, d_model, heads in SIZES:
        rows = works(random_model(layers, d_model, heads, a), ids, a.batch)
        least = dict.fromkeys(rows, float("inf"))
        for work in rows.values():
            work()
        for _ in range(a.rounds):
            for name, work in rows.items():
                start = time.process_time()
                work()
                least[name] = min(least[name], time.process_time() - start)
        print(f"\n{layers} layers of {d_model}          CPU ms   tokens/s  harvest is   share")
        for name, seconds in least.items():
            print(
                f"  {name:22} {seconds * 1e3:9.0f} {ids.numel() / seconds:10,.0f}"
                f" {seconds / least['harvest']:9.2f} x {least['bare forward'] / seconds:8.2f}"
            )
    print("\nshare: CPU time of the bare forward pass / CPU time of the row")


if __name__ == "__main__":
    main()
