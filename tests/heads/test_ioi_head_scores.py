"""Scores on IOI prompts: planted movers, slow references, exact nulls, what is absent when."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.circuits.roots import find_roots
from mechinterp_assets.heads.ioi_head_scores import (
    ioi_head_scores,
    ioi_score_values,
    mover_scores,
    name_pool,
)
from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.head_roles import head_roles
from mechinterp_assets.prompts.ioi import PromptError, ioi_prompts

# Tokens: BOS 0, END 1, giver verb 2, then names; IO names and S names are different people.
VOCABULARY, CONTEXT, LENGTH = 24, 8, 6
IO_NAMES, S_NAMES = range(3, 13), range(13, 23)
MOVERS = [(3, 3), (4, 3)]


def planted_prompts(n: int = 40) -> pl.DataFrame:
    """BOS IO S verb S END and, as ABC, three fresh names."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for variant in ("base", "ABC"):
        for pair in range(n):
            io = int(torch.randint(3, 13, (), generator=generator))
            s, other = (13 + torch.randperm(10, generator=generator)[:2]).tolist()
            ids = [0, io, s, 2, s if variant == "base" else other, 1]
            rows.append(
                {
                    "prompt": len(rows),
                    "pair_id": pair,
                    "template": 0,
                    "variant": variant,
                    "token_ids": ids,
                    "n_tokens": LENGTH,
                    "pos_io": 1,
                    "pos_s1": 2,
                    "pos_s2": 4,
                    "pos_end": 5,
                    "io_token_id": io,
                    "s_token_id": s,
                }
            )
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Two layers of two heads: from END, L1H0 attends to IO names and writes the name; L1H1
    attends to S names and writes minus the name's shifted neighbour, L0's heads do nothing."""
    d_model, d_head = 64, 32
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=d_model,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.fill_(float("ln_" in name and name.endswith("weight")))
    trunk = model.transformer
    token = torch.eye(VOCABULARY)
    trunk.wte.weight.data[:, :VOCABULARY] = token
    attention = trunk.h[1].attn
    fused = attention.c_attn.weight.data.view(d_model, 3, 2, d_head)
    out = attention.c_proj.weight.data.view(2, d_head, d_model)
    for head, names in ((0, IO_NAMES), (1, S_NAMES)):
        fused[1, 0, head, 0] = 20.0
        fused[list(names), 1, head, 0] = 1.0
        fused[:VOCABULARY, 2, head, :VOCABULARY] = token
    out[0, :VOCABULARY, :VOCABULARY] = token
    out[1, :VOCABULARY, :VOCABULARY] = -token.roll(1, dims=1)
    return _saved(model, tmp_path_factory.mktemp("planted_mover"))


def _saved(model: GPT2LMHeadModel, folder: Path) -> LanguageModel:
    model.save_pretrained(folder)
    return LanguageModel.load(folder)


@pytest.fixture(scope="module")
def prompts(organism: LanguageModel) -> pl.DataFrame:
    return ioi_prompts(organism.encode, 10, 3, organism.bos_token_id, ("base", "ABC"))


def values(frame: pl.DataFrame, score: str) -> dict[tuple[int, int], float]:
    rows = frame.filter(score=score).select("layer", "head", "value").iter_rows()
    return {(layer, head): value for layer, head, value in rows}


# ---- planted -------------------------------------------------------------------------------------


def test_the_planted_name_mover_is_found(planted: LanguageModel) -> None:
    prompts = planted_prompts()
    scores = ioi_head_scores(planted, prompts.filter(variant="base"))
    found = head_roles(scores)
    movers = found.filter(role="name_mover").select("layer", "head").rows()
    assert movers == [(1, 0)]
    assert found.filter(role="name_mover")["n_conditions"].to_list() == [3]
    assert values(scores, "name_copy") == {(1, 0): 1.0, (1, 1): 0.0}
    assert values(scores, "ioi_attention_io")[1, 0] > 0.999
    # Attention to S alone, or a negative output alone, makes no mover.
    assert (1, 1) not in found.select("layer", "head").rows()
    relative = mover_scores(planted, prompts, movers)
    # Nobody stands in for the mover, and nothing comes before it that steers it.
    assert set(values(relative, "ioi_backup_effect")) == {(0, 0), (0, 1), (1, 1)}
    both = pl.concat([scores, relative])
    assert not head_roles(both)["role"].is_in(["backup_mover", "s_inhibition"]).any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_untrained_models_have_no_roles(tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=48,
        n_layer=3,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = _saved(GPT2LMHeadModel(config).eval(), tmp_path)
    prompts = planted_prompts()
    scores = ioi_head_scores(model, prompts.filter(variant="base"))
    assert head_roles(scores).is_empty()


# ---- references ----------------------------------------------------------------------------------


def test_direct_effects_are_those_of_the_roots(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    base = prompts.filter(variant="base")
    scores = ioi_head_scores(organism, base)
    for row in find_roots(organism, base).iter_rows(named=True):
        at = (row["layer"], row["head"])
        for score, column in (
            ("ioi_direct_effect", "direct_effect"),
            ("ioi_attention_io", "attention_io"),
            ("ioi_attention_s1", "attention_s1"),
            ("ioi_attention_s2", "attention_s2"),
        ):
            assert values(scores, score)[at] == pytest.approx(row[column], abs=1e-5)


def test_nulls_match_draws(organism: LanguageModel, prompts: pl.DataFrame) -> None:
    """Other names in place of IO and S; other positions in place of IO."""
    base = prompts.filter(variant="base")
    pool = name_pool(organism, base)
    found = ioi_score_values(organism, base, pool)
    layer, head, draws = 3, 3, 4000
    generator = torch.Generator().manual_seed(1)
    effect = torch.zeros(draws, dtype=torch.float64)
    attention = torch.zeros(draws, dtype=torch.float64)
    for row in base.iter_rows(named=True):
        ids = torch.tensor([row["token_ids"]])
        with torch.no_grad():
            _, cache = organism.processed.run_with_cache(ids)
        z = cache[f"blocks.{layer}.attn.hook_z"][0, -1, head]
        out = z @ organism.weights.W_O[layer, head] / cache["ln_final.hook_scale"][0, -1]
        by_name = (out @ organism.weights.W_U[:, pool]).double()
        drawn = torch.rand(draws, len(pool), generator=generator).argsort(dim=1)[:, :2]
        effect += by_name[drawn[:, 0]] - by_name[drawn[:, 1]]
        weights = cache[f"blocks.{layer}.attn.hook_pattern"][0, head, -1].double()
        others = torch.tensor([i for i in range(1, row["n_tokens"]) if i != row["pos_io"]])
        attention += weights[others[torch.randint(len(others), (draws,), generator=generator)]]
    for name, total in (("ioi_direct_effect", effect), ("ioi_attention_io", attention)):
        mean, sd = (float(x[layer, head]) for x in (found[name].null_mean, found[name].null_sd))
        total = total / base.height
        assert float(total.mean()) == pytest.approx(mean, abs=5 * sd / draws**0.5)
        assert float(total.std()) == pytest.approx(sd, rel=0.07)


def test_name_copies_by_the_models_own_modules(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    base = prompts.filter(variant="base")
    scores = ioi_head_scores(organism, base)
    pool = set(name_pool(organism, base).tolist())
    bridge, weights = organism.processed, organism.weights
    for layer, head in ((1, 0), (3, 3), (3, 4)):
        for name, sign in (("name_copy", 1.0), ("negative_copy", -1.0)):
            hits, chance = [], []
            for row in base.iter_rows(named=True):
                with torch.no_grad():
                    _, cache = bridge.run_with_cache(torch.tensor([row["token_ids"]]))
                    for column in ("pos_io", "pos_s1"):
                        x = cache["blocks.0.hook_resid_post"][:, row[column]][:, None]
                        read = bridge.blocks[1].ln1(x)
                        out = sign * read @ weights.W_V[layer, head] @ weights.W_O[layer, head]
                        logits = bridge.unembed(bridge.ln_final(out))[0, 0]
                        top = set(logits.topk(5).indices.tolist())
                        own = row["token_ids"][row[column]]
                        hits.append(own in top)
                        chance.append(len((pool - {own}) & top) / (len(pool) - 1))
            row = scores.filter(layer=layer, head=head, score=name).row(0, named=True)
            assert row["value"] == pytest.approx(sum(hits) / len(hits))
            assert row["null_mean"] == pytest.approx(sum(chance) / len(chance))
            assert row["n"] == 2 * base.height
    assert (0, 0) not in values(scores, "name_copy")


def keep(kept: dict[str, torch.Tensor], name: str) -> NamedHook:
    """Store an activation in `kept`."""

    def hook(value: torch.Tensor, hook: object) -> None:
        kept[name] = value.clone()

    return name, hook


def set_at_end(name: str, head: int, target: torch.Tensor) -> NamedHook:
    """A head's activation at END is `target`."""

    def hook(value: torch.Tensor, hook: object) -> torch.Tensor:
        value[0, -1, head] = target
        return value

    return name, hook


