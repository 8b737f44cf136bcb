"""SAEs of several layers from one shared forward pass: ours, sae-lens's, and the limit.

    make peers
    .venv-peers/bin/python benchmarks/shared_forward.py [--corpus FILE.parquet]

The embedded model, TopK SAEs on z_cat of 1, 3 and 5 layers, the last among them each time, so that
the forward pass is equally long. Both programs do all of their training: forward passes, mixing,
steps, in turn, on the same token ids; neither time counts loading or saving.

- ours: ForwardRows and train_together, what a study with `source: forward` runs.
- sae-lens: MultiSAETrainingRunner on a HookedTransformer with the same weights, which is its
  default and takes less time here than a TransformerBridge, without logging or evaluation.
- limit: the trunk up to the last z, over as many rows as are trained on, and one float32 GEMM per
  step and layer (the encoder's). Our TopK step computes in float32 only what a bfloat16 GEMM leaves
  undecided, so it could pass the second part.

Equal in both: token ids to draw from, positions that count (BOS is left out), number of rows,
batch, learning rate and its schedule, rows of the buffer, sequences a forward pass. Not equal,
since each program works its own way:

- order: ours takes sequences at random and empties a buffer before it fills the next one; sae-lens
  takes them in order and keeps half of its buffer for the next mixing, harvested and partly unused;
- the buffer's dtype: bfloat16 in ours, float32 in sae-lens;
- scale: ours from E||x - mean||^2 of a sample of its first buffer, sae-lens from the mean norm of
  its first NORM_BATCHES batches, which it does not train on;
- start, aux-k loss, Adam's betas, gradient clipping: each program's defaults.

"forwarded" counts the positions that went through the model, over those trained on. Seconds are CPU
time of the process, the least of --rounds. Quality is sae_evaluation on held-out sequences.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import torch
from frontier import CONTEXT, Size, corpus_tokens, settings_of
from torch import Tensor, nn

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.forward_rows import ForwardRows
from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.evaluation import evaluate_variants
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.train import Member, train_together

NORM_BATCHES = 8  # batches that sae-lens takes the norm of; its default, 1000, is a long training
SEED = 0
OURS, SAE_LENS = "ours", "sae-lens"
SHOWN = ("l0", "explained_variance", "ce_recovered", "dead_fraction")


@dataclass(frozen=True)
class Work:
    """What is trained: layers, settings of each SAE, token ids [sequence, CONTEXT], the buffer."""

    model: LanguageModel
    ids: Tensor
    layers: tuple[int, ...]
    settings: SaeSettings
    buffer_rows: int
    forward_sequences: int


@dataclass(frozen=True)
class Run:
    """One training: CPU seconds, positions forwarded, the SAEs."""

    seconds: float
    forwarded: int
    saes: dict[int, SparseAutoencoder]


def ours(work: Work) -> Run:
    """Train with this project."""
    members = {
        f"layer {layer}": Member(layer, work.settings.with_changes(seed=layer))
        for layer in work.layers
    }
    rows = _rows(work)
    with _counted(work.model.trunk) as forwarded:
        started = time.process_time()
        results = train_together(rows, members)
        seconds = time.process_time() - started
    saes = {member.layer: results[name].sae for name, member in members.items()}
    return Run(seconds, sum(forwarded), saes)


def sae_lens(work: Work) -> Run:
    """Train with sae-lens; its SAEs are written by it and read by us, outside of the time."""
    from datasets import Dataset
    from peer_training import sae_config, schedule
    from sae_lens import MultiSAETrainingRunner, MultiSAETrainingRunnerConfig
    from sae_lens.config import LoggingConfig

    from mechinterp_assets.sae.io import load_sae

    settings = work.settings
    config = sae_config(
        settings, work.model.config.d_z, normalize_activations="expected_average_only_in"
    )
    names = {f"layer{layer}": layer for layer in work.layers}
    torch.manual_seed(SEED)
    model = _hooked_transformer(work.model)
    # It counts sequences as if they were tokens, and warns of too few.
    warnings.filterwarnings("ignore", module="sae_lens")
    runner = MultiSAETrainingRunner(
        MultiSAETrainingRunnerConfig(
            saes={name: replace(config) for name in names},
            hook_names={name: f"blocks.{layer}.attn.hook_z" for name, layer in names.items()},
            context_size=CONTEXT,
            n_batches_in_buffer=work.buffer_rows // CONTEXT,
            store_batch_size_prompts=work.forward_sequences,
            training_tokens=settings.steps * settings.batch_size,
            train_batch_size_tokens=settings.batch_size,
            n_batches_for_norm_estimate=NORM_BATCHES,
            exclude_special_tokens=[work.model.bos_token_id],
            logger=LoggingConfig(log_to_wandb=False),
            checkpoint_path=None,
            output_path=None,
            seed=SEED,
            **schedule(settings),
        ),
        override_dataset=Dataset.from_dict({"tokens": work.ids.tolist()}),
        override_model=model,
    )
    with _counted(model) as forwarded:
        started = time.process_time()
        trained = runner.run()
        seconds = time.process_time() - started
    saes = {}
    with TemporaryDirectory() as folder:
        for name, layer in names.items():
            trained[name].save_inference_model(Path(folder) / name)
            saes[layer] = load_sae(Path(folder) / name)
    return Run(seconds, sum(forwarded), saes)


@torch.no_grad()
def limit(work: Work) -> tuple[float, float]:
    """CPU seconds of the trunk up to the last z, and of the encoder's GEMMs of one layer."""
    settings = work.settings
    n = settings.steps * settings.batch_size
    per_sequence = float(valid_positions(work.ids, work.model.bos_token_id).sum(1).float().mean())
    ids = work.ids[: math.ceil(n / per_sequence)]
    last = [max(work.layers)]
    started = time.process_time()
    for batch in ids.long().split(work.forward_sequences):
        capture_z(work.model, batch, last)
    trunk = time.process_time() - started
    x = torch.randn(settings.batch_size, work.model.config.d_z)
    encoder = torch.randn(settings.d_sae, x.shape[1])
    pre = torch.empty(len(x), len(encoder))
    started = time.process_time()
    for _ in range(settings.steps):
        torch.mm(x, encoder.T, out=pre)
    return trunk, time.process_time() - started


