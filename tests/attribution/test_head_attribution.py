"""Head attribution by decoder weights: planted heads, sums, zero rows."""

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.attribution.head_attribution import (
    feature_head_attribution,
    head_attribution,
    split_heads,
)
from mechinterp_assets.storage.declarations import polars_schema, table_spec


def test_a_row_that_lives_in_one_head_is_attributed_to_it_alone() -> None:
    W_dec = torch.zeros(3, 12)
    for feature, head in enumerate((2, 0, 1)):
        W_dec[feature, 4 * head : 4 * head + 4] = torch.tensor([1.0, -2.0, 0.5, 3.0])
    assert head_attribution(W_dec, 3).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_attribution_is_by_norms_not_squares() -> None:
    row = torch.tensor([[3.0, 4.0, 0.0, -15.0]])  # slices of norm 5 and 15
    assert head_attribution(row, 2).tolist() == [[0.25, 0.75]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_shares_sum_to_one_and_ignore_the_scale(seed: int, scale: float) -> None:
    W_dec = torch.randn(5, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    shares = head_attribution(W_dec, 6)
    torch.testing.assert_close(shares.sum(1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(shares, head_attribution(W_dec * scale, 6))


def test_a_zero_row_is_null() -> None:
    W_dec = torch.ones(2, 6)
    W_dec[1] = 0
    frame = feature_head_attribution(W_dec, 2)
    assert frame.filter(pl.col("feature") == 1)["attribution"].to_list() == [None, None]
    assert frame.filter(pl.col("feature") == 0)["attribution"].to_list() == [0.5, 0.5]
    assert not frame["attribution"].is_nan().any()


def test_heads_are_contiguous_slices() -> None:
    assert split_heads(torch.arange(6.0)[None], 3).tolist() == [[[0, 1], [2, 3], [4, 5]]]


def test_a_width_that_is_no_multiple_of_the_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="width 7 cannot be split into 3 heads"):
        head_attribution(torch.ones(1, 7), 3)


def test_the_frame_has_the_declared_columns() -> None:
    declared = dict(polars_schema(table_spec("feature_head_attribution")))
    del declared["layer"]
    assert dict(feature_head_attribution(torch.ones(2, 6), 2).schema) == declared
