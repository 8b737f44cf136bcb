"""Neighbours against dense float64 correlations and cosines."""

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from mechinterp_assets.attribution.activation_stream import TokenGrid
from mechinterp_assets.attribution.feature_pass import ACTIVATION_SCHEMA
from mechinterp_assets.attribution.neighbours import feature_neighbours
from mechinterp_assets.storage.declarations import polars_schema, table_spec

D_SAE, N_SEQUENCES, LENGTH, D_IN = 30, 11, 14, 6
DEAD = (3, 17)
ALWAYS = 8


def case(seed: int) -> tuple[TokenGrid, pl.DataFrame, torch.Tensor, NDArray[np.bool_]]:
    """Correlated features, two dead ones and one that is always active; [feature, token] beside."""
    rng = np.random.default_rng(seed)
    valid = torch.from_numpy(rng.random((N_SEQUENCES, LENGTH)) < 0.9)
    grid = TokenGrid.of(
        torch.arange(N_SEQUENCES) + 100,
        torch.zeros(N_SEQUENCES, LENGTH, dtype=torch.int64),
        valid,
        int(valid.sum()),
    )
    topics = rng.random((4, N_SEQUENCES, LENGTH)) < 0.3
    on = np.stack([topics[f % 4] ^ (rng.random(valid.shape) < f / 90) for f in range(D_SAE)])
    on[ALWAYS] = True
    on &= grid.read
    on[list(DEAD)] = False
    feature, row, position = on.nonzero()
    frame = pl.DataFrame(
        dict(zip(ACTIVATION_SCHEMA, (feature, row + 100, position, feature * 0 + 1.0), strict=True))
    ).cast(dict(ACTIVATION_SCHEMA))
    W_dec = torch.from_numpy(rng.normal(size=(D_SAE, D_IN))).float()
    W_dec[5] = W_dec[20] * 3
    W_dec[9] = 0
    return grid, frame, W_dec, on[:, grid.read]


def best(values: NDArray[np.float64], top: int) -> list[tuple[int, float]]:
    """(column, value) of the largest finite entries, of equals the lower columns."""
    order = sorted(
        (j for j in range(len(values)) if np.isfinite(values[j])),
        key=lambda j: (-round(values[j], 12), j),
    )
    return [(j, values[j]) for j in order[:top]]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("top", [1, 4, 100])
@pytest.mark.parametrize("workspace", [1, 2000, 2**20])
def test_neighbours_equal_the_dense_reference(seed: int, top: int, workspace: int) -> None:
    grid, frame, W_dec, on = case(seed)
    found = feature_neighbours(
        frame.iter_slices(41), grid, W_dec, top=top, workspace_bytes=workspace
    )
    assert found.equals(found.sort("feature", "measure", "rank"))
    with np.errstate(invalid="ignore", divide="ignore"):
        phi = np.corrcoef(on.astype(np.float64))
        rows = W_dec.double().numpy()
        norms = np.linalg.norm(rows, axis=1)
        cosine = rows @ rows.T / norms[:, None] / norms
    phi[~(phi > 1e-12)] = np.nan  # rounding apart, independent features have 0
    for matrix in (phi, cosine):
        matrix[list(DEAD)] = matrix[:, list(DEAD)] = np.nan
        np.fill_diagonal(matrix, np.nan)
    together = on.astype(int) @ on.T.astype(int)
    for kind, matrix in (("coactivation", phi), ("decoder_cosine", cosine)):
        for feature in range(D_SAE):
            here = found.filter((pl.col("feature") == feature) & (pl.col("measure") == kind))
            expected = best(matrix[feature], top)
            assert here["rank"].to_list() == list(range(len(expected)))
            assert here["neighbour"].to_list() == [j for j, _ in expected]
            assert here["similarity"].to_list() == pytest.approx(
                [v for _, v in expected], abs=1e-12
            )
            assert here["n_coactive"].to_list() == [together[feature, j] for j, _ in expected]


def test_dead_and_constant_features_have_no_correlation() -> None:
    grid, frame, W_dec, _ = case(0)
    found = feature_neighbours([frame], grid, W_dec, top=D_SAE)
    for column in ("feature", "neighbour"):
        assert not set(DEAD) & set(found[column])
        phi = found.filter(pl.col("measure") == "coactivation")
        assert ALWAYS not in phi[column]
        assert 9 not in found.filter(pl.col("measure") == "decoder_cosine")[column]
    parallel = found.filter((pl.col("feature") == 5) & (pl.col("measure") == "decoder_cosine"))
    assert parallel.row(0, named=True)["neighbour"] == 20
    assert parallel["similarity"][0] == pytest.approx(1.0, abs=1e-12)


def test_equal_values_are_ranked_by_feature() -> None:
    """Six features that are always active together: each has the five others, in order."""
    grid, _, _, _ = case(0)
    cells = [(int(grid.sequences[r]), int(p)) for r, p in np.argwhere(grid.read)[:7]]
    rows = [(f, s, p, 1.0) for f in range(6) for s, p in cells]
    frame = pl.DataFrame(rows, schema=ACTIVATION_SCHEMA, orient="row")
    found = feature_neighbours([frame], grid, torch.ones(6, D_IN), top=3)
    for kind in ("coactivation", "decoder_cosine"):
        for feature in range(6):
            here = found.filter((pl.col("feature") == feature) & (pl.col("measure") == kind))
            assert here["neighbour"].to_list() == [j for j in range(6) if j != feature][:3]
            assert here["similarity"].to_list() == pytest.approx([1.0] * 3)


def test_the_frame_is_the_declared_one_even_when_empty() -> None:
    declared = dict(polars_schema(table_spec("feature_neighbours")))
    del declared["layer"]
    grid, frame, W_dec, _ = case(0)
    assert dict(feature_neighbours([frame], grid, W_dec).schema) == declared
    assert dict(feature_neighbours([], grid, W_dec).schema) == declared


def test_bad_input_is_refused() -> None:
    grid, frame, W_dec, _ = case(0)
    with pytest.raises(ValueError, match="top is 0"):
        feature_neighbours([frame], grid, W_dec, top=0)
    with pytest.raises(ValueError, match="is active, but the decoder has 5 features"):
        feature_neighbours([frame], grid, W_dec[:5])
