"""Head ablations against edited weights, loops and identities."""

from collections.abc import Sequence

import polars as pl
import pytest
import torch

from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.kinds.head_ablation import head_ablations
from mechinterp_assets.interventions.parsing import parse_intervention
from mechinterp_assets.interventions.prompts import cells, donors
from mechinterp_assets.interventions.runner import intervention_sets, run_interventions
from mechinterp_assets.interventions.sets import InterventionSet
from mechinterp_assets.interventions.spec import Intervention
from mechinterp_assets.interventions.sweeps import ablate_heads
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec


def ablation(mode: str, layer: int, head: int, **more: object) -> Intervention:
    fields = {"kind": "head_ablation", "mode": mode, "layer": layer, "head": head}
    return parse_intervention({**fields, **more})


def logits_at_end(
    model: LanguageModel, prompts: pl.DataFrame, hooks: Sequence[object]
) -> torch.Tensor:
    """One prompt at a time, from the tokens on."""
    out = []
    for ids in prompts["token_ids"]:
        tokens = torch.tensor([ids.to_list()])
        with torch.no_grad():
            out.append(model.processed.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1])
    return torch.stack(out)


def expected_metrics(
    prompts: pl.DataFrame, logits: torch.Tensor, clean: torch.Tensor
) -> dict[str, torch.Tensor]:
    rows = torch.arange(len(logits))
    io = torch.tensor(prompts["io_token_id"].to_list())
    s = torch.tensor(prompts["s_token_id"].to_list())
    p, q = clean.double().softmax(-1), logits.double().softmax(-1)
    return {
        "logit_diff": (logits[rows, io] - logits[rows, s]).double(),
        "kl": (p * (p / q).log()).sum(-1),
        "loss": -q[rows, io].log(),
        "prob": q[rows, io],
    }


def assert_metrics(frame: pl.DataFrame, expected: dict[str, torch.Tensor], column: str) -> None:
    for metric, values in expected.items():
        got = torch.tensor(frame.filter(metric=metric).sort("prompt")[column].to_list())
        torch.testing.assert_close(got, values, atol=2e-4, rtol=1e-3, check_dtype=False)


def run(
    model: LanguageModel, prompts: pl.DataFrame, what: list[Intervention | InterventionSet]
) -> pl.DataFrame:
    return run_interventions(EditContext(model), prompts, what)


def test_zero_ablation_equals_zeroed_output_weights(
    organism: LanguageModel, base: pl.DataFrame
) -> None:
    layer, head = organism.config.n_layers - 2, 1
    frame = run(organism, base, [ablation("zero", layer, head)])
    clean = logits_at_end(organism, base, [])
    other = LanguageModel.load(organism.source)
    projection = other.processed.blocks[layer].attn.o.original_component.weight
    width = organism.config.d_head
    with torch.no_grad():
        projection[head * width : (head + 1) * width] = 0.0
    assert not other.weights.W_O[layer, head].any()
    ablated = logits_at_end(other, base, [])
    assert_metrics(frame, expected_metrics(base, ablated, clean), "patched")
    assert_metrics(frame, expected_metrics(base, clean, clean), "clean")
    assert (ablated - clean).abs().max() > 0.1
    assert frame.filter(metric="kl")["patched"].min() > 1e-6


def test_alpha_zero_changes_nothing(
    organism: LanguageModel, base: pl.DataFrame, abc: pl.DataFrame
) -> None:
    what = [ablation(mode, 0, 0, alpha=0.0) for mode in ("zero", "mean_counterfactual")]
    frame = run_interventions(EditContext(organism, reference_prompts=abc), base, what)
    assert (frame["patched"] - frame["clean"]).abs().max() < 1e-5
    assert frame["norm_ratio"].is_between(1 - 1e-6, 1 + 1e-6).all()
    assert frame["cosine"].is_between(1 - 1e-6, 1 + 1e-6).all()


def test_mean_of_the_prompt_itself_changes_nothing(
    organism: LanguageModel, base: pl.DataFrame
) -> None:
    """Every cell of these prompts has one prompt, so each is its own reference mean."""
    alone = base.filter(pl.Series([cells(base).count(cell) == 1 for cell in cells(base)]))
    assert alone.height >= 4
    what = [ablation("mean_counterfactual", layer, 1) for layer in range(organism.config.n_layers)]
    frame = run_interventions(EditContext(organism, reference_prompts=alone), alone, what)
    assert (frame["patched"] - frame["clean"]).abs().max() < 1e-4


