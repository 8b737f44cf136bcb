"""Stored activations of one layer: shards of z with their token ids, written and read.

Belongs here: which positions count (valid_positions), the shard format, the writer that fills every
layer's folder from one forward pass, and the reader. Does not belong here: where folders live and
how they are published (resources/tensors.py), or the order in which training sees rows (rows.py).

A folder holds
  shard-00000.safetensors ...  z [sequence, position, n_heads * d_head] and token_ids
                               [sequence, position] int32; bf16 or fp16 (fp32 on request)
  statistics.safetensors       float64 running statistics (statistics.py)
  outliers.safetensors         place [n, 2] int64, sequence and position of what a limit on ||z||
                               leaves out; where the study has one
  activations.json             sizes, fingerprints and the list of shards; written last
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from mechinterp_assets.activations.harvest import harvest
from mechinterp_assets.activations.outliers import row_norms
from mechinterp_assets.activations.statistics import ZStatistics
from mechinterp_assets.files.sha256 import file_sha256
from mechinterp_assets.model.language_model import LanguageModel

FORMAT = 2
OUTLIERS = "outliers.safetensors"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class ActivationCacheError(ValueError):
    """An activation cache that cannot be written or read; the message names it and the remedy."""


@dataclass(frozen=True)
class Batch:
    """Activations of one layer for some sequences.

    sequence [batch] int64 (index in the corpus); token_ids [batch, position] int64; z
    [batch, position, d_z] float32, raw z_cat; valid [batch, position] bool.
    """

    sequence: Tensor
    token_ids: Tensor
    z: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Shard:
    """One file of an activation cache: a row of the table activation_cache."""

    shard: int
    path: str
    first_sequence: int
    n_sequences: int
    n_tokens: int
    dtype: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CacheTables:
    """Frames of one layer's cache: tables activation_cache, activation_statistics and
    activation_outliers."""

    cache: pl.DataFrame
    statistics: pl.DataFrame
    outliers: pl.DataFrame


def valid_positions(token_ids: Tensor, left_out: int | Sequence[int]) -> Tensor:
    """Positions that count [batch, position] bool: not position 0, and none of the ids `left_out`.

    These are BOS and what the study leaves out beside it (LanguageModel.left_out_ids). GPT-2's BOS
    equals its EOS, so document ends inside a sequence are left out too. Position 0 is left out
    without BOS as well: it attends to itself alone. The same mask holds for training, statistics
    and examples, in numerators and denominators.
    """
    ids = [left_out] if isinstance(left_out, int) else left_out
    valid = token_ids != ids[0]
    for token_id in ids[1:]:
        valid &= token_ids != token_id
    valid[..., 0] = False
    return valid


# ---- writing -------------------------------------------------------------------------------------


class ShardWriter:
    """Fills one layer's folder, one shard of sequences at a time, from batches in order."""

    def __init__(
        self,
        folder: Path,
        *,
        layer: int,
        context: int,
        d_z: int,
        dtype: torch.dtype,
        sequences_per_shard: int,
        first_sequence: int = 0,
    ) -> None:
        if dtype not in DTYPES.values():
            raise ActivationCacheError(f"cache dtype {dtype} is not one of {sorted(DTYPES)}")
        if folder.exists() and any(folder.iterdir()):
            raise ActivationCacheError(f"{folder} is not empty; give an empty folder to write into")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.layer, self.dtype = folder, layer, dtype
        self._z = torch.empty(sequences_per_shard, context, d_z, dtype=dtype)
        self._ids = torch.empty(sequences_per_shard, context, dtype=torch.int32)
        self._counted = torch.empty(sequences_per_shard, context, dtype=torch.bool)
        self._filled = 0
        self._next_sequence = first_sequence
        self.shards: list[Shard] = []

    def append(self, token_ids: Tensor, z: Tensor, counted: Tensor) -> None:
        """Add sequences: token_ids [batch, position], z [batch, position, d_z], on any device, and
        which positions count [batch, position] bool.
        """
        start = 0
        while start < len(z):
            n = min(len(z) - start, len(self._z) - self._filled)
            here = slice(self._filled, self._filled + n)
            self._z[here].copy_(z[start : start + n])
            self._ids[here].copy_(token_ids[start : start + n])
            self._counted[here].copy_(counted[start : start + n])
            self._filled += n
            start += n
            if self._filled == len(self._z):
                self._flush()

    def _flush(self) -> None:
        n = self._filled
        if n == 0:
            return
        z, ids = self._z[:n], self._ids[:n]
        if not torch.isfinite(z).all():
            raise ActivationCacheError(
                f"z of layer {self.layer} is not finite in {self.dtype} within sequences "
                f"{self._next_sequence}..{self._next_sequence + n - 1}; use bfloat16 if fp16 "
                "overflows, else look for NaN in the model's weights"
            )
        path = self.folder / f"shard-{len(self.shards):05d}.safetensors"
        save_file({"z": z, "token_ids": ids}, path)
        self.shards.append(
            Shard(
                shard=len(self.shards),
                path=path.name,
                first_sequence=self._next_sequence,
                n_sequences=n,
                n_tokens=int(self._counted[:n].sum()),
                dtype=str(self.dtype).removeprefix("torch."),
                bytes=path.stat().st_size,
                sha256=file_sha256(path),
            )
        )
        self._next_sequence += n
        self._filled = 0

    def close(self) -> list[Shard]:
        """Write what is left and return every shard."""
        self._flush()
        return self.shards


