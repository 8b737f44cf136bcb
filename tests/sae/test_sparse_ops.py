"""Sparse sums: every route against float64 loops written from the definitions."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from mechinterp_assets.sae import cpu_kernels, sparse_ops
from mechinterp_assets.sae.sparse_ops import (
    EntriesByFeature,
    gathered_dot,
    gathered_dot_ragged,
    reconstruct,
    reconstruct_ragged,
    sparse_decode,
    sparse_decode_ragged,
    topk_encode,
    topk_rows,
)

# rows, entries a row, features, width: odd sizes, one entry, one row, more entries than lanes
SHAPES = [(9, 4, 13, 7), (5, 1, 6, 16), (1, 6, 6, 33), (40, 19, 50, 21), (0, 3, 8, 5)]


@pytest.fixture(params=["kernels", "torch"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compiled kernels and plain torch in turn; skips where kernels cannot be built."""
    if request.param == "torch":
        monkeypatch.setattr(sparse_ops, "kernels", lambda: None)
    elif cpu_kernels.kernels() is None:
        pytest.skip("no compiled kernels: no C++ compiler or ninja here, or MECHINTERP_CPP=0")
    return str(request.param)


def _entries(n: int, k: int, d_sae: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """features [n, k], a few of them twice in a row and half of them never; values, decoder, x."""
    generator = torch.Generator().manual_seed(n + k)
    features = torch.randint(0, (d_sae + 1) // 2, (n, k), generator=generator)
    values = torch.randn(n, k, generator=generator)
    decoder = torch.randn(d_sae, d, generator=generator)
    return features, values, decoder, torch.randn(n, d, generator=generator)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def _decoded(features: Tensor, values: Tensor, decoder: Tensor) -> Tensor:
    out = torch.zeros(len(features), decoder.shape[1], dtype=torch.float64)
    for row, j in itertools.product(range(len(features)), range(features.shape[1])):
        out[row] += values[row, j].double() * decoder[features[row, j]].double()
    return out


def _dots(rows: Tensor, decoder: Tensor, features: Tensor) -> Tensor:
    out = torch.zeros(features.shape, dtype=torch.float64)
    for row, j in itertools.product(range(len(features)), range(features.shape[1])):
        out[row, j] = rows[row].double() @ decoder[features[row, j]].double()
    return out


def _by_feature(features: Tensor, weights: Tensor, rows: Tensor, d_sae: int) -> Tensor:
    out = torch.zeros(d_sae, rows.shape[1], dtype=torch.float64)
    for row, j in itertools.product(range(len(features)), range(features.shape[1])):
        out[features[row, j]] += weights[row, j].double() * rows[row].double()
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_equal_loops_in_float64(route: str, shape: tuple[int, int, int, int]) -> None:
    features, values, decoder, x = _entries(*shape)
    n, _, d_sae, d = shape
    decoded = _decoded(features, values, decoder)
    _close(sparse_decode(features, values, decoder), decoded)
    _close(gathered_dot(x, decoder, features), _dots(x, decoder, features))
    bias = torch.linspace(-1, 1, d)
    residual, dots = reconstruct(features, values, decoder, bias, x)
    expected = decoded + bias.double() - x.double()
    _close(residual, expected)
    _close(dots, _dots(expected, decoder, features))
    entries = EntriesByFeature(features, d_sae)
    sums = _by_feature(features, values, x, d_sae)
    _close(entries.weighted_rows(values, x), sums)
    out = torch.full((d_sae, d), math.nan)
    assert entries.weighted_rows(values, x, scale=0.5, out=out) is out
    _close(out, sums / 2)
    ones = torch.ones(n, 1)
    _close(entries.sums(values), _by_feature(features, values, ones, d_sae).squeeze(1))


@pytest.mark.parametrize("shape", SHAPES)
def test_ragged_entries_give_what_rectangular_ones_give(
    route: str, shape: tuple[int, int, int, int]
) -> None:
    features, values, decoder, x = _entries(*shape)
    n, k, d_sae, d = shape
    # row i keeps its first i % (k + 1) entries: some rows have none
    kept = torch.arange(k) < (torch.arange(n) % (k + 1))[:, None]
    values = values * kept
    rows, columns = kept.nonzero(as_tuple=True)
    f, v = features[rows, columns], values[rows, columns]
    decoded = _decoded(features, values, decoder)
    _close(sparse_decode_ragged(rows, f, v, decoder, n), decoded)
    expected = _dots(x, decoder, features)[rows, columns]
    _close(gathered_dot_ragged(x, decoder, rows, f), expected)
    bias = torch.linspace(-1, 1, d)
    residual, dots = reconstruct_ragged(rows, f, v, decoder, bias, x)
    _close(residual, decoded + bias.double() - x.double())
    _close(dots, _dots(residual, decoder, features)[rows, columns])
    entries = EntriesByFeature(f, d_sae, rows)
    _close(entries.weighted_rows(v, x), _by_feature(features, values, x, d_sae))
    _close(entries.sums(v), _by_feature(features, values, torch.ones(n, 1), d_sae).squeeze(1))


def _exactly_topk(pre: Tensor, values: Tensor, features: Tensor, k: int) -> None:
    assert features.dtype == torch.int64
    assert features.shape == values.shape == (len(pre), k)
    assert torch.equal(pre.gather(1, features), values.to(pre.dtype))
    assert all(len(set(row.tolist())) == k for row in features)
    best = pre.topk(k, dim=1).values
    assert torch.equal(values.to(pre.dtype).sort(dim=1, descending=True).values, best)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("n", "d_sae", "k"),
    [(7, 1, 1), (7, 40, 1), (7, 40, 40), (6, 1000, 32), (3, 5000, 3), (3, 777, 300), (0, 9, 2)],
)
def test_topk_rows_are_the_largest(
    route: str, n: int, d_sae: int, k: int, dtype: torch.dtype
) -> None:
    pre = torch.randn(n, d_sae, generator=torch.Generator().manual_seed(d_sae)).to(dtype)
    _exactly_topk(pre, *topk_rows(pre, k), k)


def test_topk_rows_with_ties_zeros_and_infinities(route: str) -> None:
    rows = [
        torch.zeros(100),
        torch.full((100,), -math.inf),
        torch.arange(100).remainder(3).float(),
        -torch.arange(100).remainder(7).float(),
        torch.cat([torch.full((50,), math.inf), torch.full((50,), -math.inf)]),
        torch.cat([torch.full((95,), -1.0), torch.full((5,), 2.0)]),
    ]
    pre = torch.stack(rows)
    for k in (1, 5, 50, 99):
        _exactly_topk(pre, *topk_rows(pre, k), k)


def test_topk_rows_keep_nan(route: str) -> None:
    pre = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    pre[1, 17] = math.nan
    pre[2, 5] = -torch.tensor(math.nan)
    values, _ = topk_rows(pre, 3)
    assert values.isnan().any(dim=1).tolist() == [False, True, True, False]


@pytest.fixture
def _bfloat16_route(monkeypatch: pytest.MonkeyPatch) -> None:
    if cpu_kernels.kernels() is None:
        pytest.skip("no compiled kernels")
    monkeypatch.setattr(sparse_ops, "_fast_bfloat16", lambda: True)


@pytest.mark.usefixtures("_bfloat16_route")
@pytest.mark.parametrize("kind", ["random", "parallel", "outlier", "tiny", "copies", "biased"])
def test_topk_encode_chooses_as_the_float32_product_does(kind: str) -> None:
    """Inputs on which bfloat16 alone chooses wrongly: nearly equal features, one huge dimension."""
    generator = torch.Generator().manual_seed(3)
    n, d, d_sae, k = 33, 64, 700, 20
    x = torch.randn(n, d, generator=generator)
    encoder = torch.randn(d_sae, d, generator=generator)
    b_enc = torch.zeros(d_sae)
    if kind == "parallel":  # pre-activations that differ in the fourth digit
        encoder = torch.ones(d_sae, d) + 1e-3 * encoder
    elif kind == "outlier":
        x[:, 0] += 1000
        encoder[:, 0] = 1
    elif kind == "tiny":
        x, encoder = x * 1e-12, encoder * 1e-12
    elif kind == "copies":
        encoder = encoder[:5].repeat(140, 1)
    elif kind == "biased":
        b_enc = torch.randn(d_sae, generator=generator) * 100
    found = topk_encode(x, encoder, b_enc, k)
    assert found is not None
    values, features = found
    exact = x.double() @ encoder.double().T + b_enc.double()
    size = (x.double().abs() @ encoder.double().abs().T + b_enc.abs().double()).gather(1, features)
    # each value is the float32 product of its own feature
    assert ((values.double() - exact.gather(1, features)).abs() <= 1e-5 * size).all()
    assert all(len(set(row.tolist())) == k for row in features)
    # and no feature left out is larger, beyond the rounding of float32 sums
    best = exact.topk(k, dim=1).values
    chosen = exact.gather(1, features).sort(dim=1, descending=True).values
    slack = 1e-5 * size.max(dim=1, keepdim=True).values
    assert (chosen >= best - slack).all()


@pytest.mark.usefixtures("_bfloat16_route")
def test_topk_encode_keeps_nan_and_infinity() -> None:
    x, encoder = torch.randn(4, 16), torch.randn(50, 16)
    x[1, 3], x[2, 3] = math.nan, math.inf
    found = topk_encode(x, encoder, torch.zeros(50), 4)
    assert found is not None
    assert found[0].isfinite().all(dim=1).tolist() == [True, False, False, True]


def test_results_do_not_depend_on_threads() -> None:
    kernels = cpu_kernels.kernels()
    if kernels is None:
        pytest.skip("no compiled kernels")
    features, values, decoder, x = _entries(500, 16, 300, 40)

    def everything() -> list[Tensor]:
        entries = EntriesByFeature(features, 300)
        pre = x @ decoder.T
        return [
            *reconstruct(features, values, decoder, x[0], x),
            entries.weighted_rows(values, x),
            entries.sums(values),
            *topk_rows(pre, 16),
            *kernels.round_rows(x),
        ]

    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(everything())
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_kernels_refuse_features_that_do_not_exist() -> None:
    if cpu_kernels.kernels() is None:
        pytest.skip("no compiled kernels")
    features, values, decoder, x = _entries(9, 4, 13, 7)
    features[3, 2] = 13
    with pytest.raises(RuntimeError, match=r"outside 0\.\.12"):
        sparse_decode(features, values, decoder)
    features[3, 2] = -1
    with pytest.raises(RuntimeError, match=r"outside 0\.\.12"):
        EntriesByFeature(features, 13)
    with pytest.raises(RuntimeError, match="k is 8 but rows have 7 values"):
        topk_rows(x, 8)


def test_no_compiler_means_plain_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv(cpu_kernels.SWITCH, "1")
    with caplog.at_level("INFO"):
        assert cpu_kernels.kernels.__wrapped__() is None
    assert len(caplog.records) == 1
    assert "no-such-compiler" in caplog.text
    monkeypatch.setenv(cpu_kernels.SWITCH, "0")
    assert cpu_kernels.kernels.__wrapped__() is None
    assert len(caplog.records) == 1