def quality(work: Work, held_out: Tensor, runs: dict[str, Run]) -> pl.DataFrame:
    """sae_evaluation of both programs' SAEs: a row per layer and program."""
    rows = _rows(work)
    mean_z = {layer: rows.sample(layer, rows.n_rows, SEED).mean(0) for layer in work.layers}
    saes = {
        layer: {program: run.saes[layer] for program, run in runs.items()} for layer in work.layers
    }
    frame = evaluate_variants(work.model, saes, held_out, mean_z)
    return frame.select("layer", pl.col("name").alias("program"), *SHOWN)


def speed(
    work: Work, counts: Sequence[int], rounds: int, programs: dict[str, Callable[[Work], Run]]
) -> tuple[pl.DataFrame, dict[str, Run]]:
    """A row per number of layers, and the runs over the most layers."""
    n = work.settings.steps * work.settings.batch_size
    runs: dict[tuple[int, str], list[Run]] = {}
    limits = []
    for _ in range(rounds):
        limits.append(limit(work))
        for count in counts:
            for name, train in programs.items():
                chosen = replace(work, layers=_spread(work.layers, count))
                runs.setdefault((count, name), []).append(train(chosen))
    trunk, gemms = (min(values) for values in zip(*limits, strict=True))
    print(f"limit: trunk {trunk:.2f} s, encoder GEMMs {gemms:.2f} s per layer\n")
    rows = []
    for count in counts:
        bound = trunk + count * gemms
        least = {name: min(run.seconds for run in runs[count, name]) for name in programs}
        row: dict[str, Any] = {"layers": count, "limit s": bound}
        row |= {f"{name} s": seconds for name, seconds in least.items()}
        if SAE_LENS in programs:
            row["ratio"] = least[SAE_LENS] / least[OURS]
        row |= {f"{name} tokens/s": round(n / seconds) for name, seconds in least.items()}
        row |= {f"{name} share of limit": bound / seconds for name, seconds in least.items()}
        row |= {f"{name} forwarded": runs[count, name][0].forwarded / n for name in programs}
        rows.append(row)
    return pl.DataFrame(rows), {name: runs[max(counts), name][0] for name in programs}


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, help="parquet with a column text; else generated")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 3, 5], help="of layers")
    parser.add_argument("--tokens", type=int, default=90_000, help="rows each SAE is trained on")
    parser.add_argument("--held-out-sequences", type=int, default=64)
    parser.add_argument("--d-sae", type=int, default=768)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--buffer-rows", type=int, default=16_384)
    parser.add_argument("--forward-sequences", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    model = LanguageModel.load(ORGANISM_FOLDER)
    all_layers = tuple(range(model.config.n_layers))
    most = len(all_layers)
    if not all(1 <= count <= most for count in a.counts):
        parser.error(f"--counts {a.counts}: the model has {most} layers; give 1 to {most}")
    size = Size(
        layers=_spread(all_layers, max(a.counts)),
        architectures=("topk",),
        tokens=a.tokens,
        held_out_sequences=a.held_out_sequences,
        d_sae=a.d_sae,
        batch_size=a.batch_size,
        lrs=(a.lr,),
    )
    # What either reads beyond what it trains on must not start a second pass: a buffer, the norm's
    # batches; and a tenth for positions that do not count.
    needed = a.tokens + a.buffer_rows + NORM_BATCHES * a.batch_size
    enough = replace(size, tokens=math.ceil(1.1 * needed))
    ids, split = corpus_tokens(model, enough, a.corpus)
    train_ids = ids[split == 0]
    found = int(valid_positions(train_ids, model.bos_token_id).sum())
    if found < needed:
        parser.error(
            f"the corpus has {found} rows to train on, {needed} are needed: lower --tokens"
        )
    work = Work(
        model,
        train_ids,
        size.layers,
        settings_of(size, "topk", a.k, a.lr),
        a.buffer_rows,
        a.forward_sequences,
    )
    programs: dict[str, Callable[[Work], Run]] = {OURS: ours}
    if find_spec("sae_lens"):
        programs[SAE_LENS] = sae_lens
    else:
        print("sae-lens is not installed here: make peers, then .venv-peers/bin/python")
    print(
        f"{work.settings.steps} steps of {a.batch_size} rows, d_in {model.config.d_z}, d_sae "
        f"{a.d_sae}, k {a.k}, lr {a.lr:g}, {a.threads} threads, torch {torch.__version__}"
    )
    table, runs = speed(work, a.counts, a.rounds, programs)
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_width_chars=220, float_precision=3, tbl_formatting="MARKDOWN",
        tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True,
    ):  # fmt: skip
        print(f"{table}\n")
        print(quality(work, ids[split == 1][: a.held_out_sequences], runs))


