"""Head ablation on tasks against loops over single heads and prompts, identities, planted heads."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.ablation.references import AblationError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import run_from
from mechinterp_assets.prompts.ioi import PromptError
from mechinterp_assets.tasks.ablation import (
    SWEEP_MODES,
    Means,
    Sweep,
    counterfactual_means,
    leave_one_out_means,
    run_head_sets,
    sweep_heads,
)
from mechinterp_assets.tasks.head_effects import head_effects, random_prompts
from tests.model.computed_positions import positions_computed
from tests.tasks.models import (
    PLANTED_HEAD,
    VOCABULARY,
    planted_gpt2,
    random_gpt2,
    random_llama,
    token_prompts,
)


@pytest.fixture(scope="module", params=[random_gpt2, random_llama])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    make: Callable[[Path], LanguageModel] = request.param
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prompts() -> pl.DataFrame:
    """Five prompts of one cell, and three that are alone in theirs; one lacks wrong tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = (7, 7, 7, 7, 7, 6, 9, 10)
    sequences = [
        [0, *torch.randint(1, VOCABULARY, (n - 1,), generator=generator).tolist()] for n in lengths
    ]
    answers = [[3, 4], [5], [6], [7], [8], [9], [10, 11, 12], [13]]
    wrong = [[20], [21], [], [22, 23], [24], [25], [26], [27]]
    return token_prompts("toy", sequences, answers, wrong)


@pytest.fixture(scope="module")
def sweep(model: LanguageModel, prompts: pl.DataFrame) -> Sweep:
    means = references(model, prompts, 3)
    return sweep_heads(model, prompts, modes=SWEEP_MODES, references=means, batch_rows=7)


def references(model: LanguageModel, prompts: pl.DataFrame, batch: int) -> Means:
    """Means over the prompts themselves, without and with each its own."""
    return {
        "mean_leave_one_out": leave_one_out_means(model, prompts, batch),
        "mean_counterfactual": counterfactual_means(model, prompts, batch),
    }


def slow_z(model: LanguageModel, ids: list[int], name: str) -> torch.Tensor:
    return whole_cache(model, tuple(ids))[name][0].double()


@lru_cache
def whole_cache(model: LanguageModel, ids: tuple[int, ...]) -> dict[str, torch.Tensor]:
    cache = model.processed.run_with_cache(torch.tensor([ids]))[1]
    return {name: value for name, value in cache.items() if name.endswith(("hook_z", "hook_v"))}


