"""SAEs of every architecture beside sae-lens's: same activations, same order, same token budget.

    make peers
    .venv-peers/bin/python benchmarks/frontier.py --smoke
    .venv-peers/bin/python benchmarks/frontier.py --corpus FILE.parquet --folder FOLDER

For each layer of the embedded model and each architecture two sparsities are trained, by this
project with its defaults and by sae-lens (peer_training.py says with what), and both are evaluated
by this project's sae_evaluation on held-out tokens of the same corpus. Both have the learning rate
among --lr that reaches the lowest loss on the middle layer with a quarter of the tokens: squared
error plus the penalty, if there is one, on scaled rows (explained variance alone would favour
whatever stays dense).

Every result is a file in --folder as soon as it exists, and a file that exists is not computed
again: the run can be stopped and continued, and --table prints what is there. k fixes L0 for topk,
and nearly for batchtopk and matryoshka; where a coefficient sets it, the peer's values at our L0
are read off its points over log L0. Under an L1 penalty (standard) the learning rate moves L0 as
much as the coefficient does, at nearly the same loss: weak activations cost little, and a higher
rate clears them away. The peer is therefore trained at every rate of --lr, and read between those
of the same coefficient. Seconds are CPU time of the process, all threads; training alone, with its
rows, without evaluation.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.harvest import harvest
from mechinterp_assets.activations.rows import TensorRows
from mechinterp_assets.corpora.readers import read_documents
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.corpora.tokenize import token_matrix, tokenize_corpus
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.sae.evaluation import evaluate_layers
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.train import train

# Two sparsities each: k, or the coefficient of the sparsity loss on scaled rows.
SPARSITIES: dict[str, tuple[str, tuple[float, float]]] = {
    "topk": ("k", (8, 24)),
    "batchtopk": ("k", (8, 24)),
    "matryoshka": ("k", (8, 24)),
    "standard": ("l1_coefficient", (8.0, 3.0)),
    "gated": ("l1_coefficient", (8.0, 3.0)),
    "jumprelu": ("l0_coefficient", (3.0, 1.0)),
}
# Whose L0 the learning rate moves: the peer is read along its learning rates.
ALONG_LR = ("standard",)
PROGRAMS = ("ours", "sae-lens")
CONTEXT = 128
# How far beyond a program's two points, in log L0, its line is still read.
EXTRAPOLATED = math.log(1.5)
SHOWN = ("l0", "ce_recovered", "explained_variance", "dead_fraction")


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    layers: tuple[int, ...]
    architectures: tuple[str, ...]
    tokens: int
    held_out_sequences: int
    d_sae: int
    batch_size: int
    lrs: tuple[float, ...]


@dataclass(frozen=True)
class Data:
    """Rows to train on {layer: [n, d_z] bfloat16}, token ids held out, mean z {layer: [d_z]}."""

    rows: dict[int, Tensor]
    held_out: Tensor
    mean_z: dict[int, Tensor]


def prepare(model: LanguageModel, size: Size, corpus: Path | None, folder: Path) -> Data:
    """The activations of `size.tokens` tokens of the train split; kept in `folder`."""
    file = folder / f"activations-{size.tokens}.safetensors"
    if not file.is_file():
        ids, split = corpus_tokens(model, size, corpus)
        train_ids = ids[split == 0][: math.ceil(size.tokens / (CONTEXT - 2))]
        parts: dict[int, list[Tensor]] = {}
        for batch in harvest(model, train_ids, size.layers, dtype=torch.bfloat16):
            valid = valid_positions(batch.token_ids, model.bos_token_id)
            for layer, z in batch.z.items():
                parts.setdefault(layer, []).append(z[valid])
        tensors = {f"layer{layer}": torch.cat(part) for layer, part in parts.items()}
        held_out = ids[split == 1][: size.held_out_sequences]
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors | {"held_out": held_out.contiguous()}, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    tensors = load_file(file)
    rows = {layer: tensors[f"layer{layer}"] for layer in size.layers}
    mean_z = {layer: x.float().mean(0) for layer, x in rows.items()}
    return Data(rows, tensors["held_out"], mean_z)


def corpus_tokens(model: LanguageModel, size: Size, corpus: Path | None) -> tuple[Tensor, Tensor]:
    """Token ids [sequence, CONTEXT] and the split of each sequence: 0 train, 1 held out."""
    wanted = int(1.05 * size.tokens / 0.9) + 12 * size.held_out_sequences * CONTEXT
    sizes = {"context_size": CONTEXT, "max_tokens": wanted}
    source = (
        CorpusSettings(format="structured", documents=100_000, shuffle_buffer=0, **sizes)
        if corpus is None
        else CorpusSettings(format="parquet", path=corpus, shuffle_buffer=2_000, **sizes)
    )
    packed = tokenize_corpus(read_documents(source), model.tokenizer, source, model.bos_token_id)
    split = packed.sequences["split"].replace_strict({"train": 0, "held_out": 1})
    return torch.from_numpy(token_matrix(packed.sequences)), torch.from_numpy(split.to_numpy())


def settings_of(size: Size, architecture: str, value: float, lr: float) -> SaeSettings:
    """This project's defaults for an architecture, at one sparsity."""
    name, _ = SPARSITIES[architecture]
    own: dict[str, Any] = {name: int(value) if name == "k" else value}
    if architecture == "matryoshka":
        own["group_sizes"] = tuple(size.d_sae // share for share in (8, 4, 2, 1))
    return SaeSettings(
        architecture=architecture,
        d_sae=size.d_sae,
        training_tokens=size.tokens,
        batch_size=size.batch_size,
        compute_dtype="float32",
        learning_rate=lr,
        dead_after_tokens=max(size.tokens // 10, size.batch_size),
        **own,
    )


def measure(
    model: LanguageModel, data: Data, layer: int, program: str, settings: SaeSettings
) -> dict[str, Any]:
    """Train one SAE and evaluate it."""
    x = data.rows[layer]
    rows = TensorRows(x, seed=layer)
    with TemporaryDirectory() as folder:
        sample = x[:32_768].float()
        variance = float((sample - sample.mean(0)).square().sum(1).mean())
        scale = math.sqrt(x.shape[1] / variance)
        if program == "ours":
            started = time.process_time()
            sae = train(rows, settings).sae
        else:
            from peer_training import train_with_sae_lens

            started = time.process_time()
            sae = train_with_sae_lens(rows, settings, scale, Path(folder) / "sae")
        seconds = time.process_time() - started
    row = evaluate_layers(model, {layer: sae}, data.held_out, data.mean_z).row(0, named=True)
    del row["density_counts"]
    f = sae.encode(sample[:4096]) * sae.W_dec.norm(dim=1) * scale
    penalty = (settings.l1_coefficient or 0) * float(f.sum(1).mean())
    penalty += (settings.l0_coefficient or 0) * row["l0"]
    row["objective"] = row["fvu"] * sae.d_in + penalty
    return row | {"seconds": seconds, "tokens": settings.steps * settings.batch_size}


def best_lr(
    model: LanguageModel, data: Data, size: Size, program: str, architecture: str, folder: Path
) -> float:
    """The learning rate of --lr with the lowest loss on the middle layer."""
    if len(size.lrs) == 1:
        return size.lrs[0]
    layer = size.layers[len(size.layers) // 2]
    value = SPARSITIES[architecture][1][1]
    pilot = replace(size, tokens=size.tokens // 4)
    found = {}
    for lr in size.lrs:
        settings = settings_of(pilot, architecture, value, lr)
        key = f"pilot-{architecture}-{program}-lr{lr:g}"
        result = _kept(folder / f"{key}.json", model, data, layer, program, settings)
        found[lr] = result["objective"]
    return min(found, key=lambda lr: found[lr])


def table(results: pl.DataFrame) -> pl.DataFrame:
    """One row per layer, architecture and sparsity: ours, the peer's, the peer's at our L0."""
    keys = ["layer", "architecture", "sparsity"]
    chosen = results.filter("chosen_lr")
    ours = chosen.filter(pl.col("program") == "ours")
    peer = chosen.filter(pl.col("program") == "sae-lens")
    every_lr = results.filter(pl.col("program") == "sae-lens")
    if peer.is_empty():
        return ours.select(*keys, *SHOWN, "seconds", "lr").sort(keys)
    joined = ours.join(peer, on=keys, suffix="_peer").sort(keys)
    rows = []
    for row in joined.iter_rows(named=True):
        along_lr = row["architecture"] in ALONG_LR
        line = (
            (every_lr if along_lr else peer)
            .filter(*(pl.col(key) == row[key] for key in (keys if along_lr else keys[:2])))
            .sort("l0")
        )
        matched = {name: _at_l0(line, name, row["l0"]) for name in ("ce_recovered", EV)}
        rows.append(
            {key: row[key] for key in keys}
            | {f"{name}{end}": row[f"{name}{end}"] for name in SHOWN for end in ("", "_peer")}
            | {f"{name}_ahead": _minus(row[name], matched[name]) for name in matched}
            | {"seconds": row["seconds"], "seconds_peer": row["seconds_peer"]}
            | {"speed_up": row["seconds_peer"] / row["seconds"]}
            | {"lr": row["lr"], "lr_peer": row["lr_peer"]}
        )
    return pl.DataFrame(rows)


def summary(frame: pl.DataFrame) -> pl.DataFrame:
    """Means over layers and sparsities, per architecture."""
    return frame.group_by("architecture", maintain_order=True).agg(
        pl.len().alias("n"),
        pl.col("ce_recovered_ahead", f"{EV}_ahead").mean(),
        (pl.col(f"{EV}_ahead") >= 0).mean().alias("share_ahead"),
        pl.col("dead_fraction", "dead_fraction_peer").mean(),
        pl.col("seconds", "seconds_peer").sum(),
        (pl.col("seconds_peer").sum() / pl.col("seconds").sum()).alias("speed_up"),
    )


EV = "explained_variance"


def main() -> None:
    """Parse the command line, compute what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where results are kept; resumes from there")
    parser.add_argument("--corpus", type=Path, help="parquet with a column text; else generated")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--architectures", nargs="+", default=list(SPARSITIES), choices=SPARSITIES)
    parser.add_argument("--tokens", type=int, default=300_000, help="training tokens of an SAE")
    parser.add_argument("--held-out-sequences", type=int, default=64)
    parser.add_argument("--d-sae", type=int, default=768)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3, 3e-3, 6e-3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="one layer, little of everything")
    parser.add_argument("--table", action="store_true", help="compute nothing, print the table")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = Size(
        layers=tuple(given.layers),
        architectures=tuple(given.architectures),
        tokens=given.tokens,
        held_out_sequences=given.held_out_sequences,
        d_sae=given.d_sae,
        batch_size=given.batch_size,
        lrs=tuple(given.lr),
    )
    if given.smoke:
        size = replace(
            size, layers=(2,), tokens=30_000, held_out_sequences=8, d_sae=256, lrs=(3e-3,)
        )
    with TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not given.table:
            _run(size, given.corpus, folder)
        _print(folder)


# ---- private -------------------------------------------------------------------------------------


def _run(size: Size, corpus: Path | None, folder: Path) -> None:
    model = LanguageModel.load(ORGANISM_FOLDER)
    data = prepare(model, size, corpus, folder)
    programs = PROGRAMS if find_spec("sae_lens") else PROGRAMS[:1]
    if len(programs) == 1:
        print(
            "sae-lens is not installed here: ours alone (make peers, then .venv-peers/bin/python)"
        )
    lrs = {
        (program, architecture): best_lr(model, data, size, program, architecture, folder)
        for architecture in size.architectures
        for program in programs
    }
    for layer in size.layers:
        for architecture, value in _sparsities(size):
            for program, lr, chosen in _trainings(programs, architecture, lrs, size.lrs):
                settings = settings_of(size, architecture, value, lr)
                key = f"layer{layer}-{architecture}-{value:g}-{program}"
                key += "" if chosen else f"-lr{lr:g}"
                result = _kept(folder / f"{key}.json", model, data, layer, program, settings)
                shown = "  ".join(f"{name} {result[name]:.4f}" for name in SHOWN)
                print(f"{key:36} {shown}  CPU s {result['seconds']:.1f}", flush=True)


def _trainings(
    programs: tuple[str, ...],
    architecture: str,
    best: dict[tuple[str, str], float],
    lrs: tuple[float, ...],
) -> Iterator[tuple[str, float, bool]]:
    """Program, learning rate, and whether it is the program's best one."""
    for program in programs:
        chosen = best[program, architecture]
        yield program, chosen, True
        if program != "ours" and architecture in ALONG_LR:
            yield from ((program, lr, False) for lr in lrs if lr != chosen)


def _sparsities(size: Size) -> Iterator[tuple[str, float]]:
    for architecture in size.architectures:
        for value in SPARSITIES[architecture][1]:
            yield architecture, value


def _kept(
    file: Path,
    model: LanguageModel,
    data: Data,
    layer: int,
    program: str,
    settings: SaeSettings,
) -> dict[str, Any]:
    """The result in `file`, computed unless one of the same settings is there."""
    if file.is_file():
        result: dict[str, Any] = json.loads(file.read_text())
        if result["settings"] == settings.fingerprint() and "objective" in result:
            return result
    result = measure(model, data, layer, program, settings)
    name, _ = SPARSITIES[settings.architecture]
    result |= {
        "program": program,
        "architecture": settings.architecture,
        "sparsity": float(getattr(settings, name)),
        "lr": settings.learning_rate,
        "settings": settings.fingerprint(),
    }
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result))
    part.replace(file)
    return result


def _print(folder: Path) -> None:
    files = sorted(folder.glob("layer*.json"))
    if not files:
        raise SystemExit(f"no result in {folder} yet")
    results = pl.DataFrame(
        [json.loads(file.read_text()) | {"chosen_lr": "-lr" not in file.stem} for file in files]
    )
    frame = table(results)
    results.write_parquet(folder / "results.parquet")
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_width_chars=220, float_precision=3, tbl_formatting="MARKDOWN",
        tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True,
    ):  # fmt: skip
        text = str(frame)
        if "speed_up" in frame.columns:
            text += f"\n\n{summary(frame)}"
        print(text)
    (folder / "frontier.md").write_text(text + "\n")


def _at_l0(line: pl.DataFrame, name: str, l0: float) -> float | None:
    """Value of `name` at `l0` on the straight lines over log L0 between a program's points."""
    points = [(math.log(row["l0"]), row[name]) for row in line.iter_rows(named=True) if row["l0"]]
    if l0 <= 0 or not points or any(value is None for _, value in points):
        return None
    at = math.log(l0)
    if not points[0][0] - EXTRAPOLATED <= at <= points[-1][0] + EXTRAPOLATED:
        return None
    right = next((i for i, (x, _) in enumerate(points) if x >= at), len(points) - 1)
    (low, first), (high, second) = points[max(right - 1, 0)], points[max(right, 1) % len(points)]
    if high - low < 1e-6:
        return (first + second) / 2
    return first + (second - first) * (at - low) / (high - low)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


if __name__ == "__main__":
    main()
