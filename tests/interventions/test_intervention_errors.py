"""What cannot be run is refused before anything is, with the value and the remedy."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.descriptions import (
    expand,
    layers_with_saes,
    load_interventions,
)
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import from_ioi
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.sae.architectures.standard import StandardSAE

WATCH = {"layer": 2, "head": 0, "destination_role": "END", "source_role": "IO"}
PATCH = {
    "kind": "activation_patching",
    "mode": "noise",
    "site": "attn_out",
    "layer": 1,
    "position_role": "S2",
    "source_variant": "swap",
}
PATH = {
    "kind": "path_patching",
    "senders": [(0, 1)],
    "receiver": "q",
    "receivers": [(2, 0)],
    "receiver_role": "END",
    "source_variant": "swap",
}
FEATURE = {"kind": "sae_feature_ablation", "layer": 1, "feature": 2, "position_role": "S2"}


@pytest.fixture(scope="module")
def prompts(organism: LanguageModel) -> pl.DataFrame:
    return ioi_prompts(
        organism.encode, 4, 0, organism.bos_token_id, ("base", "swap", "filler_before")
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**PATCH, "kind": "patching"}, "unknown kind 'patching'; one of activation"),
        ({**PATCH, "hed": 3}, r"activation_patching: hed: Extra inputs .* \(value 3\)"),
        ({**PATCH, "head": 3}, "head belongs to site 'z'; attn_out has no heads"),
        ({**PATCH, "site": "resid_pre", "versus": "zero"}, "an ablation of resid_pre is nothing"),
        ({**PATCH, "layer": 9}, r"layer 9 does not exist; the model has 0\.\.4"),
        ({**PATCH, "site": "z", "head": 8}, r"head 8 does not exist; the model has 0\.\.7"),
        (
            {**PATCH, "position_role": "S3"},
            r"have no role 'S3'; choose one of \['all', 'all_but_bos', 'IO'",
        ),
        ({**PATCH, "source_variant": "swapped"}, "no prompts of variant 'swapped'; given: "),
        (
            {**PATCH, "position_role": "all", "source_variant": "filler_before"},
            "has 14 tokens and its filler_before prompt 20, .* name a position_role",
        ),
        ({**PATH, "receivers": None}, "receiver 'q' needs receivers"),
        ({**PATH, "receiver": "logits"}, "leave receivers and receiver_role out"),
        ({**PATH, "senders": [(3, 1)]}, "receiver L2H0 does not lie behind layer 3"),
        ({**PATH, "senders": [(0, 1), (2, 1)]}, "L2H0 does not lie behind the sender in layer 2"),
        ({**PATH, "senders": [(0, 11)]}, r"senders head 11 does not exist; the model has 0\.\.7"),
        ({**PATH, "receivers": [(4, 9)]}, r"receivers head 9 does not exist; the model has 0\.\.7"),
        ({**PATH, "receiver_role": "S4"}, "the prompts have no role 'S4'"),
        ({**FEATURE, "layer": 3}, r"there is no SAE of layer 3 \(given: \[1, 2\]\)"),
        ({**FEATURE, "feature": 40}, r"feature 40 does not exist; .* has features 0\.\.15"),
        ({**FEATURE, "layer": 2}, "SAE of layer 2 takes 8 dimensions, but z has 192"),
        ({**FEATURE, "weights": "processed"}, "runs on raw weights; leave weights out"),
        (
            {"kind": "head_ablation", "mode": "resample_own", "layer": 0, "head": 0},
            "seed is given exactly for resampling",
        ),
        (
            {"kind": "head_ablation", "mode": "mean", "layer": 0, "head": 0},
            r"mode: Input should be 'zero', 'mean_counterfactual', .* \(value 'mean'\)",
        ),
        (
            {"kind": "head_ablation", "mode": "mean_counterfactual", "layer": 0, "head": 0},
            "mean_counterfactual needs reference prompts: give the counterfactuals",
        ),
        (
            {"kind": "layer_ablation", "mode": "resample_counterfactual", "layer": 0, "seed": 1,
             "site": "z"},
            "resample_counterfactual needs reference prompts: give the counterfactuals",
        ),
        (
            {"kind": "head_ablation", "mode": "resample_own", "layer": 0, "head": 0, "seed": 1},
            "prompt 0 has no other prompt of the same template",
        ),
        ({"kind": "steering", "layer": 1}, "give exactly one of feature and direction"),
        (
            {"kind": "steering", "layer": 1, "direction": "truth"},
            r"there is no direction 'truth' \(given: \['short'\]\); pass it in directions",
        ),
        (
            {"kind": "steering", "layer": 1, "direction": "short"},
            r"direction 'short' has shape \(3,\); give a finite vector of d_model = 192",
        ),
        (
            {"kind": "head_scaling", "layer": 1, "head": 0, "channel": 24},
            r"channel 24 does not exist; the model has 0\.\.23",
        ),
        (
            {**PATCH, "watch": {**dict.fromkeys(("layer", "head"), 7), "destination_role": "END",
                                "source_role": "IO"}},
            r"watch\.layer 7 does not exist",
        ),
        (
            {"kind": "edge", "mode": "ablate", "layer": 2, "head": 0, "upstream_layer": 0,
             "upstream_head": 0, "destination_role": "END", "source_role": "IO",
             "side": "source", "scope": "global"},
            "there are no traced edges; give the frame trace_edges",
        ),
        ({**PATCH, "layer": []}, "layer is an empty list"),
        ({"name": "x", "members": [PATCH]}, "set 'x' has 1 members; give at least 2"),
        (
            {"name": "x", "members": [PATCH, {**PATCH, "source_variant": "filler_before"}]},
            "set 'x' edits attn_out of L1 at S2 twice",
        ),
        (
            {"name": "x", "members": [PATCH, {**PATCH, "mode": "denoise", "layer": 2}]},
            "members of set 'x' differ in the run that is edited",
        ),
        ({"name": "x", "members": [PATCH, FEATURE]}, "members of set 'x' differ in weights"),
        (
            {"name": "x", "members": [FEATURE, {"kind": "sae_splice", "layer": 1}]},
            r"set 'x' edits SAE feature of L1 at all twice",
        ),
        (
            {
                "name": "x",
                "members": [{**PATCH, "position_role": role} for role in ("AND", "S1+1")],
            },
            r"set:x: attn_out of L1 at AND and attn_out of L1 at S1\+1 are one site in prompt",
        ),
        (
            {"name": "x", "members": [PATCH, {**PATCH, "layer": 2, "watch": WATCH}]},
            r"member noise.* of set 'x' has a watch of its own; .* give `watch` to the set",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run(
    organism: LanguageModel, prompts: pl.DataFrame, given: dict[str, Any], message: str
) -> None:
    def sae(width: int) -> StandardSAE:
        return StandardSAE(
            torch.zeros(width, 16), torch.zeros(16), torch.zeros(16, width), torch.zeros(width)
        )

    with pytest.raises(InterventionError, match=message):
        run(
            organism,
            prompts,
            [given],
            saes={1: sae(organism.config.d_z), 2: sae(8)},
            directions={"short": torch.ones(3)},
            progress=lambda done, total: pytest.fail("something was run"),
        )


def test_bad_prompts(organism: LanguageModel, prompts: pl.DataFrame) -> None:
    with pytest.raises(InterventionError, match=r"no prompts of variant 'basis'; given: \['base'"):
        run(organism, prompts, [PATCH], variant="basis")
    incomplete = prompts.filter((pl.col("variant") == "base") | (pl.col("pair_id") < 2))
    with pytest.raises(InterventionError, match="2 prompts have no swap prompt of their pair"):
        run(organism, incomplete, [PATCH])
    form = from_ioi(prompts)
    two = pl.concat([form, form.with_columns(task=pl.lit("other"))])
    with pytest.raises(InterventionError, match="prompts of several tasks"):
        run(organism, two, [PATCH])
    with pytest.raises(InterventionError, match=r"lack the columns \['roles'\]"):
        run(organism, form.drop("roles"), [PATCH])
    huge = form.with_columns(answer_token_ids=pl.lit([9999], pl.List(pl.Int32)))
    with pytest.raises(InterventionError, match="token id 9999 but the model has 4096 tokens"):
        run(organism, huge, [PATCH])


def test_descriptions_are_swept_and_read_from_yaml(tmp_path: Path, organism: LanguageModel) -> None:
    swept = {**PATCH, "layer": "all", "position_role": ["S2", "END"]}
    assert len(expand([swept], organism.config)) == organism.config.n_layers * 2
    file = tmp_path / "mine.yaml"
    file.write_text(
        "- {kind: head_ablation, mode: [zero, mean_counterfactual], layer: 1, head: all}\n"
        "- name: both\n"
        "  members:\n"
        "    - {kind: sae_splice, layer: 1, versus: mean_counterfactual}\n"
        "    - {kind: sae_splice, layer: 3, versus: mean_counterfactual}\n"
    )
    planned = load_interventions(file, organism.config)
    assert [one.id for one in planned[:2]] == [
        "zero:L1H0:all",
        "mean_counterfactual:L1H0:all",
    ]
    assert len(planned) == 2 * 8 + 1
    assert layers_with_saes(planned) == [1, 3]
    file.write_text("kind: head_ablation\n")
    with pytest.raises(InterventionError, match="an intervention file is a list of mappings"):
        load_interventions(file)
    file.write_text("- {kind: head_ablation, mode: zero, layer: 1}\n")
    with pytest.raises(InterventionError, match=r"interventions\.0: head_ablation: head: Field"):
        load_interventions(file)


def test_prompts_of_a_task_without_wrong_tokens(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    """Two answers, nothing wrong: loss and probability of both together, no logit difference."""
    form = from_ioi(prompts).with_columns(
        pl.lit("mine").alias("task"),
        pl.lit([5, 6], pl.List(pl.Int32)).alias("answer_token_ids"),
        pl.lit([], pl.List(pl.Int32)).alias("wrong_token_ids"),
    )
    given = {"kind": "head_ablation", "mode": "zero", "layer": 0, "head": [0, 1]}
    frame = run(organism, form, [given], limit=2)
    assert frame["task"].unique().to_list() == ["mine"]
    assert frame.filter(metric="logit_diff")["clean"].null_count() == 4
    row = form.filter(variant="base").row(0, named=True)
    logits = organism.processed(torch.tensor([row["token_ids"]]))[0, -1]
    prob = float(logits.softmax(-1)[[5, 6]].sum())
    assert frame.filter(metric="prob", prompt=0)["clean"][0] == pytest.approx(prob, rel=1e-4)
    same = run(organism, from_ioi(prompts), [given], limit=2)
    as_ioi = run(organism, prompts, [given], limit=2)
    assert same.equals(as_ioi)