def slow_target(
    model: LanguageModel, prompts: pl.DataFrame, row: int, mode: str, layer: int, head: int
) -> torch.Tensor:
    """What replaces z of one head at positions 1.., by the definition."""
    ids = [list(row) for row in prompts["token_ids"]]
    name = f"blocks.{layer}.attn.hook_z"
    length = len(ids[row])
    if mode == "zero":
        return torch.zeros(length - 1, model.config.d_head, dtype=torch.float64)
    if mode == "uniform_attention":
        v = slow_z(model, ids[row], f"blocks.{layer}.attn.hook_v")
        v = v[:, head // (model.config.n_heads // model.config.n_kv_heads)]
        return torch.stack([v[: t + 1].mean(0) for t in range(1, length)])
    if mode == "mean_counterfactual":
        cell = [i for i in range(len(ids)) if len(ids[i]) == length]
        return torch.stack([slow_z(model, ids[i], name)[1:, head] for i in cell]).mean(0)
    others = [i for i in range(len(ids)) if i != row]
    same = [i for i in others if len(ids[i]) == length]
    if len(same) >= 3:
        return torch.stack([slow_z(model, ids[i], name)[1:, head] for i in same]).mean(0)
    everywhere = torch.cat([slow_z(model, ids[i], name)[1:, head] for i in others])
    return everywhere.mean(0).expand(length - 1, -1)


def slow_metrics(
    model: LanguageModel, ids: list[int], answers: list[int], wrong: list[int], hooks: list[object]
) -> tuple[dict[str, float], torch.Tensor]:
    with torch.no_grad():
        logits = model.processed.run_with_hooks(torch.tensor([ids]), fwd_hooks=hooks)[0, -1]
    logits = logits.double()
    p = logits.softmax(-1)
    return {
        "loss": -float(p[answers].sum().log()),
        "logit_diff": float(logits[answers].mean() - logits[wrong].mean()),
    }, p


@pytest.fixture(scope="module")
def sweep_at_end(model: LanguageModel, prompts: pl.DataFrame) -> Sweep:
    means = references(model, prompts, 3)
    return sweep_heads(
        model, prompts, modes=SWEEP_MODES, references=means, position_role="END", batch_rows=7
    )


@pytest.mark.parametrize("position_role", ["all_but_bos", "END"])
@pytest.mark.parametrize("mode", SWEEP_MODES)
def test_sweep_against_a_loop(
    model: LanguageModel,
    prompts: pl.DataFrame,
    sweep: Sweep,
    sweep_at_end: Sweep,
    mode: str,
    position_role: str,
) -> None:
    """Full passes from the tokens, one prompt and one head at a time."""
    sweep = sweep_at_end if position_role == "END" else sweep
    assert head_effects(sweep, n_bootstrap=2)["position_role"].unique().to_list() == [position_role]
    first = -1 if position_role == "END" else 1
    for row in (0, 2, 6):
        record = prompts.row(row, named=True)
        ids, answers, wrong = (
            record[name] for name in ("token_ids", "answer_token_ids", "wrong_token_ids")
        )
        clean, p = slow_metrics(model, ids, answers, wrong, [])
        for layer in range(model.config.n_layers):
            for head in range(model.config.n_heads):
                target = slow_target(model, prompts, row, mode, layer, head)

                def replace(
                    z: torch.Tensor,
                    hook: object,
                    head: int = head,
                    target: torch.Tensor = target,
                ) -> torch.Tensor:
                    z[0, first:, head] = target[min(first, 0) :].to(z)
                    return z

                name = f"blocks.{layer}.attn.hook_z"
                expected, q = slow_metrics(model, ids, answers, wrong, [(name, replace)])
                expected["kl"] = float((p * (p / q).log()).sum())
                where = (SWEEP_MODES.index(mode), layer, head, row)
                for metric, value in expected.items():
                    got = sweep.ablated[metric][where]
                    assert np.isnan(got) if np.isnan(value) else abs(got - value) < 1e-5, metric
        for metric, value in clean.items():
            got = sweep.clean[metric][row]
            assert np.isnan(got) if np.isnan(value) else abs(got - value) < 1e-5, metric
    assert np.abs(sweep.ablated["loss"] - sweep.clean["loss"]).max() > 0.1


@pytest.mark.parametrize("position_role", ["all_but_bos", "END"])
def test_what_an_edit_cannot_reach_is_not_computed(
    model: LanguageModel, prompts: pl.DataFrame, position_role: Any
) -> None:
    """Neither layers before the head nor positions before the first edited one; of the last layer's
    heads END alone. The clean run computes everything once.
    """
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    sweep_heads(model, prompts, position_role=position_role)  # the model is asked what it can
    with positions_computed(model) as counts:
        sweep_heads(model, prompts, position_role=position_role)
    lengths = prompts["n_tokens"].to_numpy()
    edited = np.ones_like(lengths) if position_role == "END" else lengths - 1
    expected = [
        int((lengths + min(layer + 1, n_layers - 1) * n_heads * edited).sum())
        for layer in range(n_layers)
    ]
    expected[-1] += n_heads * len(lengths)
    assert counts == expected


def test_alpha_zero_changes_nothing(model: LanguageModel, prompts: pl.DataFrame) -> None:
    means = references(model, prompts, 8)
    still = sweep_heads(
        model, prompts, modes=SWEEP_MODES, references=means, alpha=0.0, batch_rows=64
    )
    defined = ~np.isnan(still.clean["logit_diff"])
    for metric in ("loss", "kl", "logit_diff"):
        change = (still.ablated[metric] - still.clean[metric])[..., defined]
        assert np.abs(change).max() < 1e-5


def test_sweep_does_not_depend_on_the_batch(
    model: LanguageModel, prompts: pl.DataFrame, sweep: Sweep
) -> None:
    means = references(model, prompts, 2)
    other = sweep_heads(model, prompts, modes=SWEEP_MODES, references=means, batch_rows=1000)
    np.testing.assert_allclose(other.ablated["loss"], sweep.ablated["loss"], atol=1e-5)


def test_head_sets(model: LanguageModel, prompts: pl.DataFrame, sweep: Sweep) -> None:
    """All heads kept: the clean run. All but one kept: that head ablated alone."""
    means = leave_one_out_means(model, prompts, 8)
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    kept = torch.ones(1 + n_layers * n_heads, n_layers, n_heads, dtype=torch.bool)
    for place in range(n_layers * n_heads):
        kept[1 + place, place // n_heads, place % n_heads] = False
    runs = run_head_sets(model, prompts, kept, means, batch_rows=30)
    np.testing.assert_allclose(runs["loss"][0], sweep.clean["loss"], atol=1e-5)
    alone = sweep.ablated["loss"][SWEEP_MODES.index("mean_leave_one_out")].reshape(
        -1, prompts.height
    )
    np.testing.assert_allclose(runs["loss"][1:], alone, atol=1e-5)


def test_run_from_equals_a_whole_pass(model: LanguageModel) -> None:
    ids = torch.randint(1, VOCABULARY, (3, 8))
    logits, cache = model.processed.run_with_cache(ids)
    for layer in range(model.config.n_layers):
        residual = cache[f"blocks.{layer}.hook_resid_pre"]
        fired: list[str] = []

        def count(residual: torch.Tensor, hook: Any, fired: list[str] = fired) -> None:
            fired.append(hook.name)

        hooks = [
            (f"blocks.{other}.hook_resid_pre", count) for other in range(model.config.n_layers)
        ]
        torch.testing.assert_close(
            run_from(model.processed, residual, layer, hooks), logits[:, -1], atol=1e-5, rtol=1e-5
        )
        assert len(fired) == model.config.n_layers - layer
    torch.testing.assert_close(model.processed(ids), logits)  # nothing is left behind


def test_planted_head_alone_does_the_task(tmp_path: Path) -> None:
    planted = planted_gpt2(tmp_path)
    sequences = [[0, a, b, c] for a, b, c in ((1, 7, 8), (2, 8, 9), (3, 9, 7), (4, 7, 9))]
    prompts = token_prompts("copy", sequences, [[ids[1]] for ids in sequences], [[5]] * 4)
    means = references(planted, prompts, 4)
    sweep = sweep_heads(planted, prompts, modes=("zero", "mean_leave_one_out"), references=means)
    assert sweep.clean["loss"].max() < 0.1
    effects = head_effects(sweep, n_bootstrap=50).filter(metric="loss")
    heads = pl.struct("layer", "head") == pl.struct(
        pl.lit(PLANTED_HEAD[0], pl.Int32).alias("layer"),
        pl.lit(PLANTED_HEAD[1], pl.Int32).alias("head"),
    )
    assert effects.filter(heads)["mean_effect"].min() > 2.0
    assert effects.filter(heads)["ci_low"].min() > 1.0
    assert effects.filter(~heads)["mean_effect"].abs().max() < 1e-6


def test_effects_are_means_over_prompts(sweep: Sweep) -> None:
    effects = head_effects(sweep, n_bootstrap=200)
    shape = sweep.ablated["loss"].shape
    assert effects.height == 3 * shape[0] * shape[1] * shape[2]
    mode = "mean_leave_one_out"
    row = effects.filter(metric="logit_diff", mode=mode, layer=2, head=3).row(0, named=True)
    place = SWEEP_MODES.index(mode)
    change = (sweep.ablated["logit_diff"] - sweep.clean["logit_diff"])[place, 2, 3]
    change = change[~np.isnan(change)]
    assert row["n"] == 7
    assert row["mean_effect"] == pytest.approx(change.mean())
    assert row["mean_ablated"] - row["mean_clean"] == pytest.approx(change.mean())
    assert row["ci_low"] < row["mean_effect"] < row["ci_high"]
    assert effects["null_ratio"].is_null().all()


def test_rows_say_what_means_are_over(sweep: Sweep) -> None:
    """Five prompts share a cell, three are alone in theirs; one of the five has no wrong token."""
    effects = head_effects(sweep, n_bootstrap=10).filter(layer=0, head=0)
    columns = ("mode", "reference", "fallback_share")
    assert effects.filter(metric="loss").select(columns).rows() == [
        ("zero", "none", None),
        ("mean_counterfactual", "counterfactual_cell", None),
        ("mean_leave_one_out", "own_cell_and_task", 3 / 8),
        ("uniform_attention", "none", None),
    ]
    own = effects.filter(metric="logit_diff", mode="mean_leave_one_out")
    assert own["fallback_share"].to_list() == [3 / 7]
    assert set(effects["position_role"]) == {"all_but_bos"}


def test_kl_stands_beside_random_prompts(model: LanguageModel, prompts: pl.DataFrame) -> None:
    random = random_prompts(model, prompts, 16, 0)
    assert random["n_tokens"].n_unique() <= 4
    assert all(0 not in ids[1:] for ids in random["token_ids"].to_list())
    assert random.equals(random_prompts(model, prompts, 16, 0))
    null = sweep_heads(model, random, modes=("zero",))
    effects = head_effects(sweep_heads(model, prompts, modes=("zero",)), null, n_bootstrap=10)
    kl = effects.filter(metric="kl", layer=1, head=2).row(0, named=True)
    assert kl["null_mean_kl"] == pytest.approx(null.ablated["kl"][0, 1, 2].mean())
    assert kl["null_ratio"] == pytest.approx(kl["mean_effect"] / kl["null_mean_kl"])
    assert effects.filter(pl.col("metric") != "kl")["null_mean_kl"].is_null().all()


def test_importance_by_kl_needs_no_answers(
    model: LanguageModel, prompts: pl.DataFrame, sweep: Sweep
) -> None:
    none = pl.lit([], pl.List(pl.Int32))
    bare = prompts.with_columns(answer_token_ids=none, wrong_token_ids=none)
    means = references(model, bare, 3)
    found = sweep_heads(model, bare, modes=SWEEP_MODES, references=means, batch_rows=7)
    assert np.array_equal(found.ablated["kl"], sweep.ablated["kl"])
    assert np.isnan(found.ablated["loss"]).all()
    effects, whole = head_effects(found, found), head_effects(sweep, sweep)
    assert set(effects["metric"]) == {"kl"}
    assert effects.equals(whole.filter(metric="kl"))
    assert set(effects["null_n"]) == {len(bare)}


def test_refused_before_any_run(tmp_path: Path, prompts: pl.DataFrame) -> None:
    model = random_gpt2(tmp_path)
    mode = "mean_leave_one_out"
    with pytest.raises(PromptError, match="mean_leave_one_out needs reference prompts"):
        sweep_heads(model, prompts, modes=(mode,))
    few = {mode: leave_one_out_means(model, prompts.head(3), 8)}
    with pytest.raises(AblationError, match="is not among the reference prompts"):
        sweep_heads(model, prompts, modes=(mode,), references=few)
    one = prompts.head(1)
    alone = {mode: leave_one_out_means(model, one, 8)}
    with pytest.raises(AblationError, match="has one prompt, and mean_leave_one_out takes the mea"):
        sweep_heads(model, one, modes=(mode,), references=alone)
    cells = {"mean_counterfactual": counterfactual_means(model, prompts.head(5), 8)}
    with pytest.raises(AblationError, match=r"3 prompts have no reference .* \(prompt 5: task toy"):
        sweep_heads(model, prompts, modes=("mean_counterfactual",), references=cells)
    with pytest.raises(PromptError, match="is given twice"):
        sweep_heads(model, pl.concat([one, one]), modes=("zero",))
    with pytest.raises(PromptError, match=r"modes \['zero', 'zero'\]"):
        sweep_heads(model, one, modes=("zero", "zero"))
    long = token_prompts("long", [[1] * 17], [[2]])
    with pytest.raises(PromptError, match="17 tokens"):
        sweep_heads(model, long, modes=("zero",))