def test_mean_ablation_against_a_loop(
    organism: LanguageModel, base: pl.DataFrame, abc: pl.DataFrame
) -> None:
    """Reference of three prompts in one cell; the head's z at S2 becomes their mean at S2."""
    layer, head = 1, 2
    one = base.head(1)
    twin = abc.filter(pair_id=one["pair_id"][0])
    names = [organism.encode(f" {name}")[0] for name in ("John", "Mary", "Anna")]
    ids = [twin["token_ids"][0].to_list() for _ in range(3)]
    for row, token in zip(ids, names, strict=True):
        row[one["pos_s2"][0]] = token
    reference = pl.concat([twin] * 3).with_columns(
        pl.Series("token_ids", ids, dtype=pl.List(pl.Int32)),
        pl.Series("prompt", [100, 101, 102]),
    )
    name = f"blocks.{layer}.attn.hook_z"
    seen = []
    for row in ids:
        _, cache = organism.processed.run_with_cache(torch.tensor([row]), names_filter=name)
        seen.append(cache[name][0, :, head])
    mean, place = torch.stack(seen).mean(0), one["pos_s2"][0]

    def patch(z: torch.Tensor, hook: object) -> torch.Tensor:
        z = z.clone()
        z[0, place, head] = mean[place]
        return z

    clean = logits_at_end(organism, one, [])
    patched = logits_at_end(organism, one, [(name, patch)])
    what = [ablation("mean_counterfactual", layer, head, position_role="S2")]
    frame = run_interventions(EditContext(organism, reference_prompts=reference), one, what)
    assert_metrics(frame, expected_metrics(one, patched, clean), "patched")


def test_resampling_of_the_prompts_themselves(organism: LanguageModel, base: pl.DataFrame) -> None:
    """Three prompts in one cell: each takes z at S2 from the other one that the seed draws."""
    layer, head = 1, 2
    one = base.head(1)
    place = one["pos_s2"][0]
    ids = [one["token_ids"][0].to_list() for _ in range(3)]
    for row, name in zip(ids, ("John", "Mary", "Anna"), strict=True):
        row[place] = organism.encode(f" {name}")[0]
    prompts = pl.concat([one] * 3).with_columns(
        pl.Series("token_ids", ids, dtype=pl.List(pl.Int32)), pl.Series("prompt", [0, 1, 2])
    )
    drawn = donors(prompts, None, 4)
    assert all(own != ids[row] for row, own in enumerate(drawn["token_ids"].to_list()))
    name = f"blocks.{layer}.attn.hook_z"
    patched = []
    for own, other in zip(ids, drawn["token_ids"].to_list(), strict=True):
        _, cache = organism.processed.run_with_cache(torch.tensor([other]), names_filter=name)
        target = cache[name][0, place, head]

        def patch(z: torch.Tensor, hook: object, target: torch.Tensor = target) -> torch.Tensor:
            z = z.clone()
            z[0, place, head] = target
            return z

        row = prompts.head(1).with_columns(pl.Series("token_ids", [own], pl.List(pl.Int32)))
        patched.append(logits_at_end(organism, row, [(name, patch)])[0])
    what = [ablation("resample_own", layer, head, position_role="S2", seed=4)]
    frame = run(organism, prompts, what)
    clean = logits_at_end(organism, prompts, [])
    assert_metrics(frame, expected_metrics(prompts, torch.stack(patched), clean), "patched")
    assert set(frame["reference"]) == {"own_cell"}


def test_rows_say_what_they_are_taken_from(
    organism: LanguageModel, base: pl.DataFrame, abc: pl.DataFrame
) -> None:
    pair = InterventionSet(
        name="pair", members=(ablation("mean_counterfactual", 0, 1), ablation("zero", 1, 0))
    )
    what = [
        ablation("zero", 0, 0),
        ablation("mean_counterfactual", 0, 0),
        ablation("resample_counterfactual", 0, 0, seed=1),
        pair,
    ]
    context = EditContext(organism, reference_prompts=abc)
    frame = run_interventions(context, base.head(2), what)
    said = frame.select("mode", "reference", "source_variant").unique(maintain_order=True).rows()
    assert said == [
        ("zero", "none", None),
        ("mean_counterfactual", "counterfactual_cell", "ABC"),
        ("resample_counterfactual", "counterfactual_cell", "ABC"),
        (None, None, None),
    ]
    members = intervention_sets(what, organism.config, "ioi", "ABC")
    assert members.select("reference", "source_variant").rows() == [
        ("counterfactual_cell", "ABC"),
        ("none", None),
    ]


