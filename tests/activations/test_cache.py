"""Shards written from one forward pass, read back memory-mapped, and their statistics."""

from pathlib import Path

import polars as pl
import pytest
import torch

from mechinterp_assets.activations.cache import (
    ActivationCacheError,
    ActivationReader,
    CacheTables,
    ShardWriter,
    valid_positions,
    write_shards,
)
from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.activations.statistics import ZStatistics, mean_z_of
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import polars_schema

N, CONTEXT, PER_SHARD = 11, 10, 4
LAYERS = (0, 1)


@pytest.fixture(scope="module")
def token_ids(organism: LanguageModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, organism.config.d_vocab, (N, CONTEXT), generator=generator)
    ids[:, 0] = organism.bos_token_id
    ids[3, 5] = organism.bos_token_id
    return ids


@pytest.fixture(scope="module")
def train_split() -> torch.Tensor:
    return torch.arange(N) % 3 != 0


@pytest.fixture(scope="module")
def written(
    organism: LanguageModel,
    token_ids: torch.Tensor,
    train_split: torch.Tensor,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[int, CacheTables]]:
    root = tmp_path_factory.mktemp("cache")
    tables = write_shards(
        organism,
        token_ids,
        {layer: root / f"L{layer}" for layer in LAYERS},
        dtype=torch.float32,
        sequences_per_shard=PER_SHARD,
        batch_size=3,
        first_sequence=100,
        statistics_from=train_split,
    )
    return root, tables


def test_position_0_and_every_bos_are_invalid(
    organism: LanguageModel, token_ids: torch.Tensor
) -> None:
    valid = valid_positions(token_ids, organism.bos_token_id)
    assert not valid[:, 0].any()
    assert not valid[3, 5]
    assert int(valid.sum()) == N * (CONTEXT - 1) - 1
    without_bos = torch.ones(1, 3, dtype=torch.int64)
    assert valid_positions(without_bos, 0).tolist() == [[False, True, True]]


def test_batches_give_back_what_the_model_computed(
    organism: LanguageModel,
    token_ids: torch.Tensor,
    written: tuple[Path, dict[int, CacheTables]],
) -> None:
    expected = capture_z(organism, token_ids, LAYERS)
    for layer in LAYERS:
        batches = list(ActivationReader(written[0] / f"L{layer}").batches(3))
        assert torch.cat([b.sequence for b in batches]).tolist() == list(range(100, 100 + N))
        assert torch.equal(torch.cat([b.token_ids for b in batches]), token_ids)
        torch.testing.assert_close(
            torch.cat([b.z for b in batches]), expected[layer], rtol=1e-4, atol=1e-5
        )
        valid = torch.cat([b.valid for b in batches])
        assert torch.equal(valid, valid_positions(token_ids, organism.bos_token_id))


def test_keep_restricts_batches_rows_and_samples(
    written: tuple[Path, dict[int, CacheTables]], train_split: torch.Tensor
) -> None:
    reader = ActivationReader(written[0] / "L1", train_split)
    everything = ActivationReader(written[0] / "L1")
    sequences = torch.cat([b.sequence for b in reader.batches(5)]) - 100
    assert torch.equal(sequences, train_split.nonzero().squeeze(1))
    rows = torch.cat([b.z[b.valid] for b in reader.batches(5)])
    assert len(rows) == reader.n_rows < everything.n_rows
    sample = reader.sample_rows(10**6, seed=0)
    assert torch.equal(sample, rows)  # all rows, in corpus order


def test_a_sample_is_distinct_valid_rows_and_repeats_with_its_seed(
    written: tuple[Path, dict[int, CacheTables]],
) -> None:
    reader = ActivationReader(written[0] / "L0")
    rows = torch.cat([b.z[b.valid] for b in reader.batches(4)])
    sample = reader.sample_rows(20, seed=3)
    matches = (sample[:, None] == rows[None]).all(-1)
    assert matches.any(1).all()
    assert len(matches.float().argmax(1).unique()) == 20
    assert torch.equal(sample, reader.sample_rows(20, seed=3))
    assert not torch.equal(sample, reader.sample_rows(20, seed=4))


