"""Rows from shared forward passes: the cache's values, each once a pass, resumed bit for bit."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.activations.cache import ActivationReader, write_shards
from mechinterp_assets.activations.forward_rows import ForwardRows, buffer_bytes
from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.activations.rows import LayerRows, OneLayer, TensorRows
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError

LAYERS = [1, 3]


@pytest.fixture(scope="module")
def token_ids(organism: LanguageModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    # no token twice, so that no two rows are equal
    ids = 1 + torch.randperm(organism.config.d_vocab - 1, generator=generator)[:270].view(30, 9)
    ids[:, 0] = organism.bos_token_id
    ids[4, 3] = ids[9, 8] = ids[20] = organism.bos_token_id
    return ids


def _rows(
    model: LanguageModel,
    ids: torch.Tensor,
    *,
    seed: int = 0,
    buffer_rows: int = 72,
    dtype: torch.dtype = torch.float32,
) -> ForwardRows:
    return ForwardRows(
        model, ids, LAYERS, seed=seed, buffer_rows=buffer_rows, batch_size=5, dtype=dtype
    )


def _same_set(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    """Whether the nearest row of b is within tolerance for each row of a, another for each."""
    exact = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(a.double(), b.double(), compute_mode=exact).min(1)
    return (
        len(a) == len(b) == len(distance.indices.unique())
        and float(distance.values.max()) <= tolerance
    )


def test_a_pass_holds_the_rows_that_a_cache_would(
    organism: LanguageModel, token_ids: torch.Tensor, tmp_path: Path
) -> None:
    folders = {layer: tmp_path / str(layer) for layer in LAYERS}
    write_shards(organism, token_ids, folders, dtype=torch.float32)
    stream = _rows(organism, token_ids)
    assert stream.n_rows == 29 * 8 - 2  # sequence 20 is BOS throughout
    first, second = stream.next(stream.n_rows), stream.next(stream.n_rows)
    for layer in LAYERS:
        cached = ActivationReader(folders[layer]).sample_rows(10**6, seed=0)
        for rows in (first[layer], second[layer]):
            assert rows.dtype == torch.float32
            assert _same_set(rows, cached, 1e-4)
    assert not torch.equal(first[1], second[1])  # another order in the next pass


def test_bfloat16_buffers_hold_what_a_bfloat16_cache_would(
    organism: LanguageModel, token_ids: torch.Tensor
) -> None:
    exact = _rows(organism, token_ids).next(200)
    rounded = _rows(organism, token_ids, dtype=torch.bfloat16).next(200)
    for layer in LAYERS:
        assert torch.equal(rounded[layer], exact[layer].bfloat16().float())


def test_all_layers_are_at_the_same_tokens(
    organism: LanguageModel, token_ids: torch.Tensor
) -> None:
    """Each row of a layer is looked up in a plain forward pass; positions must agree."""
    z = capture_z(organism, token_ids, LAYERS)
    rows = _rows(organism, token_ids).next(100)
    places = []
    for layer in LAYERS:
        distance = torch.cdist(rows[layer].double(), z[layer].flatten(0, 1).double())
        assert distance.min(1).values.max() < 1e-3
        places.append(distance.argmin(1))
    assert torch.equal(*places)
    assert (places[0] % 9 != 0).all()
    assert len(set((places[0] // 9).tolist())) >= 8  # many sequences in 100 rows


def test_batches_do_not_change_the_order(organism: LanguageModel, token_ids: torch.Tensor) -> None:
    whole = _rows(organism, token_ids, seed=5).next(500)[3]
    many = _rows(organism, token_ids, seed=5)
    assert torch.equal(whole, torch.cat([many.next(n)[3] for n in (1, 99, 250, 7, 143)]))
    assert not torch.equal(whole, _rows(organism, token_ids, seed=6).next(500)[3])


@settings(max_examples=15, deadline=None)
@given(before=st.integers(0, 500), after=st.integers(1, 150))
def test_a_saved_position_continues_exactly(
    organism: LanguageModel, token_ids: torch.Tensor, before: int, after: int
) -> None:
    first, second = _rows(organism, token_ids), _rows(organism, token_ids)
    if before:
        first.next(before)
    first.sample(1, 40, seed=before)  # leaves the position alone
    second.load_state_dict(first.state_dict())
    expected, found = first.next(after), second.next(after)
    assert all(torch.equal(expected[layer], found[layer]) for layer in LAYERS)


def test_samples_are_rows_of_the_buffer(organism: LanguageModel, token_ids: torch.Tensor) -> None:
    stream = _rows(organism, token_ids)
    sample = stream.sample(3, 10**6, seed=1)
    buffer = stream.next(len(sample))[3]
    assert _same_set(sample, buffer, 0)
    assert len(stream.sample(1, 7, seed=0)) == 7


def test_a_position_in_other_data_is_refused(
    organism: LanguageModel, token_ids: torch.Tensor
) -> None:
    state = _rows(organism, token_ids).state_dict()
    for other in (
        _rows(organism, token_ids, seed=1),
        _rows(organism, token_ids[:-1]),
        _rows(organism, token_ids, dtype=torch.bfloat16),
    ):
        with pytest.raises(ValueError, match="other data or another order"):
            other.load_state_dict(state)


def test_what_cannot_give_rows_is_refused(organism: LanguageModel) -> None:
    bos = torch.full((3, 9), organism.bos_token_id)
    with pytest.raises(ValueError, match="no valid position"):
        ForwardRows(organism, bos, LAYERS, seed=0)
    with pytest.raises(ModelError, match="vocabulary"):
        ForwardRows(organism, bos + organism.config.d_vocab, LAYERS, seed=0)
    with pytest.raises(ModelError, match="layer 99"):
        ForwardRows(organism, bos, [99], seed=0)


def test_the_memory_of_the_buffer_is_known_before(
    organism: LanguageModel, token_ids: torch.Tensor
) -> None:
    d_z = organism.config.d_z
    assert buffer_bytes(12, 768, 131_072, torch.bfloat16) == 12 * 768 * 131_072 * 2
    for rows in (20, 72, 10**6):
        held = _rows(organism, token_ids, buffer_rows=rows)._buffer
        assert held.nbytes <= buffer_bytes(2, d_z, rows, torch.float32)


def test_streams_satisfy_the_protocol(organism: LanguageModel, token_ids: torch.Tensor) -> None:
    streams: list[LayerRows] = [
        _rows(organism, token_ids),
        OneLayer(TensorRows(torch.randn(20, 128), seed=0), layer=3),
    ]
    for stream in streams:
        assert stream.next(3)[3].shape == (3, stream.d_in)
        assert stream.sample(3, 4, seed=0).shape == (4, stream.d_in)
