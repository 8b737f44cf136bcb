"""Mean-ablated head sets against hooks on the bridge and the definitions."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.ablation.cells import prompt_cells
from mechinterp_assets.ablation.references import AblationError
from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
from mechinterp_assets.faithfulness.head_sets import (
    Heads,
    HeadSet,
    HeadSetRuns,
    head_set_quality,
    knockout_scores,
    mean_z,
    random_head_sets,
)
from mechinterp_assets.faithfulness.prompt_pairs import prompt_pairs
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.model.language_model import LanguageModel


@pytest.fixture(scope="module")
def runs(organism: LanguageModel, ioi_pairs: pl.DataFrame) -> HeadSetRuns:
    model = SplitModel(organism)
    pairs = prompt_pairs(model, ioi_pairs, counterfactual="ABC", count=6)
    return HeadSetRuns(model, pairs, ioi_pairs, ioi_pairs.filter(variant="ABC"))


def by_hooks(model: LanguageModel, prompts: pl.DataFrame, keep: Heads, count: int) -> float:
    """Mean logit difference, prompt by prompt, with z replaced by hooks."""
    base = prompts.filter(variant="base").head(count)
    reference = prompts.filter(variant="ABC")
    cells = prompt_cells(reference)
    values = []
    for row, cell in zip(base.iter_rows(named=True), prompt_cells(base), strict=True):
        same = [ids for ids, c in zip(reference["token_ids"], cells, strict=True) if c == cell]
        _, cache = model.processed.run_with_cache(torch.tensor([list(ids) for ids in same]))

        def ablate(z: Tensor, hook: Any, cache: Any = cache) -> Tensor:
            layer = int(hook.name.split(".")[1])
            mean = cache[f"blocks.{layer}.attn.hook_z"].mean(0)
            for head in range(z.shape[2]):
                if (layer, head) not in keep:
                    z[:, :, head] = mean[:, head]
            return z

        logits = model.processed.run_with_hooks(
            torch.tensor([row["token_ids"]]),
            fwd_hooks=[(lambda name: name.endswith("attn.hook_z"), ablate)],
        )[0, -1]
        values.append(logits[row["answer_token_ids"][0]] - logits[row["wrong_token_ids"][0]])
    return float(torch.stack(values).mean())


@torch.no_grad()
def test_ablated_runs_are_those_of_hooks(
    organism: LanguageModel, ioi_pairs: pl.DataFrame, runs: HeadSetRuns
) -> None:
    sets = [frozenset(), runs.all_heads, frozenset({(1, 0), (1, 5), (0, 6)})]
    for keep in sets:
        expected = by_hooks(organism, ioi_pairs, keep, 6)
        assert runs.f(keep) == pytest.approx(expected, abs=1e-3)


def test_all_heads_are_the_model(split: SplitModel, toy_prompts: pl.DataFrame) -> None:
    pairs = prompt_pairs(split, toy_prompts, counterfactual="corrupt")
    runs = HeadSetRuns(split, pairs, toy_prompts, toy_prompts.filter(variant="corrupt"))
    clean = split.run(pairs.clean).final[torch.arange(len(pairs)), pairs.end]
    expected = (split.normalise(clean) * pairs.direction).sum(-1) + pairs.offset
    assert runs.f(runs.all_heads) == pytest.approx(float(expected.mean()), rel=1e-9)
    # In batches of other sizes too, whatever else runs beside them.
    again = HeadSetRuns(
        split, pairs, toy_prompts, toy_prompts.filter(variant="corrupt"), batch_rows=2
    )
    some = frozenset(sorted(runs.all_heads)[::2])
    again.run([frozenset(), some, runs.all_heads])
    assert again.f(some) == pytest.approx(runs.f(some), rel=1e-9)


def test_sets_that_begin_alike_share_layers_and_get_what_each_gets_alone(
    split: SplitModel, toy_prompts: pl.DataFrame
) -> None:
    pairs = prompt_pairs(split, toy_prompts, counterfactual="corrupt")
    together, alone = (
        HeadSetRuns(split, pairs, toy_prompts, toy_prompts.filter(variant="corrupt"), batch_rows=n)
        for n in (512, 1)
    )
    heads = sorted(together.all_heads)
    sets = [frozenset(heads[:n]) for n in range(len(heads) + 1)]
    sets += [together.all_heads - {head} for head in heads]
    together.run(sets)
    for one in sets:
        alone.run([one])
        assert together.f(one) == pytest.approx(alone.f(one), rel=1e-9)


def test_means_are_by_cell(split: SplitModel, toy_prompts: pl.DataFrame) -> None:
    reference = toy_prompts.filter(variant="corrupt")
    means = mean_z(split, reference, batch_rows=2)
    assert sorted(means.n.values()) == [1, 2, 2]  # lengths 6, 7, 9
    nines = reference.filter(n_tokens=9)
    expected = split.run(torch.tensor(nines["token_ids"].to_list())).z[1].mean(0)
    found = means.mean(prompt_cells(nines)[0], 1)
    torch.testing.assert_close(found, expected, check_dtype=False)


def test_quality_is_by_definition(runs: HeadSetRuns) -> None:
    heads = frozenset({(1, 0), (1, 5), (1, 7), (0, 6)})
    one = HeadSet("chosen", heads, {"role": frozenset({(1, 0), (4, 4)})})
    frame = head_set_quality(runs, [one], random_subsets=1, seed=0)
    full = runs.f(runs.all_heads)
    rows = {(r["quantity"], r["subset"]): r for r in frame.to_dicts() if r["layer"] is None}
    alone = rows["faithfulness", "none"]
    assert alone["gap"] == pytest.approx(abs(runs.f(heads) - full))
    assert alone["relative"] == pytest.approx(alone["gap"] / abs(full))
    role = rows["completeness", "role"]
    gone = frozenset({(1, 0)})
    assert role["gap"] == pytest.approx(abs(runs.f(heads - gone) - runs.f(runs.all_heads - gone)))
    assert role["n_removed"] == 1
    whole = rows["completeness", "all"]
    expected = abs(runs.f(frozenset()) - runs.f(runs.all_heads - heads))
    assert whole["gap"] == pytest.approx(expected)
    minimality = frame.filter(quantity="minimality")
    assert minimality.height == len(heads)
    for row in minimality.to_dicts():
        head = frozenset({(row["layer"], row["head"])})
        assert row["gap"] >= abs(runs.f(heads) - runs.f(heads - head)) - 1e-9


def test_intervals_are_of_the_mean_over_prompts(runs: HeadSetRuns) -> None:
    """Percentiles of means of resampled prompts, around the mean itself."""
    heads = frozenset({(3, 3), (2, 6), (0, 1)})
    values = runs.logit_differences([heads])[0]
    low, high = runs.interval(heads, n_bootstrap=4000, seed=3)
    generator = np.random.default_rng(11)
    means = [generator.choice(values, len(values)).mean() for _ in range(4000)]
    assert runs.f(heads) == pytest.approx(values.mean())
    assert low is not None
    assert high is not None
    assert low < runs.f(heads) < high
    # Two samples of 4000 means: quantiles within a few of their standard errors.
    spread = values.std() / np.sqrt(len(values))
    assert [low, high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.2 * spread)


def test_single_knockouts(runs: HeadSetRuns) -> None:
    scores = knockout_scores(runs)
    assert scores.shape == (5, 8)
    without = runs.all_heads - {(1, 5)}
    assert scores[1, 5] == pytest.approx(runs.f(runs.all_heads) - runs.f(without))


def test_random_sets_have_their_size(runs: HeadSetRuns) -> None:
    sets = random_head_sets(runs, 7, count=3, seed=0, name="trace")
    assert [len(one.heads) for one in sets] == [7, 7, 7]
    assert len({one.heads for one in sets}) == 3
    frame = head_set_quality(runs, sets)
    assert frame["quantity"].unique().to_list() == ["faithfulness"]
    assert np.isfinite(frame["gap"].to_numpy()).all()


def test_bad_sets_are_named(
    runs: HeadSetRuns, organism: LanguageModel, ioi_pairs: pl.DataFrame
) -> None:
    with pytest.raises(FaithfulnessError, match=r"head L9H9 does not exist"):
        runs.f(frozenset({(9, 9)}))
    model = SplitModel(organism)
    pairs = prompt_pairs(model, ioi_pairs, counterfactual="ABC", count=6)
    with pytest.raises(AblationError, match="no reference prompt of the same template"):
        HeadSetRuns(model, pairs, ioi_pairs, ioi_pairs.filter(variant="ABC").tail(1))