def test_sweep_is_independent_of_the_batch_size(
    organism: LanguageModel, base: pl.DataFrame, abc: pl.DataFrame
) -> None:
    few = base.head(3)
    what = [one for one in head_ablations(organism.config.n_layers, 1) if one.layer != 1]
    large, small = (
        run_interventions(EditContext(organism, reference_prompts=abc, batch_rows=rows), few, what)
        for rows in (1000, 2)
    )
    assert large.height == len(what) * few.height * 4
    assert large.schema == polars_schema(table_spec("intervention_results"))
    keys = ["intervention", "metric", "prompt"]
    assert large.select(keys).equals(small.select(keys))
    assert (large["patched"] - small["patched"]).abs().max() < 1e-3
    assert large["cosine"].is_between(-1.0, 1.0 + 1e-9).all()


def test_set_of_heads_equals_both_hooks(organism: LanguageModel, base: pl.DataFrame) -> None:
    first, second = (0, 1), (organism.config.n_layers - 1, 0)
    both = InterventionSet(
        name="pair", members=(ablation("zero", *first), ablation("zero", *second))
    )

    def zero(head: int) -> object:
        def patch(z: torch.Tensor, hook: object) -> torch.Tensor:
            z[:, :, head] = 0.0
            return z

        return patch

    hooks = [(f"blocks.{layer}.attn.hook_z", zero(head)) for layer, head in (first, second)]
    clean = logits_at_end(organism, base, [])
    frame = run(organism, base, [both])
    assert_metrics(
        frame, expected_metrics(base, logits_at_end(organism, base, hooks), clean), "patched"
    )
    assert frame["site"].unique().to_list() == ["set"]
    table = intervention_sets([both], organism.config)
    assert table["member_id"].to_list() == [member.id for member in both.members]
    assert table.schema == polars_schema(table_spec("intervention_sets"))


def test_missing_references_and_bad_prompts_are_refused(
    organism: LanguageModel, base: pl.DataFrame, abc: pl.DataFrame
) -> None:
    with pytest.raises(InterventionError, match="mean_counterfactual needs reference prompts"):
        ablate_heads(organism, base)
    with pytest.raises(InterventionError, match=r"make the counterfactuals .* of these very"):
        ablate_heads(organism, base, abc.head(1))
    with pytest.raises(InterventionError, match="END is not its last token"):
        run(organism, base.with_columns(pl.col("pos_end") - 1), [ablation("zero", 0, 0)])
    with pytest.raises(InterventionError, match="more than once"):
        run(organism, pl.concat([base, base]), [ablation("zero", 0, 0)])
    with pytest.raises(InterventionError, match="at least one row"):
        run(organism, base.clear(), [ablation("zero", 0, 0)])


def test_every_head_is_swept(two_layers: LanguageModel, toy_prompts: pl.DataFrame) -> None:
    prompts = toy_prompts.drop("pos_verb")
    frame = ablate_heads(two_layers, prompts, prompts, position_roles=("all", "S2"))
    assert frame["intervention"].n_unique() == 2 * 4 * 2 * 2
    assert frame.height == 2 * 4 * 2 * 2 * prompts.height * 4
    made = head_ablations(2, 3, position_roles=("all", "END"))
    assert len({one.id for one in made}) == 2 * 3 * 2 * 2


def test_rope_and_grouped_queries(stories: LanguageModel) -> None:
    ids = torch.randint(3, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    prompts = pl.DataFrame(
        {
            "prompt": [0, 1],
            "token_ids": ids.tolist(),
            "n_tokens": [9, 9],
            "pos_end": [8, 8],
            "io_token_id": ids[:, 2].tolist(),
            "s_token_id": ids[:, 3].tolist(),
        }
    )
    layer, head = 2, 5

    def patch(z: torch.Tensor, hook: object) -> torch.Tensor:
        z[:, 8, head] = 0.0
        return z

    hooks = [(f"blocks.{layer}.attn.hook_z", patch)]
    clean = logits_at_end(stories, prompts, [])
    frame = run(stories, prompts, [ablation("zero", layer, head, position_role="END")])
    expected = expected_metrics(prompts, logits_at_end(stories, prompts, hooks), clean)
    assert_metrics(frame, expected, "patched")
