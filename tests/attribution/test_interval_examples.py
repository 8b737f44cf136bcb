"""Examples per interval against a loop over all activations; streams cut into whole features."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.attribution import intervals as module
from mechinterp_assets.attribution.activation_stream import TokenGrid, whole_features
from mechinterp_assets.attribution.feature_pass import ACTIVATION_SCHEMA
from mechinterp_assets.attribution.intervals import IntervalTables, interval_tables, with_tokens
from mechinterp_assets.storage.declarations import polars_schema, table_spec

D_SAE, N_SEQUENCES, LENGTH = 12, 15, 9


def activations(seed: int = 0, share: float = 0.4) -> pl.DataFrame:
    """Few distinct strengths, so that ties are frequent; feature 3 never fires."""
    rng = np.random.default_rng(seed)
    on = rng.random((D_SAE, N_SEQUENCES, LENGTH)) < share
    on[3] = False
    on[:, :, 0] = False
    feature, sequence, position = on.nonzero()
    strength = rng.integers(1, 30, len(feature)) / 8
    columns = (feature, sequence * 2 + 10, position, strength)
    return pl.DataFrame(dict(zip(ACTIVATION_SCHEMA, columns, strict=True))).cast(
        dict(ACTIVATION_SCHEMA)
    )


def maxima(frame: pl.DataFrame) -> torch.Tensor:
    found = torch.zeros(D_SAE)
    for feature, largest in frame.group_by("feature").agg(pl.col("activation").max()).rows():
        found[feature] = largest
    return found


def tables(frame: pl.DataFrame, pieces: int = 10**6, **settings: int) -> IntervalTables:
    return interval_tables(frame.iter_slices(pieces), maxima(frame), **settings)


@pytest.mark.parametrize("n_intervals", [1, 4])
@pytest.mark.parametrize("n_top", [1, 3, 100])
def test_top_examples_are_the_strongest_of_their_interval(n_intervals: int, n_top: int) -> None:
    frame = activations()
    found = tables(frame, n_intervals=n_intervals, n_top=n_top).examples
    found = found.filter(pl.col("sample") == "top")
    for feature in range(D_SAE):
        rows = frame.filter(pl.col("feature") == feature).drop("feature").rows()
        edges = np.linspace(0.0, max((a for _, _, a in rows), default=0.0), n_intervals + 1)
        for interval, (low, high) in enumerate(pairwise(edges)):
            inside = [(-a, s, p) for s, p, a in rows if low < a <= high]
            expected = [(s, p, -a) for a, s, p in sorted(inside)[:n_top]]
            here = found.filter((pl.col("feature") == feature) & (pl.col("interval") == interval))
            assert here["rank"].to_list() == list(range(len(expected)))
            assert here.select("sequence", "position", "activation").rows() == expected


def test_random_examples_are_distinct_members_of_their_interval() -> None:
    frame = activations(1)
    result = tables(frame, n_intervals=4, n_random=5)
    both = result.examples.filter(pl.col("sample") == "random").join(
        frame, on=["feature", "sequence", "position", "activation"], how="inner"
    )
    counted = both.group_by("feature", "interval").agg(
        pl.len().alias("n"), pl.struct("sequence", "position").n_unique().alias("distinct")
    )
    joined = result.intervals.filter(pl.col("n_active") > 0).join(
        counted, on=["feature", "interval"]
    )
    assert joined.height == (result.intervals["n_active"] > 0).sum()
    assert (joined["n"] == joined["n_active"].clip(upper_bound=5)).all()
    assert (joined["n"] == joined["distinct"]).all()
    edges = both.join(result.intervals, on=["feature", "interval"])
    assert ((edges["activation"] > edges["low"]) & (edges["activation"] <= edges["high"])).all()


def test_neither_cuts_nor_the_size_of_blocks_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = activations(2)
    whole = tables(frame)
    cut = tables(frame, pieces=7)
    monkeypatch.setattr(module, "_GROUPS_AT_ONCE", 1)  # one feature at a time
    single = tables(frame)
    for other in (cut, single):
        assert other.intervals.equals(whole.intervals)
        assert other.examples.equals(whole.examples)


def test_two_keys_too_long_for_one_number_are_sorted_in_turn() -> None:
    """A group number of 40 bits leaves no room; the order is the same."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, 50)
    key = rng.integers(0, 6, 50).astype(np.uint32)
    block = activations().head(50)
    short = module._examples("top", block, group, group, key, 3)
    long = module._examples("top", block, group, group + (group == 3) * 2**40, key, 3)
    assert short.equals(long)


def test_no_examples_can_be_asked_for() -> None:
    assert tables(activations(), n_top=0, n_random=0).examples.is_empty()


def test_tokens_are_those_at_the_examples_and_the_frame_is_the_declared_one() -> None:
    token_ids = torch.arange(N_SEQUENCES * LENGTH).reshape(N_SEQUENCES, LENGTH)
    valid = torch.ones_like(token_ids, dtype=torch.bool)
    valid[:, 0] = False
    grid = TokenGrid.of(torch.arange(N_SEQUENCES) * 2 + 10, token_ids, valid, int(valid.sum()))
    texts = [f"<{i}>" for i in range(token_ids.numel())]
    examples = with_tokens(tables(activations()).examples, grid, texts)
    for row in examples.iter_rows(named=True):
        expected = (row["sequence"] - 10) // 2 * LENGTH + row["position"]
        assert (row["token_id"], row["token"]) == (expected, f"<{expected}>")
    declared = dict(polars_schema(table_spec("feature_interval_examples")))
    del declared["layer"]
    assert dict(examples.schema) == declared


def test_a_token_that_was_not_read_is_refused() -> None:
    ids = torch.zeros(2, 4, dtype=torch.int64)
    valid = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 1]], dtype=torch.bool)
    grid = TokenGrid.of(torch.tensor([5, 7]), ids, valid, 4)
    assert grid.n_tokens == 4
    assert grid.cells(np.array([5, 7]), np.array([3, 1])).tolist() == [3, 5]
    for sequence, position in [(5, 0), (6, 1), (8, 1), (7, 2), (7, 3), (5, 4), (5, -1)]:
        with pytest.raises(ValueError, match=f"position {position} of sequence {sequence} was not"):
            grid.cells(np.array([5, sequence]), np.array([1, position]))
    with pytest.raises(ValueError, match="6 tokens were read, but the sequences have 5"):
        TokenGrid.of(torch.tensor([5, 7]), ids, valid, 6)


@pytest.mark.parametrize("rows", [1, 2, 5, 50, 10**6])
def test_a_stream_is_cut_between_features(rows: int) -> None:
    frame = activations()
    frames = list(whole_features(frame.iter_slices(rows)))
    assert pl.concat(frames).equals(frame)
    seen = [feature for part in frames for feature in part["feature"].unique().to_list()]
    assert len(seen) == len(set(seen))


def test_a_stream_in_another_order_is_refused() -> None:
    frame = activations()
    with pytest.raises(ValueError, match="do not ascend by feature"):
        list(whole_features([frame, frame]))
    with pytest.raises(ValueError, match="do not ascend by feature"):
        list(whole_features([frame.reverse()]))
