"""Identities that interventions of every kind must obey, and planted models."""

from typing import Any

import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.interventions import runner
from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.descriptions import expand
from mechinterp_assets.interventions.kinds.path_patching import path_sweep
from mechinterp_assets.interventions.runs import Edit
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.summary import intervention_summary
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import from_ioi
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.base import SparseAutoencoder

LAYERS = "all"


@pytest.fixture(scope="module")
def prompts(organism: LanguageModel) -> pl.DataFrame:
    variants = ("base", "ABC", "filler_before", "random_names")
    return ioi_prompts(organism.encode, 4, 1, organism.bos_token_id, variants)


def perfect_sae(model: LanguageModel) -> SparseAutoencoder:
    """x = relu(x) - relu(-x), so that the reconstruction is the activation itself."""
    eye = torch.eye(model.config.d_z)
    decoder = torch.cat([eye, -eye])
    zeros = torch.zeros(model.config.d_z)
    return StandardSAE(decoder.T.contiguous(), torch.zeros(2 * len(eye)), decoder, zeros)


def biggest_change(frame: pl.DataFrame, base: str = "clean") -> float:
    assert not frame.is_empty()
    return float((frame["patched"] - frame[base]).abs().max())


def everything(mode: str, layers: int) -> dict[str, Any]:
    shared = {"kind": "activation_patching", "mode": mode, "source_variant": "random_names"}
    members = [{**shared, "site": "resid_pre", "layer": 0}]
    members += [
        {**shared, "site": site, "layer": layer}
        for layer in range(layers)
        for site in ("attn_out", "mlp_out")
    ]
    return {"name": mode, "members": members}


@pytest.mark.parametrize(("mode", "becomes"), [("denoise", "clean"), ("noise", "corrupt")])
@pytest.mark.parametrize("view", ["raw", "processed"])
def test_patching_everything_gives_the_other_run(
    organism: LanguageModel, prompts: pl.DataFrame, mode: str, becomes: str, view: str
) -> None:
    layers = organism.config.n_layers
    given = everything(mode, layers)
    given["members"] = [{**member, "weights": view} for member in given["members"]]
    embedding = {"kind": "activation_patching", "mode": mode, "site": "resid_pre", "layer": 0}
    embedding |= {"source_variant": "random_names", "weights": view}
    last = {**embedding, "site": "resid_post", "layer": layers - 1, "position_role": "END"}
    last["source_variant"] = "filler_before"
    frame = run(organism, prompts, [given, embedding, last])
    assert biggest_change(frame, becomes) < 1e-5
    assert biggest_change(frame, "corrupt" if becomes == "clean" else "clean") > 0.1


def test_zero_size_edits_change_nothing(organism: LanguageModel, prompts: pl.DataFrame) -> None:
    shared = {"alpha": 0.0, "layer": 1, "position_role": "S2"}
    patch = {**shared, "kind": "activation_patching", "source_variant": "filler_before"}
    path = {**shared, "kind": "path_patching", "source_variant": "ABC", "via_mlp": True}
    sites = ["attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post"]
    given: list[dict[str, Any]] = [
        {**shared, "kind": "head_ablation", "head": 2, "mode": ["zero", "mean_counterfactual"]},
        {
            **shared,
            "kind": "head_ablation",
            "head": 2,
            "mode": "resample_counterfactual",
            "seed": 0,
        },
        {
            **shared,
            "kind": "layer_ablation",
            "site": ["z", "attn_out", "mlp_out"],
            "mode": "mean_counterfactual",
        },
        {**patch, "mode": "noise", "site": ["z", *sites]},
        {**path, "senders": [(1, 2)], "receiver": "logits"},
        {**path, "senders": [(1, 2)], "receiver": "q", "receivers": [(3, 3)]},
        {**shared, "kind": "sae_feature_ablation", "feature": [0, 1]},
        {**shared, "kind": "sae_splice"},
        {
            **shared,
            "kind": "sae_feature_path",
            "feature": 1,
            "receiver": "v",
            "receivers": [(2, 0)],
        },
        {**shared, "kind": "steering", "feature": 3},
        {**shared, "kind": "steering", "site": sites, "direction": "ones"},
        {**shared, "kind": "head_scaling", "head": 2, "alpha": 1.0},
        {**shared, "kind": "head_scaling", "head": 2, "channel": 0, "alpha": 1.0},
    ]
    saes = {1: perfect_sae(organism)}
    directions = {"ones": torch.ones(organism.config.d_model)}
    frame = run(organism, prompts, given, saes=saes, directions=directions)
    assert frame["kind"].n_unique() == 9
    assert biggest_change(frame) < 1e-5
    assert frame["cosine"].is_between(1 - 1e-6, 1 + 1e-6).all()
    assert frame["norm_ratio"].is_between(1 - 1e-6, 1 + 1e-6).all()
    denoised = run(organism, prompts, [{**patch, "mode": "denoise", "site": sites}])
    assert biggest_change(denoised, "corrupt") < 1e-5