def write_shards(
    model: LanguageModel,
    token_ids: Tensor,
    folders: Mapping[int, Path],
    *,
    dtype: torch.dtype = torch.bfloat16,
    sequences_per_shard: int = 256,
    batch_size: int = 32,
    first_sequence: int = 0,
    statistics_from: Tensor | None = None,
    norm_limits: Mapping[int, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, CacheTables]:
    """Write z of the layers named by `folders` ({layer: empty folder}) from one forward pass.

    token_ids [sequence, position], whose first sequence has index first_sequence in the corpus.
    statistics_from [sequence] bool: the sequences that the running statistics are taken over (the
    train split; default all). norm_limits {layer: largest ||z_cat|| that counts}: longer ones are
    stored, and left out of what counts (activations/norm_limits.py). progress(sequences done,
    sequences in all) after each batch.
    Returns {layer: frames without study and layer-provenance columns}; paths in the frames are
    file names within the folder.
    """
    n, context = token_ids.shape
    d_z = model.config.d_z
    if statistics_from is None:
        statistics_from = torch.ones(n, dtype=torch.bool)
    if statistics_from.shape != (n,) or not statistics_from.any():
        raise ActivationCacheError(
            f"statistics_from has shape {tuple(statistics_from.shape)} and "
            f"{int(statistics_from.sum())} true entries for {n} sequences; give one flag a sequence"
        )
    writers = {
        layer: ShardWriter(
            folder,
            layer=layer,
            context=context,
            d_z=d_z,
            dtype=dtype,
            sequences_per_shard=min(sequences_per_shard, n),
            first_sequence=first_sequence,
        )
        for layer, folder in folders.items()
    }
    statistics = {
        layer: ZStatistics(model.config.n_heads, model.config.d_head) for layer in folders
    }
    limits = norm_limits or {}
    outliers = {layer: [pl.DataFrame(schema=_OUTLIER_SCHEMA)] for layer in folders}
    with tqdm(total=n, desc="harvest z", unit="sequence", disable=None) as bar:
        for batch in harvest(model, token_ids, list(folders), batch_size=batch_size):
            ids = batch.token_ids
            valid = valid_positions(ids, model.left_out_ids)
            learned = statistics_from[batch.first : batch.first + len(ids), None]
            for layer, z in batch.z.items():
                counted = valid
                if (limit := limits.get(layer)) is not None:
                    norms = row_norms(z).cpu()
                    outlier = valid & (norms > limit)
                    counted = valid & ~outlier
                    outliers[layer].append(
                        _outlier_frame(outlier, ids, norms, first_sequence + batch.first)
                    )
                writers[layer].append(ids, z, counted)
                statistics[layer].add(z[(counted & learned).to(z.device)])
            bar.update(len(ids))
            if progress is not None:
                progress(batch.first + len(ids), n)
    tables = {}
    for layer, writer in writers.items():
        shards = writer.close()
        save_file(statistics[layer].tensors(), writer.folder / "statistics.safetensors")
        _write_json(
            writer.folder / "activations.json",
            {
                "format": FORMAT,
                "layer": layer,
                "hook_name": f"blocks.{layer}.attn.hook_z",
                "n_heads": model.config.n_heads,
                "d_head": model.config.d_head,
                "context": context,
                "n_sequences": n,
                "left_out_ids": list(model.left_out_ids),
                "norm_limit": limits.get(layer),
                "weights_hash": model.weights_hash,
                "tokenizer_hash": model.tokenizer_hash,
                "shards": [asdict(shard) for shard in shards],
            },
        )
        left_out = pl.concat(outliers[layer])
        place = left_out.select(pl.col("sequence", "position").cast(pl.Int64)).to_torch()
        if layer in limits:
            save_file({"place": place.contiguous()}, writer.folder / OUTLIERS)
        n_outliers = int(statistics_from[place[:, 0] - first_sequence].sum())
        of_heads = (
            statistics[layer]
            .frame()
            .select(
                "head",
                "n_tokens",
                pl.lit(limits.get(layer), pl.Float64).alias("norm_limit"),
                pl.lit(n_outliers, pl.Int64).alias("n_outliers"),
                pl.exclude("head", "n_tokens"),
            )
        )
        tables[layer] = CacheTables(
            _with_layer(layer, _shard_frame(shards)),
            _with_layer(layer, of_heads),
            _with_layer(layer, left_out),
        )
    return tables


# ---- reading -------------------------------------------------------------------------------------


class ActivationReader:
    """Memory-mapped activations of one layer.

    keep [n_sequences] bool restricts every method to some sequences (the train split, say).
    Raises ActivationCacheError for a folder that is not a complete cache.
    """

    def __init__(self, folder: Path, keep: Tensor | None = None) -> None:
        manifest = folder / "activations.json"
        if not manifest.is_file():
            raise ActivationCacheError(
                f"{folder} has no activations.json, so it is no complete activation cache; "
                "materialize activation_cache again"
            )
        info = json.loads(manifest.read_text())
        if info.get("format") != FORMAT:
            raise ActivationCacheError(
                f"{manifest} has format {info.get('format')!r}, this version reads {FORMAT}; "
                "materialize activation_cache again"
            )
        self.folder = folder
        self.layer = int(info["layer"])
        self.n_heads, self.d_head = int(info["n_heads"]), int(info["d_head"])
        self.d_z = self.n_heads * self.d_head
        self.context = int(info["context"])
        self.n_sequences = int(info["n_sequences"])
        self.left_out_ids = tuple(int(i) for i in info["left_out_ids"])
        self.weights_hash = str(info["weights_hash"])
        self.tokenizer_hash = str(info["tokenizer_hash"])
        self.shards = [Shard(**shard) for shard in info["shards"]]
        self.content_hash = hashlib.sha256(
            "".join(shard.sha256 for shard in self.shards).encode()
        ).hexdigest()[:16]
        if keep is None:
            keep = torch.ones(self.n_sequences, dtype=torch.bool)
        if keep.shape != (self.n_sequences,):
            raise ActivationCacheError(
                f"keep has shape {tuple(keep.shape)}, but {folder} has {self.n_sequences} sequences"
            )
        self.keep = keep
        self._z: list[Tensor] = []
        ids = []
        for shard in self.shards:
            z, token_ids = self._open(shard)
            self._z.append(z)
            ids.append(token_ids)
        self.token_ids = torch.cat(ids)
        self.valid = valid_positions(self.token_ids, self.left_out_ids) & keep[:, None]
        if info["norm_limit"] is not None:
            place = load_file(folder / OUTLIERS)["place"]
            self.valid[place[:, 0] - self.first_sequence, place[:, 1]] = False
        starts = [shard.first_sequence - self.shards[0].first_sequence for shard in self.shards]
        self._starts = [*starts, self.n_sequences]

    def _open(self, shard: Shard) -> tuple[Tensor, Tensor]:
        path = self.folder / shard.path
        try:
            if path.stat().st_size != shard.bytes:
                raise OSError(f"{path.stat().st_size} bytes where {shard.bytes} were written")
            with safe_open(path, framework="pt") as file:
                z, token_ids = file.get_tensor("z"), file.get_tensor("token_ids")
        except Exception as error:
            raise ActivationCacheError(
                f"shard {path} cannot be read ({error}); materialize activation_cache again"
            ) from error
        expected = (shard.n_sequences, self.context, self.d_z)
        if tuple(z.shape) != expected or str(z.dtype) != f"torch.{shard.dtype}":
            raise ActivationCacheError(
                f"shard {path} holds z {z.dtype} {tuple(z.shape)}, expected {shard.dtype} "
                f"{expected}; materialize activation_cache again"
            )
        return z, token_ids

    @property
    def first_sequence(self) -> int:
        """Index in the corpus of the first stored sequence."""
        return self.shards[0].first_sequence

    @property
    def n_rows(self) -> int:
        """Valid positions of the kept sequences."""
        return int(self.valid.sum())

    @property
    def mean_z(self) -> Tensor:
        """Mean z over the statistics' positions [d_z] float32."""
        mean: Tensor = load_file(self.folder / "statistics.safetensors")["mean_z"]
        return mean.flatten().float()

    def spans(self, n_sequences: int) -> list[range]:
        """Ranges of at most n_sequences consecutive stored sequences, none across two shards."""
        spans = []
        for first, end in zip(self._starts[:-1], self._starts[1:], strict=True):
            spans += [range(a, min(a + n_sequences, end)) for a in range(first, end, n_sequences)]
        return spans

    def stored_z(self, span: range) -> Tensor:
        """z of one span [sequence, position, d_z], memory-mapped, in the stored dtype."""
        shard = int(np.searchsorted(self._starts, span.start, side="right")) - 1
        offset = self._starts[shard]
        return self._z[shard][span.start - offset : span.stop - offset]

    def batches(self, size: int) -> Iterator[Batch]:
        """Kept sequences in corpus order, at most `size` a batch (fewer where a shard ends)."""
        for span in self.spans(size):
            kept = self.keep[span.start : span.stop]
            if not kept.any():
                continue
            rows = torch.arange(span.start, span.stop)[kept]
            yield Batch(
                sequence=rows + self.first_sequence,
                token_ids=self.token_ids[rows].long(),
                z=self.stored_z(span)[kept].float(),
                valid=self.valid[rows],
            )

    def sample_rows(self, n: int, seed: int) -> Tensor:
        """n valid rows drawn uniformly without replacement [n, d_z] float32 (all if fewer)."""
        per_sequence = self.valid.sum(1)
        ends = per_sequence.cumsum(0)
        total = int(ends[-1])
        drawn = np.random.default_rng(seed).choice(total, min(n, total), replace=False)
        flat = torch.from_numpy(np.sort(drawn))
        sequence = torch.searchsorted(ends, flat, right=True)
        nth = flat - (ends - per_sequence)[sequence]
        # position of the nth valid token of its sequence
        position = torch.searchsorted(self.valid[sequence].cumsum(1), (nth + 1)[:, None]).squeeze(1)
        rows = torch.empty(len(flat), self.d_z)
        for shard, z in enumerate(self._z):
            here = (sequence >= self._starts[shard]) & (sequence < self._starts[shard + 1])
            rows[here] = z[sequence[here] - self._starts[shard], position[here]].float()
        return rows


# ---- private -------------------------------------------------------------------------------------


def _with_layer(layer: int, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.lit(layer, pl.Int32).alias("layer"), pl.all())


def _shard_frame(shards: list[Shard]) -> pl.DataFrame:
    schema = {
        "shard": pl.Int32,
        "path": pl.String,
        "first_sequence": pl.Int64,
        "n_sequences": pl.Int64,
        "n_tokens": pl.Int64,
        "dtype": pl.String,
        "bytes": pl.Int64,
        "sha256": pl.String,
    }
    return pl.DataFrame([asdict(shard) for shard in shards], schema=schema)


_OUTLIER_SCHEMA = {
    "sequence": pl.Int64,
    "position": pl.Int32,
    "token_id": pl.Int32,
    "norm": pl.Float64,
}


def _outlier_frame(
    outlier: Tensor, token_ids: Tensor, norms: Tensor, first_sequence: int
) -> pl.DataFrame:
    """The outliers of a batch, whose masks, ids and norms are [sequence, position]."""
    sequence, position = outlier.nonzero().unbind(dim=1)
    found = (sequence + first_sequence, position, token_ids[outlier], norms[outlier])
    columns = {c: each.numpy() for c, each in zip(_OUTLIER_SCHEMA, found, strict=True)}
    return pl.DataFrame(columns, schema_overrides=_OUTLIER_SCHEMA)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1))