def replace(name: str, target: torch.Tensor) -> NamedHook:
    """The whole activation is `target`."""

    def hook(value: torch.Tensor, hook: object) -> torch.Tensor:
        return target.clone()

    return name, hook


def z_name(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z"


@torch.no_grad()
def test_backup_effects_one_prompt_at_a_time(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    found = values(mover_scores(organism, prompts, MOVERS, max_prompts=3), "ioi_backup_effect")
    assert not set(MOVERS) & set(found)
    base, abc = prompts.filter(variant="base"), prompts.filter(variant="ABC")
    bridge, weights = organism.processed, organism.weights
    totals = {(4, 0): 0.0, (3, 6): 0.0}
    for row in base.iter_rows(named=True):
        hooks = []
        for layer, head in MOVERS:
            ends = [
                bridge.run_with_cache(torch.tensor([ids]))[1][z_name(layer)][0, -1, head]
                for ids in abc.filter(template=row["template"])["token_ids"].to_list()
            ]
            hooks.append(set_at_end(z_name(layer), head, torch.stack(ends).mean(dim=0)))
        kept: dict[str, torch.Tensor] = {}
        hooks += [keep(kept, name) for name in (z_name(3), z_name(4), "ln_final.hook_scale")]
        bridge.run_with_hooks(torch.tensor([row["token_ids"]]), fwd_hooks=hooks)
        answer = weights.W_U[:, row["io_token_id"]] - weights.W_U[:, row["s_token_id"]]
        for layer, head in totals:
            out = kept[z_name(layer)][0, -1, head] @ weights.W_O[layer, head]
            totals[layer, head] += float(out @ answer / kept["ln_final.hook_scale"][0, -1])
    for at, total in totals.items():
        assert found[at] == pytest.approx(total / base.height, abs=1e-4)


@torch.no_grad()
def path_patched_fall(
    model: LanguageModel, row: dict[str, Any], other: list[int], sender: tuple[int, int]
) -> float:
    """Fall of the logit difference by whole forward passes: every head frozen at every position."""
    bridge = model.processed
    ids = torch.tensor([row["token_ids"]])
    logits, clean = bridge.run_with_cache(ids)
    _, corrupt = bridge.run_with_cache(torch.tensor([other]))
    hooks, kept = [], dict[str, torch.Tensor]()
    for layer in range(model.config.n_layers):
        z = clean[z_name(layer)].clone()
        if layer == sender[0]:
            z[0, -1, sender[1]] = corrupt[z_name(layer)][0, -1, sender[1]]
        hooks.append(replace(z_name(layer), z))
    queries = [(f"blocks.{layer}.attn.hook_q", head) for layer, head in MOVERS]
    hooks += [keep(kept, name) for name, _ in queries]
    bridge.run_with_hooks(ids, fwd_hooks=hooks)
    patched = bridge.run_with_hooks(
        ids, fwd_hooks=[set_at_end(name, head, kept[name][0, -1, head]) for name, head in queries]
    )

    def difference(logits: torch.Tensor) -> float:
        return float(logits[0, -1, row["io_token_id"]] - logits[0, -1, row["s_token_id"]])

    return difference(logits) - difference(patched)


def test_s_inhibition_against_whole_frozen_forward_passes(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    base, abc = prompts.filter(variant="base"), prompts.filter(variant="ABC")
    frame = mover_scores(organism, prompts, MOVERS, patched_prompts=4, max_rows=7)
    assert set(frame.filter(score="ioi_s_inhibition")["layer"]) == {0, 1, 2, 3}
    for layer, head in ((0, 1), (2, 1), (3, 5)):
        falls = [
            path_patched_fall(
                organism,
                row,
                abc.filter(pair_id=row["pair_id"])["token_ids"].to_list()[0],
                (layer, head),
            )
            for row in base.head(4).iter_rows(named=True)
        ]
        found = frame.filter(layer=layer, head=head, score="ioi_s_inhibition").row(0, named=True)
        assert found["value"] == pytest.approx(sum(falls) / 4, abs=2e-4)
        assert found["null_sd"] == pytest.approx(sum(x * x for x in falls) ** 0.5 / 4, abs=2e-4)


def test_thresholds_are_shares_of_the_logit_difference(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    frame = mover_scores(organism, prompts, MOVERS, patched_prompts=2)
    base = prompts.filter(variant="base")
    with torch.no_grad():
        differences = [
            float(logits[row["io_token_id"]] - logits[row["s_token_id"]])
            for row in base.iter_rows(named=True)
            for logits in [organism.processed(torch.tensor([row["token_ids"]]))[0, -1]]
        ]
    expected = 0.02 * sum(differences) / len(differences)
    assert frame["threshold"].to_list() == pytest.approx([expected] * frame.height, rel=1e-4)


# ---- what is absent ------------------------------------------------------------------------------


def test_without_movers_abc_or_ability_there_are_no_relative_scores(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    assert mover_scores(organism, prompts, []).is_empty()
    reversed_answers = prompts.rename({"io_token_id": "s_token_id", "s_token_id": "io_token_id"})
    assert mover_scores(organism, reversed_answers, MOVERS).is_empty()
    assert mover_scores(organism, prompts.filter(variant="base"), MOVERS).is_empty()


def test_bad_prompts_and_movers_are_refused(organism: LanguageModel, prompts: pl.DataFrame) -> None:
    with pytest.raises(PromptError, match=r"mover L9H0 does not exist.*heads\.movers"):
        mover_scores(organism, prompts, [(9, 0)])
    with pytest.raises(PromptError, match="name 2 people"):
        ioi_head_scores(organism, prompts.filter(variant="base").head(1))
    strangers = prompts.with_columns(
        pl.when(variant="ABC").then(pl.col("pair_id") + 100).otherwise("pair_id").alias("pair_id")
    )
    with pytest.raises(PromptError, match="no ABC prompt of the same pair"):
        mover_scores(organism, strangers, MOVERS)