@pytest.mark.parametrize("view", ["raw", "processed"])
def test_a_head_scaled_by_zero_is_zero_ablated(
    organism: LanguageModel, prompts: pl.DataFrame, view: str
) -> None:
    """As a whole, or channel by channel; scaled by one (above) it is as it was."""
    head: dict[str, Any] = {"layer": 1, "head": 5, "weights": view}
    scaling = {**head, "kind": "head_scaling", "alpha": 0.0}
    channels = [{**scaling, "channel": channel} for channel in range(organism.config.d_head)]
    frame = run(
        organism,
        prompts,
        [
            {**head, "kind": "head_ablation", "mode": "zero"},
            scaling,
            {"name": "every channel", "members": channels},
            channels[0],
        ],
    )
    ablated, whole, by_channel, one = (
        own.sort("metric", "prompt")["patched"].to_numpy()
        for _, own in frame.group_by("intervention", maintain_order=True)
    )
    clean = frame.filter(kind="head_ablation").sort("metric", "prompt")["clean"].to_numpy()
    assert abs(ablated - clean).max() > 0.1
    assert abs(whole - ablated).max() < 1e-5
    assert abs(by_channel - ablated).max() < 1e-5
    assert 1e-6 < abs(one - clean).max() < abs(ablated - clean).max()