# ---- private -------------------------------------------------------------------------------------


def _rows(work: Work) -> ForwardRows:
    return ForwardRows(
        work.model,
        work.ids,
        work.layers,
        seed=SEED,
        buffer_rows=work.buffer_rows,
        batch_size=work.forward_sequences,
    )


def _spread(layers: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` of the layers, evenly apart, the last among them."""
    return tuple(layers[(i + 1) * len(layers) // count - 1] for i in range(count))


@contextmanager
def _counted(module: nn.Module) -> Iterator[list[int]]:
    """Positions of each forward pass of a model within the block."""
    counts: list[int] = []

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        counts.append(ids.numel())

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield counts
    finally:
        handle.remove()


def _hooked_transformer(model: LanguageModel) -> nn.Module:
    """transformer_lens's own model with our model's raw weights."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    shape = model.config
    config = HookedTransformerConfig(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_ctx=shape.n_ctx,
        d_head=shape.d_head,
        n_heads=shape.n_heads,
        d_mlp=shape.d_mlp,
        d_vocab=shape.d_vocab,
        act_fn=model.hf.config.activation_function,
        normalization_type=shape.normalization,
        eps=shape.eps,
        original_architecture="GPT2LMHeadModel",
        device="cpu",
    )
    # Its constructor says that it is deprecated; the runner's default makes the same model.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    hooked = HookedTransformer(config, tokenizer=model.tokenizer)
    hooked.load_state_dict(convert_gpt2_weights(model.hf, config), strict=False)
    return hooked.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
