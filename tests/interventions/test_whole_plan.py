"""What can be run is told from what cannot, before anything runs, and why is said of each."""

from collections.abc import Sequence

import polars as pl
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from mechinterp_assets.interventions.api import request, run
from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.kinds.edge import EditEdge
from mechinterp_assets.interventions.kinds.head_ablation import AblateHead, head_ablations
from mechinterp_assets.interventions.plan import (
    PLAN_SCHEMA,
    fitting,
    left_out,
    plan_rows,
    without_rows,
)
from mechinterp_assets.interventions.prompts import prompt_groups
from mechinterp_assets.interventions.runs import clean_run
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel


def ablation(head: int) -> AblateHead:
    return AblateHead(mode="zero", layer=0, head=head)


@pytest.mark.parametrize("bad", [(), (0,), (3, 4), (0, 9), tuple(range(10))])
def test_each_refusal_is_found_and_the_order_kept(bad: tuple[int, ...]) -> None:
    planned = [ablation(head) for head in range(10)]
    calls = 0

    def check(part: Sequence[Planned]) -> None:
        nonlocal calls
        calls += 1
        for one in part:
            if isinstance(one, AblateHead) and one.head in bad:
                raise InterventionError(f"{one.id}: head {one.head} is bad")

    plan = fitting(planned, check)
    assert plan.runs == tuple(one for one in planned if one.head not in bad)
    assert plan.reasons == {ablation(head).id: f"head {head} is bad" for head in bad}
    assert bad or calls == 1  # what can all be run is looked at once


def test_rows_say_what_changes(organism: LanguageModel) -> None:
    plan = fitting([ablation(0)], lambda part: None)
    (row,) = plan_rows(plan, organism.config, task="ioi", asked_by="mine")
    assert row == {
        "task": "ioi",
        "asked_by": "mine",
        "intervention": "zero:L0H0:all",
        "decision": "run",
        "reason": None,
    }
    whole = left_out("no prompts", task="ioi", asked_by="mine")
    assert (whole["intervention"], whole["decision"], whole["reason"]) == (
        None,
        "left out",
        "no prompts",
    )


def test_what_gave_no_rows_is_left_out_afterwards(
    organism: LanguageModel, base: pl.DataFrame
) -> None:
    planned = [ablation(0), ablation(1)]
    rows = plan_rows(fitting(planned, lambda part: None), organism.config, task="ioi", asked_by="x")
    rows += [left_out("never", task="ioi", asked_by="y")]
    before = pl.DataFrame(rows, schema=PLAN_SCHEMA)
    after, unmade = without_rows(before, run(organism, base, [ablation(0)]))
    assert unmade.rows() == [("ioi", ablation(1).id)]
    assert after["decision"].to_list() == ["run", "left out", "left out"]
    assert after["reason"].to_list()[::2] == [None, "never"]
    assert "none of the prompts" in after["reason"][1]


def test_whatever_would_be_refused_is_left_out_and_the_rest_runs(
    organism: LanguageModel, ioi: pl.DataFrame
) -> None:
    edge = EditEdge(
        mode="ablate",
        layer=2,
        head=0,
        upstream_layer=0,
        upstream_head=0,
        destination_role="END",
        source_role="S2",
        side="source",
        scope="global",
    )
    shared = {"mode": "noise", "site": "attn_out", "layer": 1}
    asked: dict[str, Planned | dict[str, object]] = {
        "layer 9 does not exist": {"kind": "head_ablation", "mode": "zero", "layer": 9, "head": 0},
        "head 40 does not exist": {"kind": "head_ablation", "mode": "zero", "layer": 0, "head": 40},
        "no role 'S3'": {"kind": "layer_ablation", "mode": "zero", "site": "z", "layer": 0}
        | {"position_role": "S3"},
        "no prompts of variant 'swap'": {"kind": "activation_patching", **shared}
        | {"position_role": "S2", "source_variant": "swap"},
        "there is no SAE of layer 1": {"kind": "sae_splice", "layer": 1},
        "there are no traced edges": edge,
    }
    fine = head_ablations(1, 2, modes=["zero", "mean_counterfactual"])
    plan = request(organism, ioi, [*fine, *asked.values()]).plan()
    assert list(plan.runs) == fine
    assert len(plan.left_out) == len(asked)
    for (_, reason), expected in zip(plan.left_out, asked, strict=True):
        assert expected in reason
    results = request(organism, ioi, plan.runs).run()
    assert set(results["intervention"]) == {one.id for one in fine}
    # `run` refuses the same.
    for one in asked.values():
        with pytest.raises(InterventionError):
            run(organism, ioi, [one])


# ---- attention and MLP side by side --------------------------------------------------------------


@pytest.fixture(scope="module")
def side_by_side(
    organism: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    torch.manual_seed(6)
    config = GPTNeoXConfig(
        vocab_size=organism.config.d_vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("side_by_side")
    GPTNeoXForCausalLM(config).eval().save_pretrained(folder)
    return LanguageModel.load(folder)


def test_models_without_a_stream_between_attention_and_mlp(
    side_by_side: LanguageModel, ioi: pl.DataFrame
) -> None:
    path = {
        "kind": "path_patching",
        "senders": [[0, 1]],
        "receiver": "logits",
        "source_variant": "ABC",
    }
    asked = [
        {**path, "via_mlp": True},
        {**path, "via_mlp": False},
        {"kind": "activation_patching", "mode": "noise", "site": "resid_mid", "layer": 0}
        | {"source_variant": "ABC"},
        {"kind": "head_ablation", "mode": "zero", "layer": 1, "head": 2},
    ]
    plan = request(side_by_side, ioi, asked).plan()
    through, middle = (reason for _, reason in plan.left_out)
    assert "does not read the residual stream behind attention" in through
    assert "use via_mlp: false" in through
    assert "nothing reads resid_mid" in middle
    assert len(plan.runs) == 2

    # An ablated head is one whose output weights are zero.
    results = request(side_by_side, ioi, plan.runs).run()
    found = results.filter(kind="head_ablation", metric="loss").sort("prompt")
    d_head = side_by_side.config.d_head
    dense = side_by_side.hf.gpt_neox.layers[1].attention.dense.weight
    kept = dense.detach().clone()
    # Processed weights fold the value bias into the output's, so that it stays.
    bias = side_by_side.hf.gpt_neox.layers[1].attention.query_key_value.bias.detach()
    assert not bias.any()
    with torch.no_grad():
        dense[:, 2 * d_head : 3 * d_head] = 0
        try:
            for row in found.iter_rows(named=True):
                prompt = ioi.filter(prompt=row["prompt"]).row(0, named=True)
                logits = side_by_side.hf(torch.tensor([prompt["token_ids"]])).logits[0, -1]
                loss = -float(logits.log_softmax(-1)[prompt["io_token_id"]])
                assert row["patched"] == pytest.approx(loss, abs=1e-3)
        finally:
            dense.copy_(kept)
    assert (found["patched"] - found["clean"]).abs().max() > 1e-2


def test_resid_mid_is_what_attention_alone_adds(
    side_by_side: LanguageModel, base: pl.DataFrame
) -> None:
    context = EditContext(side_by_side)
    assert context.mlp_gap("processed", base) is not None
    group = next(prompt_groups(base, max_prompts=4, device=side_by_side.device))
    kept = clean_run(side_by_side, group, keep=["attn_out", "mlp_out"])
    for layer in range(2):
        whole = kept.resid_mid[layer] + kept.kept["mlp_out"][layer]
        torch.testing.assert_close(whole, kept.at("resid_post", layer), atol=1e-4, rtol=1e-4)