def test_prompts_without_answers_have_kl_alone(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    common = from_ioi(prompts.filter(variant="base"))
    none = pl.lit([], pl.List(pl.Int32))
    bare = common.with_columns(answer_token_ids=none, wrong_token_ids=none)
    given = [{"kind": "head_ablation", "mode": "zero", "layer": 1, "head": [0, 5]}]
    found, expected = run(organism, bare, given), run(organism, common, given)
    for metric in ("loss", "prob", "logit_diff"):
        rows = found.filter(metric=metric)
        assert rows["patched"].null_count() == len(rows)
    kl = found.filter(metric="kl")["patched"]
    assert kl.to_list() == expected.filter(metric="kl")["patched"].to_list()
    assert set(intervention_summary(found)["metric"]) == {"kl"}


def test_perfect_sae_and_inactive_features_change_nothing(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    sae = perfect_sae(organism)
    layers = range(organism.config.n_layers)
    members = [{"kind": "sae_splice", "layer": layer} for layer in layers]
    spliced = run(
        organism,
        prompts,
        [*members, {"name": "all", "members": members}],
        saes=dict.fromkeys(layers, sae),
    )
    assert biggest_change(spliced) < 1e-4
    # Features 0 and d_z read a coordinate and its negative: never both are active.
    base = prompts.filter(variant="base")
    _, cache = organism.raw.run_with_cache(torch.tensor([base["token_ids"][0].to_list()]))
    x = float(cache["blocks.1.attn.hook_z"][0, base["pos_s2"][0], 0, 0])
    active, silent = (0, sae.d_in) if x > 0 else (sae.d_in, 0)
    given = {"kind": "sae_feature_ablation", "layer": 1, "position_role": "S2"}
    frame = run(organism, base.head(1), [{**given, "feature": [active, silent]}], saes={1: sae})
    assert biggest_change(frame.filter(feature=silent)) < 1e-6
    assert (frame.filter(feature=active)["norm_ratio"] - 1).abs().max() > 1e-6


def test_ablating_all_features_one_by_one_adds_up_to_the_reconstruction(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    """With error kept, taking out every feature of a perfect SAE is zero ablation of raw z."""
    base, sae = prompts.filter(variant="base").head(1), perfect_sae(organism)
    given = {"kind": "sae_feature_ablation", "layer": 2, "position_role": "END"}
    members = [{**given, "feature": feature} for feature in range(sae.d_sae)]
    zero = {"kind": "layer_ablation", "site": "z", "mode": "zero", "layer": 2, "weights": "raw"}
    zero["position_role"] = "END"
    frame = run(organism, base, [{"name": "all", "members": members}, zero], saes={2: sae})
    first, second = frame.partition_by("intervention", maintain_order=True)
    assert (first["patched"] - second["patched"]).abs().max() < 1e-4


# ---- planted models ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def no_mlps(two_layers: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Two attention layers: what layer 0 writes is read by layer 1's q, k and v and the logits."""
    return _without_mlps(two_layers, tmp_path_factory, 1e-12)


@pytest.fixture(scope="module")
def linear(two_layers: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The same behind norms whose epsilon outweighs everything: they only divide by a constant."""
    return _without_mlps(two_layers, tmp_path_factory, 1e8)


def _without_mlps(
    like: LanguageModel, tmp_path_factory: pytest.TempPathFactory, epsilon: float
) -> LanguageModel:
    config = GPT2Config.from_dict({**like.hf.config.to_dict(), "layer_norm_epsilon": epsilon})
    model = GPT2LMHeadModel(config).eval()
    model.load_state_dict(like.hf.state_dict())
    for block in model.transformer.h:
        block.mlp.c_proj.weight.data.zero_()
    if epsilon > 1:  # logits of the usual size again
        model.transformer.ln_f.weight.data.mul_(epsilon**0.5)
        for block in model.transformer.h:
            block.ln_1.weight.data.mul_(epsilon**0.5)
    folder = tmp_path_factory.mktemp("planted")
    model.save_pretrained(folder)
    return LanguageModel.load(folder)


@pytest.fixture(scope="module")
def pairs(toy_prompts: pl.DataFrame) -> pl.DataFrame:
    """Toy prompts and counterfactuals with other tokens in the same places."""
    base = toy_prompts.drop("pos_verb").with_columns(variant=pl.lit("base"), pair_id="prompt")
    other = base.with_columns(
        prompt=pl.col("prompt") + 100,
        variant=pl.lit("other"),
        token_ids=pl.col("token_ids").map_elements(
            lambda ids: [0, *((7 * i + 3) % 29 + 1 for i in ids[1:])],
            return_dtype=pl.List(pl.Int64),
        ),
    )
    return pl.concat([base, other])


@pytest.mark.parametrize("via_mlp", [True, False])
def test_all_paths_together_are_the_whole_patch(
    no_mlps: LanguageModel, pairs: pl.DataFrame, via_mlp: bool
) -> None:
    """Local equals global where the readers are all there are."""
    heads = [(1, head) for head in range(no_mlps.config.n_heads)]
    shared = {"kind": "path_patching", "senders": [(0, 2)], "source_variant": "other"}
    shared |= {"via_mlp": via_mlp}
    members: list[dict[str, Any]] = [
        {**shared, "receiver": receiver, "receivers": heads} for receiver in "qkv"
    ]
    members.append({**shared, "receiver": "logits"})
    whole = {"kind": "activation_patching", "mode": "noise", "site": "z", "layer": 0, "head": 2}
    whole["source_variant"] = "other"
    frame = run(no_mlps, pairs, [{"name": "paths", "members": members}, whole, *members])
    patched = dict(frame.group_by("intervention").agg("patched").iter_rows())
    paths, direct = torch.tensor(patched["set:paths"]), torch.tensor(patched[expand([whole])[0].id])
    torch.testing.assert_close(paths, direct, atol=1e-4, rtol=1e-4)
    for member in expand(members):
        assert (torch.tensor(patched[member.id]) - direct).abs().max() > 1e-2


def test_a_feature_through_all_paths_is_its_ablation(
    no_mlps: LanguageModel, pairs: pl.DataFrame
) -> None:
    heads = [(1, head) for head in range(no_mlps.config.n_heads)]
    saes = {0: perfect_sae(no_mlps)}
    shared = {"kind": "sae_feature_path", "layer": 0, "feature": 5, "position_role": "S2"}
    members = [{**shared, "receiver": receiver, "receivers": heads} for receiver in "qkv"]
    whole = {"kind": "sae_feature_ablation", "layer": 0, "feature": 5, "position_role": "S2"}
    frame = run(no_mlps, pairs, [{"name": "paths", "members": members}, whole], saes=saes)
    first, second = frame.partition_by("intervention", maintain_order=True)
    assert biggest_change(second) > 1e-3
    # S2 is not END, so that nothing goes straight to the logits.
    assert (first["patched"] - second["patched"]).abs().max() < 1e-4


def test_direct_paths_add_up_on_a_linear_model(linear: LanguageModel, pairs: pl.DataFrame) -> None:
    sweep: list[Planned] = list(
        path_sweep(2, 4, receiver="logits", source_variant="other", via_mlp=False)
    )
    everyone = {"kind": "path_patching", "receiver": "logits", "source_variant": "other"}
    everyone["senders"] = [(layer, head) for layer in range(2) for head in range(4)]
    frame = run(linear, pairs, [*sweep, everyone]).filter(metric="logit_diff")
    effect = frame.with_columns(effect=pl.col("patched") - pl.col("clean"))
    together = effect.filter(pl.col("upstream_head").is_null())["effect"]
    summed = (
        effect.filter(pl.col("upstream_head").is_not_null())
        .group_by("prompt")
        .agg(pl.col("effect").sum())
        .sort("prompt")["effect"]
    )
    torch.testing.assert_close(summed.to_torch(), together.to_torch(), atol=1e-4, rtol=1e-4)
    assert together.abs().max() > 0.1
    # and each is (z' - z) W_O W_U, divided by the constant norm, at END
    w = linear.weights
    for row in pairs.filter(variant="base").iter_rows(named=True):
        runs = [
            linear.processed.run_with_cache(torch.tensor([ids]))[1]
            for ids in (
                row["token_ids"],
                pairs.filter(variant="other", pair_id=row["pair_id"])["token_ids"][0].to_list(),
            )
        ]
        clean, other = (cache["blocks.1.attn.hook_z"][0, -1, 3] for cache in runs)
        change = (other - clean) @ w.W_O[1, 3] / linear.config.eps**0.5
        logits = change @ w.W_U
        expected = float(logits[row["io_token_id"]] - logits[row["s_token_id"]])
        one = effect.filter(prompt=row["prompt"], upstream_layer=1, upstream_head=3)
        assert one["effect"][0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("mode", ["noise", "denoise"])
def test_another_conjunction_is_asked_of_prompts_with_one(
    organism: LanguageModel, mode: str
) -> None:
    """Of templates with a second "and" the variant leaves one right before S2 (K24 Table 4)."""
    variants = ("base", "random_names", "and_alongside")
    prompts = ioi_prompts(organism.encode, 32, 1, organism.bos_token_id, variants)
    base = prompts.filter(variant="base")
    twice = base.filter(pl.col("text").str.count_matches(" and ") > 1)
    assert 0 < twice.height < base.height
    shared = {"kind": "activation_patching", "mode": mode, "layer": 1, "site": "attn_out"}
    given = [{**shared, "source_variant": name, "position_role": "S2"} for name in variants[1:]]
    frame = run(organism, prompts, given).filter(metric="logit_diff")
    of = {name: set(frame.filter(source_variant=name)["prompt"]) for name in variants[1:]}
    assert of["random_names"] == set(base["prompt"])
    assert of["and_alongside"] == set(base["prompt"]) - set(twice["prompt"])
    # What is left is what it was.
    one = base.filter(~pl.col("prompt").is_in(twice["prompt"].implode())).head(3)
    pairs = prompts.filter(pl.col("pair_id").is_in(one["pair_id"].implode()))
    alone = run(organism, pairs, given[1:]).filter(metric="logit_diff")
    both = alone.join(frame.filter(source_variant="and_alongside"), on="prompt")
    assert both.height == 3
    assert both["patched"].to_list() == pytest.approx(both["patched_right"].to_list(), abs=1e-4)


@pytest.mark.parametrize(
    "edit",
    [
        {"kind": "sae_feature_ablation", "position_role": "S2"},
        {
            "kind": "sae_feature_path",
            "position_role": "S2",
            "receiver": "v",
            "receivers": [[3, 1], [4, 2]],
        },
    ],
)
def test_rows_at_which_nothing_is_taken_out_need_no_pass(
    organism: LanguageModel,
    prompts: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    edit: dict[str, Any],
) -> None:
    """They are the clean run, and all rows are what they are with a pass each."""
    layer, sae = 2, perfect_sae(organism)
    # Of z or -z at every place: features are active in some prompts and not in others.
    given = [{**edit, "layer": layer, "feature": list(range(0, 2 * organism.config.d_z, 16))}]
    quick = run(organism, prompts, given, saes={layer: sae})
    split = runner._without_idle

    def only_whole_groups(place: int, edit: Edit, *others: Any) -> Edit | None:
        assert edit.idle is not None
        return split(place, edit, *others) if bool(edit.idle.all()) else edit

    monkeypatch.setattr(runner, "_without_idle", only_whole_groups)
    whole = run(organism, prompts, given, saes={layer: sae})
    keys = ["intervention", "metric", "prompt"]
    both = quick.join(whole, on=keys, validate="1:1")
    assert both.height == quick.height == whole.height > 0
    for column in ("clean", "patched", "cosine", "norm_ratio"):
        # float32 logits of size 20, in passes of other sizes
        difference = (both[column] - both[f"{column}_right"]).abs().max()
        assert float(str(difference)) < 5e-5
    logit_diff = quick.filter(metric="logit_diff")
    still = logit_diff.filter(pl.col("patched") == pl.col("clean"))
    assert 0 < still.height < logit_diff.height
