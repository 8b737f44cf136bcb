"""The feature pass: ours, SAEDashboard's runner, and one pass of encoder GEMMs, over three widths.

    python benchmarks/feature_pass.py [--architecture standard] [--widths 1024 4096 24576]

Ours makes every table that overlaps with what the runner makes for the same SAE and tokens, with
its default numbers of examples: statistics and densities, 20 top examples, 10 intervals of 5 random
examples, top and bottom logit effects, correlated features and decoder cosines; beside these ours
hands over every activation, and its correlations go over the whole SAE, while the peer's stay
within a batch of features. Direct feature attribution is left out on both sides.

The peer is timed on `--peer-features` features with its model activations cached on disk (its
fastest route: it then runs no model), after one such run that fills the cache, and scaled to the
width: its batches of features do not depend on each other. It is timed where sae_dashboard can be
imported, which wants other versions than this project: run the file in an environment of its own,
with this project on PYTHONPATH. Times are CPU seconds of all threads, or wall seconds on a GPU,
where the peer is not timed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.activations.cache import Batch, valid_positions
from mechinterp_assets.attribution.activation_stream import TokenGrid
from mechinterp_assets.attribution.feature_pass import feature_pass
from mechinterp_assets.attribution.intervals import interval_tables
from mechinterp_assets.attribution.logit_effects import feature_logit_effects
from mechinterp_assets.attribution.neighbours import feature_neighbours
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.io import SaeMetadata, save_sae

HEADS, D_HEAD, CONTEXT, VOCABULARY, BOS = 12, 64, 128, 5000, 0
D_IN = HEADS * D_HEAD
WORKSPACE_BYTES = 256 * 2**20


def random_sae(architecture: str, z: Tensor, d_sae: int, k: int) -> SparseAutoencoder:
    """Random directions; about k features active at a token."""
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(d_sae, D_IN, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    encoder, b_dec = decoder.T.contiguous(), z.mean(0)
    if architecture == "topk":
        return TopKSAE(encoder, torch.zeros(d_sae), decoder, b_dec, k=k)
    pre = (z[torch.randperm(len(z), generator=generator)[:256]] - b_dec) @ encoder
    threshold = pre.flatten().topk(256 * k).values[-1]
    return StandardSAE(encoder, torch.full((d_sae,), -float(threshold)), decoder, b_dec)


def encode_gemms(sae: SparseAutoencoder, batches: list[Batch]) -> None:
    """The limit: pre-activations of every valid token, in blocks of the pass's size."""
    rows = max(1, WORKSPACE_BYTES // (4 * sae.d_sae))
    for batch in batches:
        x = batch.z[batch.valid]
        for part in x.split(rows):
            sae.pre_activations(part.to(sae.W_enc.device))


class Ours:
    """Every table of the overlap; `seconds` by part."""

    def __init__(self, batches: list[Batch], W_O: Tensor, W_U: Tensor) -> None:
        self.batches, self.W_O, self.W_U = batches, W_O, W_U
        self.strings = [f"t{i}" for i in range(VOCABULARY)]
        self.seconds: dict[str, float] = {}

    def _part(self, name: str, work: Callable[[], Any], device: torch.device) -> Any:
        result, self.seconds[name] = timed(work, device)
        return result

    def run(self, sae: SparseAutoencoder) -> float:
        """Seconds in all."""
        device, frames = sae.W_enc.device, []
        result = self._part(
            "pass",
            lambda: feature_pass(
                self.batches, sae, on_activations=frames.append, workspace_bytes=WORKSPACE_BYTES
            ),
            device,
        )

        def tables() -> None:
            result.statistics(sae)
            result.top_examples(self.strings)
            stream = [pl.concat(frames).sort("feature", maintain_order=True)]
            interval_tables(stream, result.max_activation, n_top=0, n_random=5)

        def neighbours() -> None:
            stream = [pl.concat(frames).sort("feature", maintain_order=True)]
            sequences = torch.cat([b.sequence for b in self.batches])
            ids = torch.cat([b.token_ids for b in self.batches])
            valid = torch.cat([b.valid for b in self.batches])
            grid = TokenGrid.of(sequences, ids, valid, result.n_tokens)
            feature_neighbours(stream, grid, sae.W_dec, top=3)

        def effects() -> None:
            feature_logit_effects(sae.W_dec, self.W_O, self.W_U, self.strings, k=10)

        self._part("tables", tables, device)
        self._part("neighbours", neighbours, device)
        self._part("logit effects", effects, device)
        self.l0 = float(result.n_active.sum()) / result.n_tokens
        return sum(self.seconds.values())


class Peer:
    """SAEDashboard's runner on a one-layer transformer whose z both sides read."""

    def __init__(self, token_ids: Tensor, folder: Path) -> None:
        lens: Any = import_module("transformer_lens")
        self.sae_lens: Any = import_module("sae_lens")
        self.runner: Any = import_module("sae_dashboard.sae_vis_runner")
        self.config: Any = import_module("sae_dashboard.sae_vis_data").SaeVisConfig
        config = lens.HookedTransformerConfig(
            n_layers=1,
            d_model=D_IN,
            n_ctx=CONTEXT,
            d_head=D_HEAD,
            n_heads=HEADS,
            d_vocab=VOCABULARY,
            attn_only=True,
            seed=0,
        )
        self.model = self.sae_lens.HookedSAETransformer(config)
        self.token_ids, self.folder = token_ids, folder

    def z(self) -> Tensor:
        """z_cat [sequence, position, d_in]."""
        hook = "blocks.0.attn.hook_z"
        with torch.no_grad():
            _, cache = self.model.run_with_cache(self.token_ids, names_filter=hook)
        z: Tensor = cache[hook].flatten(-2)
        return z

    def run(self, sae: SparseAutoencoder, features: int, at_once: int) -> float:
        """Seconds for some features of the SAE."""
        folder = self.folder / f"{sae.architecture}-{sae.d_sae}"
        if not folder.exists():
            metadata = SaeMetadata(
                model_name="random",
                layer=0,
                n_heads=HEADS,
                d_head=D_HEAD,
                context_size=CONTEXT,
                weights_hash=None,
                tokenizer_hash=None,
            )
            save_sae(folder, sae, metadata)
        encoder = self.sae_lens.SAE.load_from_disk(str(folder))
        if sae.architecture == "topk":
            # The runner takes no other TopK SAE; with unit decoder rows the function is the same.
            encoder.cfg.rescale_acts_by_decoder_norm = True
        config = self.config(
            hook_point="blocks.0.attn.hook_z",
            features=list(range(features)),
            minibatch_size_features=at_once,
            ignore_positions=[0],
            cache_dir=self.folder / "activations",
        )
        work = self.runner.SaeVisRunner(config).run
        return timed(lambda: work(encoder, self.model, self.token_ids), encoder.device)[1]


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Result and CPU seconds (wall seconds on a GPU) of one call."""
    if torch.device(device).type == "cpu":
        start = time.process_time()
        return work(), time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", choices=["standard", "topk"], default="standard")
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 4096, 24576])
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--peer-features", type=int, default=512)
    parser.add_argument("--peer-batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(1, VOCABULARY, (a.sequences, CONTEXT), generator=generator)
    token_ids[:, 0] = BOS
    folder = tempfile.TemporaryDirectory()
    peer = None
    try:
        peer = Peer(token_ids, Path(folder.name)) if a.device == "cpu" else None
    except ImportError as error:
        print(f"SAEDashboard is not timed: {error}")
    if peer is not None:
        z = peer.z()
    else:
        z = torch.randn(a.sequences, CONTEXT, D_IN, generator=generator)
    valid = valid_positions(token_ids, BOS)
    batches = [
        Batch(torch.arange(i, min(i + 256, a.sequences)), ids, z[i : i + 256], valid[i : i + 256])
        for i, ids in zip(range(0, a.sequences, 256), token_ids.split(256), strict=True)
    ]
    W_O = torch.randn(HEADS, D_HEAD, D_IN, generator=generator).to(a.device)
    W_U = torch.randn(D_IN, VOCABULARY, generator=generator).to(a.device)
    print(
        f"{a.architecture}, d_in {D_IN}, {int(valid.sum())} tokens, L0 about {a.k}, {a.device}, "
        f"{a.threads} threads; seconds"
    )
    print(
        "d_sae      ours  (pass tables neighbours logits)   pass's limit   limit / pass"
        "   SAEDashboard   ratio"
    )
    for d_sae in a.widths:
        sae = random_sae(a.architecture, z[valid], d_sae, a.k).to(a.device)
        ours = Ours(batches, W_O, W_U)
        ours.run(random_sae(a.architecture, z[valid], 256, a.k).to(a.device))  # warms up
        limit = timed(partial(encode_gemms, sae, batches), sae.W_enc.device)[1]
        total = ours.run(sae)
        parts = " ".join(f"{seconds:.1f}" for seconds in ours.seconds.values())
        line = f"{d_sae:6d} {total:8.1f}  ({parts})".ljust(50)
        line += f"{limit:13.1f} {limit / ours.seconds['pass']:14.2f}"
        if peer is not None:
            features = min(a.peer_features, d_sae)
            peer.run(sae, min(8, features), 8)  # fills the cache of model activations
            seconds = peer.run(sae, features, a.peer_batch) * d_sae / features
            scaled = "" if features == d_sae else f" (from {features} features)"
            line += f" {seconds:14.1f} {seconds / total:7.1f} x{scaled}"
        print(line, flush=True)
    folder.cleanup()


if __name__ == "__main__":
    main()