def test_statistics_equal_a_float64_reference(
    organism: LanguageModel,
    token_ids: torch.Tensor,
    train_split: torch.Tensor,
    written: tuple[Path, dict[int, CacheTables]],
) -> None:
    valid = valid_positions(token_ids, organism.bos_token_id) & train_split[:, None]
    shape = organism.config
    for layer in LAYERS:
        z = capture_z(organism, token_ids, [layer])[layer][valid].double()
        by_head = z.view(-1, shape.n_heads, shape.d_head)
        frame = written[1][layer].statistics
        assert frame["n_tokens"].to_list() == [int(valid.sum())] * shape.n_heads
        norms = torch.tensor(frame["mean_norm"].to_list(), dtype=torch.float64)
        torch.testing.assert_close(norms, by_head.norm(dim=-1).mean(0), rtol=1e-5, atol=0)
        rms = torch.tensor(frame["rms"].to_list(), dtype=torch.float64)
        torch.testing.assert_close(rms, by_head.square().mean((0, 2)).sqrt(), rtol=1e-5, atol=0)
        mean = mean_z_of(frame, layer)
        torch.testing.assert_close(mean, z.mean(0).float(), rtol=1e-4, atol=1e-6)
        assert torch.equal(ActivationReader(written[0] / f"L{layer}").mean_z, mean)


def test_statistics_do_not_depend_on_how_rows_are_split() -> None:
    rows = 1000 + torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    whole, parts = ZStatistics(2, 3), ZStatistics(2, 3)
    whole.add(rows)
    for part in rows.split(7):
        parts.add(part)
    assert whole.n == parts.n == 50
    for name, value in whole.tensors().items():
        torch.testing.assert_close(parts.tensors()[name], value, rtol=1e-13, atol=0)


def test_frames_have_the_declared_columns(
    written: tuple[Path, dict[int, CacheTables]],
) -> None:
    tables = written[1][0]
    for name, frame in (
        ("activation_cache", tables.cache),
        ("activation_statistics", tables.statistics),
        ("activation_outliers", tables.outliers),
    ):
        assert frame.schema == polars_schema(table_spec(name))
    cache = tables.cache
    assert cache["n_sequences"].to_list() == [4, 4, 3]
    assert cache["first_sequence"].to_list() == [100, 104, 108]
    assert cache["n_tokens"].sum() == N * (CONTEXT - 1) - 1
    assert cache.select(pl.col("bytes").min()).item() > 0


def test_stored_z_is_mapped_not_read(written: tuple[Path, dict[int, CacheTables]]) -> None:
    reader = ActivationReader(written[0] / "L0")
    mapped = Path("/proc/self/maps")
    if not mapped.is_file():
        pytest.skip("no /proc/self/maps to look into on this system")
    assert str(written[0] / "L0" / reader.shards[0].path) in mapped.read_text()


def test_bfloat16_shards_round_and_nothing_else(
    organism: LanguageModel, token_ids: torch.Tensor, tmp_path: Path
) -> None:
    write_shards(organism, token_ids, {0: tmp_path / "L0"}, batch_size=N)
    stored = torch.cat([b.z for b in ActivationReader(tmp_path / "L0").batches(4)])
    assert torch.equal(stored, capture_z(organism, token_ids, [0])[0].bfloat16().float())


def test_overflow_in_float16_is_an_error(tmp_path: Path) -> None:
    writer = ShardWriter(
        tmp_path / "x",
        layer=0,
        context=2,
        d_z=3,
        dtype=torch.float16,
        sequences_per_shard=2,
    )
    with pytest.raises(ActivationCacheError, match="use bfloat16"):
        writer.append(torch.zeros(2, 2), torch.full((2, 2, 3), 1e6), torch.ones(2, 2).bool())


def test_incomplete_and_damaged_caches_are_refused(
    organism: LanguageModel, token_ids: torch.Tensor, tmp_path: Path
) -> None:
    folder = tmp_path / "L0"
    write_shards(organism, token_ids, {0: folder})
    with pytest.raises(ActivationCacheError, match="not empty"):
        write_shards(organism, token_ids, {0: folder})
    with pytest.raises(ActivationCacheError, match="keep has shape"):
        ActivationReader(folder, torch.ones(3, dtype=torch.bool))
    shard = folder / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(ActivationCacheError, match="bytes where"):
        ActivationReader(folder)
    (folder / "activations.json").unlink()
    with pytest.raises(ActivationCacheError, match="no complete activation cache"):
        ActivationReader(folder)
