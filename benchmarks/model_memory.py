"""Memory of a model and its views, in copies of its weights.

`python benchmarks/model_memory.py MODEL [--dtype bfloat16]`: one process per row loads the model's
folder and makes a view, with one forward pass of 64 tokens. Resident counts what the process holds
then, peak the most that it ever held; without the interpreter and its libraries, which a tiny model
has loaded before. Pages of safetensors files that are mapped into memory count as resident, though
the system may drop them. Linux alone.
"""

import argparse
import gc
import resource
import subprocess
import sys
from pathlib import Path

import torch

VIEWS = ("load", "raw", "raw_weights", "processed", "weights")


def resident() -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith("Rss:"))
    return int(found.split()[1]) * 1024


def measure(source: str, dtype: str, view: str) -> tuple[int, float, float]:
    """Bytes of the weights; resident and peak memory in copies of them."""
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.organism import ORGANISM_FOLDER

    torch.set_num_threads(1)
    ids = torch.arange(64)[None]
    small = LanguageModel.load(ORGANISM_FOLDER)
    with torch.no_grad():
        small.raw(ids % 8), small.processed(ids % 8), small.hf(ids % 8)
    del small
    gc.collect()
    before = resident()
    model = LanguageModel.load(source, dtype=getattr(torch, dtype))
    copy = sum(parameter.nbytes for parameter in model.hf.parameters())
    with torch.no_grad():
        if view == "load":
            model.hf(ids)
        elif view.endswith("weights"):
            weights = getattr(model, view)
            for layer in range(model.config.n_layers):
                weights.W_O[layer].sum()
            weights.W_U.sum()
        else:
            getattr(model, view)(ids)
    gc.collect()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return copy, (resident() - before) / copy, (peak - before) / copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--view", choices=VIEWS)
    given = parser.parse_args()
    if given.view is not None:
        copy, held, peak = measure(given.model, given.dtype, given.view)
        print(f"{given.view:12} {copy / 2**20:8.0f} MiB {held:10.2f} {peak:10.2f}")
        return
    print(f"{'view':12} {'one copy':>12} {'resident':>10} {'peak':>10}")
    for view in VIEWS:
        command = [sys.executable, __file__, given.model, "--dtype", given.dtype, "--view", view]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
