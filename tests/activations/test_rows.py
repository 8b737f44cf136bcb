"""Row streams: every row once a pass, shuffled, and resumable at any position."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.activations.cache import ActivationReader, write_shards
from mechinterp_assets.activations.rows import CachedRows, RowStream, TensorRows
from mechinterp_assets.model.language_model import LanguageModel


@pytest.fixture(scope="module")
def reader(organism: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> ActivationReader:
    folder = tmp_path_factory.mktemp("rows") / "L0"
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, organism.config.d_vocab, (30, 9), generator=generator)
    ids[4, 3] = ids[9, 8] = organism.bos_token_id
    write_shards(organism, ids, {1: folder}, dtype=torch.float32, sequences_per_shard=7)
    return ActivationReader(folder, torch.arange(30) != 12)


@pytest.fixture(params=["cached", "tensor"])
def make(request: pytest.FixtureRequest, reader: ActivationReader) -> Callable[[int], RowStream]:
    if request.param == "tensor":
        rows = reader.sample_rows(10**6, seed=0)
        return lambda seed: TensorRows(rows, seed=seed)
    return lambda seed: CachedRows(reader, seed=seed, buffer_rows=60, block_sequences=2)


def _keys(rows: torch.Tensor) -> list[tuple[float, ...]]:
    return [tuple(row) for row in rows[:, :4].tolist()]


def test_one_pass_holds_every_valid_row_once(
    make: Callable[[int], RowStream], reader: ActivationReader
) -> None:
    stream = make(0)
    assert stream.n_rows == reader.n_rows == 29 * 8 - 2
    rows = stream.next(stream.n_rows)
    assert sorted(_keys(rows)) == sorted(_keys(reader.sample_rows(10**6, seed=0)))
    again = stream.next(stream.n_rows)
    assert sorted(_keys(again)) == sorted(_keys(rows))
    assert _keys(again) != _keys(rows)  # another order in the next pass


def test_batches_do_not_change_the_order(make: Callable[[int], RowStream]) -> None:
    one, many = make(5), make(5)
    whole = one.next(500)
    assert torch.equal(whole, torch.cat([many.next(n) for n in (1, 99, 250, 7, 143)]))
    assert not torch.equal(whole, make(6).next(500))


@settings(max_examples=25, deadline=None)
@given(before=st.integers(0, 700), after=st.integers(1, 300))
def test_a_saved_position_continues_exactly(
    reader: ActivationReader, before: int, after: int
) -> None:
    rows = reader.sample_rows(10**6, seed=0)
    streams: list[Callable[[], RowStream]] = [
        lambda: CachedRows(reader, seed=1, buffer_rows=60, block_sequences=2),
        lambda: TensorRows(rows, seed=1),
    ]
    for new in streams:
        first, second = new(), new()
        if before:
            first.next(before)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first.next(after), second.next(after))


def test_rows_of_one_batch_come_from_many_sequences(reader: ActivationReader) -> None:
    stream = CachedRows(reader, seed=0, buffer_rows=120, block_sequences=1)
    lookup = {
        key: int(batch.sequence[0])
        for batch in reader.batches(1)
        for key in _keys(batch.z[batch.valid])
    }
    sequences = {lookup[key] for key in _keys(stream.next(40))}
    assert len(sequences) >= 10


def test_a_position_in_other_data_is_refused(
    make: Callable[[int], RowStream], reader: ActivationReader, tmp_path: Path
) -> None:
    state = make(0).state_dict()
    with pytest.raises(ValueError, match="other data or another order"):
        make(1).load_state_dict(state)


def test_samples_leave_the_position_alone(make: Callable[[int], RowStream]) -> None:
    plain, sampled = make(3), make(3)
    sampled.sample(50, seed=9)
    assert torch.equal(plain.next(100), sampled.next(100))
    assert torch.equal(plain.sample(20, seed=1), sampled.sample(20, seed=1))
