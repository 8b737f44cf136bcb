"""Overlap of top heads against enumeration, and faithfulness matrices of planted effects."""

from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mechinterp_assets.tasks.ablation import leave_one_out_means, sweep_heads
from mechinterp_assets.tasks.head_effects import head_effects
from mechinterp_assets.tasks.reuse import (
    MODE,
    component_reuse,
    effect_matrices,
    fresh_prompts,
    n_top_heads,
    overlap,
    reuse_faithfulness,
    top_heads,
)
from tests.tasks.models import PLANTED_HEAD, planted_gpt2, token_prompts


def effects_of(matrices: dict[str, np.ndarray], metric: str = "loss") -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "task": task,
                "mode": MODE,
                "reference": "own_cell",
                "metric": metric,
                "layer": layer,
                "head": head,
                "mean_effect": float(value),
            }
            for task, matrix in matrices.items()
            for (layer, head), value in np.ndenumerate(matrix)
        ]
    )


def test_top_heads() -> None:
    effects = np.array([[0.1, -3.0], [2.0, 2.0]])
    assert top_heads(effects, 2, "loss", "harm").tolist() == [2, 3]
    assert top_heads(effects, 2, "loss", "absolute").tolist() == [1, 2]
    assert top_heads(effects, 1, "logit_diff", "harm").tolist() == [1]
    assert [n_top_heads(share, 144) for share in (0.001, 0.05, 0.2)] == [1, 7, 29]


@pytest.mark.parametrize("seed", range(3))
def test_chance_against_enumeration(seed: int) -> None:
    """Every set of 3 of 8 heads, each as likely as any other."""
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(2, 2, 4))
    found = overlap(a, b, 3 / 8, "loss", "harm")
    top = set(top_heads(a, 3, "loss", "harm").tolist())
    shared = len(top & set(top_heads(b, 3, "loss", "harm").tolist()))
    sizes = np.array([len(top & set(other)) for other in combinations(range(8), 3)])
    assert found["n_shared"] == shared
    assert found["jaccard"] == pytest.approx(shared / (6 - shared))
    assert found["expected_shared"] == pytest.approx(sizes.mean())
    assert found["expected_jaccard"] == pytest.approx((sizes / (6 - sizes)).mean())
    assert found["p_value"] == pytest.approx((sizes >= shared).mean())


def test_a_task_shares_all_heads_with_itself() -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 4))
    frame = component_reuse(effects_of({"a": matrix, "b": 2 * matrix, "c": -matrix}), (0.25, 0.5))
    same = frame.filter(task_a="a", task_b="b")
    assert same["jaccard"].to_list() == [1.0] * 4
    assert same["rank_correlation"].to_list() == pytest.approx([1.0] * 4)
    other = frame.filter(task_a="a", task_b="c", head_ranking="harm")
    assert other["n_shared"].to_list() == [0, 0]
    assert other["p_value"].to_list() == [1.0, 1.0]
    assert other["rank_correlation"].to_list() == pytest.approx([-1.0] * 2)
    assert frame.filter(task_a="a", task_b="c", head_ranking="absolute")["jaccard"].to_list() == [
        1,
        1,
    ]
    assert frame.filter(top_share=0.5, task_b="b")["shared_heads"].list.len().to_list() == [6, 6]


def test_flat_effects_have_no_rank_correlation() -> None:
    frame = component_reuse(effects_of({"a": np.zeros((2, 2)), "b": np.eye(2)}), (0.25,))
    assert frame["rank_correlation"].is_null().all()


def test_effect_matrices_keep_layers_and_heads() -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    shuffled = effects_of({"a": matrix}).sample(fraction=1.0, shuffle=True, seed=1)
    np.testing.assert_array_equal(effect_matrices(shuffled)["a"], matrix)


def test_fresh_prompts_are_not_those_that_rank_heads() -> None:
    base = pl.DataFrame({"task": ["a"] * 5 + ["b"] * 3, "prompt": [*range(5), *range(3)]})
    prompts, fresh = fresh_prompts(base, 2)
    assert fresh == {"a"}
    assert prompts.rows() == [("a", 2), ("a", 3), ("b", 0), ("b", 1)]


def test_planted_head_is_faithful_alone(tmp_path: Path) -> None:
    """One kept head of four does the whole task; heads kept for an unrelated task do nothing."""
    model = planted_gpt2(tmp_path)
    sequences = [[0, a, b, c] for a, b, c in ((1, 7, 8), (2, 8, 9), (3, 9, 7), (4, 7, 9))]
    copy = token_prompts("copy", sequences, [[ids[1]] for ids in sequences], [[5]] * 4)
    last = token_prompts("last", sequences, [[ids[-1]] for ids in sequences])
    prompts = pl.concat([copy, last])
    means = leave_one_out_means(model, prompts, 4)
    sweep = sweep_heads(model, prompts, modes=(MODE,), references={MODE: means})
    effects = head_effects(sweep, n_bootstrap=10)
    planted = (pl.col("layer") == PLANTED_HEAD[0]) & (pl.col("head") == PLANTED_HEAD[1])
    # The last token is answered by the residual stream alone, which the copying head drowns: its
    # ablation helps this task, so it ranks last among the harmful ones.
    assert effects.filter(planted, task="last", metric="loss", mode=MODE)["mean_effect"][0] < 0
    frame = reuse_faithfulness(
        model, prompts, effects, means, kept_share=0.25, held_out={"last"}, n_bootstrap=50
    )
    loss = {
        (row["heads_of"], row["measured_on"]): row
        for row in frame.filter(metric="loss").iter_rows(named=True)
    }
    own = loss["copy", "copy"]
    assert own["n_kept"] == 1
    assert own["faithfulness"] == pytest.approx(1.0, abs=1e-5)
    assert own["ci_low"] == pytest.approx(1.0, abs=1e-5)
    assert loss["last", "copy"]["faithfulness"] == pytest.approx(0.0, abs=1e-5)
    assert 0 <= own["random_faithfulness"] < 1
    assert own["held_out"] is False
    assert loss["copy", "last"]["held_out"] is True
    assert own["mean_clean"] == pytest.approx(sweep.clean["loss"][:4].mean(), abs=1e-5)
    diff = frame.filter(metric="logit_diff")
    assert set(diff["measured_on"]) == set(diff["heads_of"]) == {"copy"}  # last has no wrong tokens
