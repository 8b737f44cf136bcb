"""Matching of decoder directions: planted partners, the optimum, the greedy route, the baseline."""

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.features.matching import (
    EXACT,
    GREEDY,
    ComparedSae,
    match_directions,
    random_mean_cosine,
    sae_matching,
)


def directions(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("exact_limit", [100, 7])
def test_a_shuffled_and_scaled_copy_is_found(exact_limit: int) -> None:
    a = directions(50, 16, 0)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    b = a[order] * torch.linspace(0.1, 9, 50)[:, None]
    found = match_directions(a, b, exact_limit=exact_limit)
    assert found.matched.tolist() == torch.argsort(order).tolist()
    assert found.cosine == pytest.approx(np.ones(50), abs=1e-6)
    assert found.method == (EXACT if exact_limit == 100 else GREEDY)


def test_exact_route_gives_the_best_of_all_assignments() -> None:
    a, b = directions(4, 3, 2).double(), directions(6, 3, 3).double()
    cosines = torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T
    best = max(
        sum(float(cosines[i, j]) for i, j in enumerate(choice))
        for choice in itertools.permutations(range(6), 4)
    )
    found = match_directions(a, b)
    assert found.cosine.sum() == pytest.approx(best, abs=1e-6)
    assert len(set(found.matched)) == 4
    assert (found.best_cosine >= found.cosine - 1e-6).all()


def test_greedy_route_is_greedy_and_stays_close_to_the_optimum() -> None:
    """Against a plain loop over pairs by descending cosine; and by total against the optimum."""
    a, b = directions(120, 24, 4), directions(100, 24, 5)
    b[:60] = a[30:90] + 0.4 * b[:60]
    unit_a, unit_b = (torch.nn.functional.normalize(x) for x in (a, b))
    cosines = (unit_a @ unit_b.T).numpy()
    expected, used = {}, set()
    for flat in np.argsort(-cosines, axis=None):
        i, j = divmod(int(flat), 100)
        if i not in expected and j not in used and len(expected) < 100:
            expected[i] = j
            used.add(j)
    greedy = match_directions(a, b, exact_limit=20)
    exact = match_directions(a, b)
    strong = [i for i in expected if cosines[i, expected[i]] > 0.7]
    assert len(strong) >= 55
    assert [greedy.matched[i] for i in strong] == [expected[i] for i in strong]
    assert [exact.matched[i] for i in strong] == [expected[i] for i in strong]
    assert (greedy.matched >= 0).sum() == 100
    assert 0.95 * exact.mean_cosine < greedy.mean_cosine <= exact.mean_cosine + 1e-6


def test_zero_rows_and_surplus_rows_stay_single() -> None:
    a = directions(5, 8, 6)
    a[2] = 0
    found = match_directions(a, a[:2] * 3)
    assert found.matched.tolist()[:3] == [0, 1, -1]
    assert (found.matched >= 0).sum() == 2
    assert np.isnan(found.cosine[2])
    assert found.best[2] == -1
    nothing = match_directions(a, torch.zeros(3, 8))
    assert (nothing.matched == -1).all()
    assert np.isnan(nothing.mean_cosine)


def test_baseline_is_what_unrelated_directions_give() -> None:
    a, b = directions(200, 32, 7), directions(200, 32, 8)
    one, other = (side(rows, [1] * 200, []) for rows in (a, b))
    baseline = random_mean_cosine(one, other, seed=0)
    assert 0.2 < baseline < 0.6
    assert match_directions(a, b).mean_cosine == pytest.approx(baseline, abs=0.03)


def test_baseline_in_the_residual_stream_knows_where_layers_write() -> None:
    """Layers that write into orthogonal halves of the stream cannot match, nor can their null."""
    halves = torch.eye(32).split(16)
    rows = directions(60, 16, 9)
    one, other = (replace(side(rows, [1] * 60, []), writes=half, encoder=None) for half in halves)
    assert random_mean_cosine(one, other) == pytest.approx(0, abs=1e-6)
    assert random_mean_cosine(one, one) > 0.3
    frame = sae_matching(one, other)
    assert frame["matched_cosine"].to_list() == pytest.approx([0] * 60, abs=1e-6)
    assert sae_matching(one, one)["matched_cosine"].to_list() == pytest.approx([1] * 60)


def test_widths_must_agree() -> None:
    with pytest.raises(ValueError, match="not comparable"):
        match_directions(torch.ones(2, 3), torch.ones(2, 4))


def side(rows: Tensor, counts: list[int], examples: list[tuple[int, int, int]]) -> ComparedSae:
    return ComparedSae(
        decoder=rows,
        writes=None,
        encoder=2 * rows,
        statistics=pl.DataFrame(
            {
                "feature": range(len(counts)),
                "n_active": counts,
                "log10_density": [np.log10(c / 1000) if c else None for c in counts],
            },
            strict=False,
        ),
        examples=pl.DataFrame(examples, schema=["feature", "sequence", "position"], orient="row"),
    )


def test_frame_by_hand() -> None:
    """Two features swapped, one dead: densities, common examples and cosines by hand."""
    rows = torch.eye(3, 4)
    one = side(rows, [10, 100, 0], [(0, 5, 1), (0, 6, 1), (1, 7, 2)])
    other = side(
        torch.stack([rows[1], rows[0], rows[2]]), [100, 1000, 5], [(1, 5, 1), (1, 9, 9), (0, 8, 2)]
    )
    frame = sae_matching(one, other)
    assert frame["matched_feature"].to_list() == [1, 0, 2]
    assert frame["matched_cosine"].to_list() == pytest.approx([1, 1, 1])
    assert frame["encoder_cosine"].to_list() == pytest.approx([1, 1, 1])
    assert frame["density_shift"].to_list() == [pytest.approx(2), pytest.approx(0), None]
    assert frame["n_common_examples"].to_list() == [1, 0, None]
    assert frame["example_overlap"].to_list() == [pytest.approx(1 / 3), 0, None]
    assert frame["matched_n_active"].to_list() == [1000, 100, 5]


def test_other_spaces_and_corpora_leave_their_columns_empty() -> None:
    one = side(torch.eye(3, 4), [1, 1, 1], [])
    other = replace(one, encoder=None, examples=None)
    frame = sae_matching(one, other)
    assert frame["encoder_cosine"].null_count() == 3
    assert frame["example_overlap"].null_count() == 3
    assert frame["n_common_examples"].null_count() == 3
