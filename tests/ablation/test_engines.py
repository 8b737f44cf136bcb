"""One ablation, three engines: the same head, prompts, mode and reference have the same effect."""

from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

from mechinterp_assets.faithfulness.head_sets import HeadSetRuns
from mechinterp_assets.faithfulness.prompt_pairs import prompt_pairs
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.kinds.head_ablation import AblationMode, head_ablations
from mechinterp_assets.interventions.runner import run_interventions
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import from_ioi
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.tasks.ablation import counterfactual_means, sweep_heads
from mechinterp_assets.tasks.head_effects import head_effects

# Logit differences of the embedded model are around 20.
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def prompts(organism: LanguageModel) -> pl.DataFrame:
    made = ioi_prompts(organism.encode, 12, 3, organism.bos_token_id, ("base", "ABC"))
    assert made["n_tokens"].n_unique() > 1
    return from_ioi(made)


def by_interventions(
    model: LanguageModel, prompts: pl.DataFrame, mode: AblationMode, role: str
) -> np.ndarray:
    """Effect on the logit difference [layer, head, prompt]."""
    shape = model.config
    planned = head_ablations(shape.n_layers, shape.n_heads, modes=(mode,), position_roles=(role,))
    context = EditContext(model, reference_prompts=prompts.filter(variant="ABC"))
    frame = run_interventions(context, prompts.filter(variant="base"), planned)
    rows = frame.filter(metric="logit_diff").sort("layer", "head", "prompt")
    effects = (rows["patched"] - rows["clean"]).to_numpy()
    return effects.reshape(shape.n_layers, shape.n_heads, -1)


def by_sweep(
    model: LanguageModel, prompts: pl.DataFrame, mode: AblationMode
) -> tuple[np.ndarray, Mapping[str, object]]:
    means = {"mean_counterfactual": counterfactual_means(model, prompts.filter(variant="ABC"), 64)}
    base = prompts.filter(variant="base")
    sweep = sweep_heads(model, base, modes=(mode,), references=means)
    said = head_effects(sweep, n_bootstrap=2).row(0, named=True)
    return (sweep.ablated["logit_diff"] - sweep.clean["logit_diff"])[0], said


@pytest.mark.parametrize("mode", ["zero", "mean_counterfactual"])
def test_sweep_and_interventions_agree(
    organism: LanguageModel, prompts: pl.DataFrame, mode: AblationMode
) -> None:
    swept, said = by_sweep(organism, prompts, mode)
    run = by_interventions(organism, prompts, mode, str(said["position_role"]))
    np.testing.assert_allclose(swept, run, atol=TOLERANCE)
    assert np.abs(run).max() > 1.0


def test_interventions_and_head_sets_agree(organism: LanguageModel, prompts: pl.DataFrame) -> None:
    """All heads but one kept: that head ablated alone."""
    split = SplitModel(organism)
    pairs = prompt_pairs(split, prompts, counterfactual="ABC")
    runs = HeadSetRuns(split, pairs, prompts, prompts.filter(variant="ABC"))
    every = sorted(runs.all_heads)
    found = runs.logit_differences([runs.all_heads, *(runs.all_heads - {one} for one in every)])
    effects = (found[1:] - found[0]).reshape(organism.config.n_layers, -1, len(pairs))
    run = by_interventions(organism, prompts, "mean_counterfactual", "all")
    np.testing.assert_allclose(effects, run, atol=TOLERANCE)


def test_what_differs_has_another_name(organism: LanguageModel, prompts: pl.DataFrame) -> None:
    """BOS zeroed too is another number, and so is another position role."""
    everywhere = by_interventions(organism, prompts, "zero", "all")
    but_bos = by_interventions(organism, prompts, "zero", "all_but_bos")
    assert np.abs(everywhere - but_bos).max() > 0.1
