"""Scores by what a carrier head brings to the query: identities on random models, a slow reference
from Hugging Face's own parameters, a planted circuit in which one feature does everything."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.attribution.qk_carried import NAMES, Carrier, qk_carried
from mechinterp_assets.attribution.qk_features import QkFeatureError
from mechinterp_assets.attribution.settings import QkFeatureSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from tests.attribution.random_models import random_sae, saes_of
from tests.attribution.test_qk_features import prompts_of, rotated

EVERY_PAIR = QkFeatureSettings(top_pairs=10**6, top_k=[1, 3, 10**6])
CARRIERS = [Carrier((2, 0), (1, 1)), Carrier((2, 2), (1, 1)), Carrier((2, 2), (0, 2))]
PART = ["query_kind", "query_layer", "query_feature"]


@pytest.fixture(params=["gpt2", "llama", "neox"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    found: LanguageModel = request.getfixturevalue(request.param)
    return found


def ordered(prompts: pl.DataFrame) -> pl.DataFrame:
    """Prompts whose first name is IO or S1 in turn, as their positions say."""
    orders = [
        "ABBA" if positions[roles.index("IO")] < positions[roles.index("S1")] else "BABA"
        for roles, positions in prompts.select("roles", "positions").iter_rows()
    ]
    return prompts.with_columns(name_order=pl.Series(orders))


def where(row: dict[str, Any]) -> dict[str, int]:
    return dict(zip(row["roles"], row["positions"], strict=True))


def test_pairs_sum_to_the_models_score_by_order_and_name(model: LanguageModel) -> None:
    prompts, saes = ordered(prompts_of(model, 10)), saes_of(model)
    n = model.config.n_heads
    carriers = [one for one in CARRIERS if one.head[1] < n and one.carrier[1] < n]
    assert carriers
    tables = qk_carried(model, saes, prompts, carriers, QkFeatureSettings(top_pairs=5, top_k=[2]))
    for one in carriers:
        for order, names in NAMES.items():
            own = prompts.filter(name_order=order)
            scores: dict[str, list[float]] = {"Name1": [], "Name2": []}
            for row in own.iter_rows(named=True):
                _, cache = model.raw.run_with_cache(torch.tensor([row["token_ids"]]))
                found = cache[f"blocks.{one.head[0]}.attn.hook_attn_scores"][0, one.head[1]]
                for name, role in zip(scores, names, strict=True):
                    scores[name].append(float(found[where(row)["END"], where(row)[role]]))
            scores["Name1-Name2"] = [a - b for a, b in zip(*scores.values(), strict=True)]
            key = dict(
                zip(
                    ("layer", "head", "carrier_layer", "carrier_head"),
                    (*one.head, *one.carrier),
                    strict=True,
                ),
                name_order=order,
            )
            for role, values in scores.items():
                for frame in (tables.pairs, tables.kinds):
                    of_role = frame.filter(**key, source_role=role)
                    assert of_role["mean"].sum() == pytest.approx(np.mean(values), abs=1e-9)
                    assert of_role["covariance_share"].sum() == pytest.approx(1, abs=1e-9)
                summary = tables.summary.filter(**key, source_role=role)
                assert summary["n"].to_list() == [len(own)] * 2
                assert summary["sd_score"][0] == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def slow_carried(
    model: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    row: dict[str, Any],
    one: Carrier,
    role: str,
) -> dict[tuple[object, ...], float]:
    """Feature at S2 -> what its carried part of the query gives with the whole key, one by one."""
    config, parameters = model.config, dict(model.hf.named_parameters())
    H, dh, d = config.n_heads, config.d_head, config.d_model
    _, cache = model.raw.run_with_cache(torch.tensor([row["token_ids"]]))
    (m, b), (c, a) = one.head, one.carrier
    own, end = slice(b * dh, (b + 1) * dh), where(row)["END"]

    def weights(layer: int) -> dict[str, Tensor]:
        if config.normalization == "LN":
            name = f"transformer.h.{layer}."
            W = parameters[name + "attn.c_attn.weight"]
            return {
                "gain": parameters[name + "ln_1.weight"],
                "Q": W[:, :d],
                "V": W[:, 2 * d :],
                "O": parameters[name + "attn.c_proj.weight"],
            }
        name = f"model.layers.{layer}."
        V = parameters[name + "self_attn.v_proj.weight"].T.unflatten(1, (-1, dh))
        return {
            "gain": parameters[name + "input_layernorm.weight"],
            "Q": parameters[name + "self_attn.q_proj.weight"].T,
            "V": V.repeat_interleave(H // config.n_kv_heads, 1).flatten(1),
            "O": parameters[name + "self_attn.o_proj.weight"].T,
        }

    def normed(x: Tensor, layer: int, position: int) -> Tensor:
        resid = cache[f"blocks.{layer}.hook_resid_pre"][0, position]
        if config.normalization == "LN":
            scale = (resid.var(unbiased=False) + config.eps).sqrt()
            x = x - x.mean()
        else:
            scale = (resid.square().mean() + config.eps).sqrt()
        return x / scale * weights(layer)["gain"]

    s2 = where(row)["S2"]
    weight = cache[f"blocks.{c}.attn.hook_pattern"][0, a, end, s2]
    keys = cache[f"blocks.{m}.attn.hook_k"][0, where(row)[role]]
    key = rotated(model, keys[b // (H // keys.shape[0])], where(row)[role])
    found: dict[tuple[object, ...], float] = {}
    for layer in range(c):
        z = cache[f"blocks.{layer}.attn.hook_z"][0, s2].flatten()
        f = saes[layer].encode(z[None])[0]
        for i in f.nonzero()[:, 0].tolist():
            x = f[i] * saes[layer].W_dec[i] @ weights(layer)["O"]
            v = (normed(x, c, s2) @ weights(c)["V"])[a * dh : (a + 1) * dh]
            carried = weight * v @ weights(c)["O"][a * dh : (a + 1) * dh]
            q = rotated(model, (normed(carried, m, end) @ weights(m)["Q"])[own], end)
            found["feature", layer, i] = float(q @ key) / dh**0.5
    return found


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_carried_features_agree_with_a_slow_reference(
    request: pytest.FixtureRequest, name: str
) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    prompts, saes, one = ordered(prompts_of(model, 10)), saes_of(model), CARRIERS[1]
    tables = qk_carried(model, saes, prompts, [one], EVERY_PAIR)
    for rank in ("rank", "covariance_rank"):
        by_kind = tables.pairs.group_by("name_order", "source_role").agg(
            first=pl.col(rank).filter(pl.col("query_kind") == "not_carried").min(),
            last=pl.col(rank).filter(pl.col("query_kind") != "not_carried").max(),
        )
        assert (by_kind["first"] > by_kind["last"]).all()
    for order, names in NAMES.items():
        own = prompts.filter(name_order=order)
        for source, role in zip(("Name1", "Name2"), names, strict=True):
            slow: dict[tuple[object, ...], float] = {}
            for row in own.iter_rows(named=True):
                for part, value in slow_carried(model, saes, row, one, role).items():
                    slow[part] = slow.get(part, 0.0) + value / len(own)
            pairs = tables.pairs.filter(name_order=order, source_role=source, query_kind="feature")
            summed = pairs.group_by(PART).agg(pl.col("mean").sum())
            assert len(summed) == len(slow) > 0
            for *part, value in summed.iter_rows():
                assert value == pytest.approx(slow[tuple(part)], abs=1e-6)


def test_a_planted_feature_is_carried_to_one_order_alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Layer 0 marks S2; layer 1 brings the mark to END; layer 2's query there reads it.

    Its key reads the token of the first name in ABBA prompts and of the second in BABA prompts:
    IO, whichever comes first.
    """
    config = GPT2Config(
        n_layer=3, n_head=1, n_embd=10, n_positions=8, vocab_size=8, bos_token_id=0, eos_token_id=0
    )
    hf = GPT2LMHeadModel(config)
    name, marked, carried, other = 0, 2, 4, 6
    with torch.no_grad():
        for label, parameter in hf.named_parameters():
            parameter.fill_(1.0 if "ln_" in label and label.endswith("weight") else 0.0)
        wte = hf.transformer.wte.weight
        # Pairs (i, i + 1) of opposite sign, so that LayerNorm's mean is 0.
        wte[:, other], wte[:, other + 1] = 1.0, -1.0
        wte[5, name], wte[5, name + 1] = 1.0, -1.0  # IO's token
        wte[7, 8], wte[7, 9] = 1.0, -1.0  # what S2 is known by
        first, second, third = hf.transformer.h
        for block, read, write in ((first, 8, marked), (second, marked, carried)):
            block.attn.c_attn.weight[read, 20] = 1.0
            block.attn.c_proj.weight[0, write] = 2.0
            block.attn.c_proj.weight[0, write + 1] = -2.0
        # In layer 0 S2 alone attends to S2, so that the mark stands nowhere else.
        first.attn.c_attn.weight[other, 0], first.attn.c_attn.weight[8, 10] = 30.0, -1.0
        first.attn.c_attn.weight[8, 1], first.attn.c_attn.weight[8, 11] = 60.0, 1.0
        third.attn.c_attn.weight[carried, 0] = 3.0  # query
        third.attn.c_attn.weight[name, 10] = 1.0  # key
    folder = tmp_path_factory.mktemp("planted")
    hf.save_pretrained(folder)
    model = LanguageModel.load(folder, dtype=torch.float64)
    W = torch.zeros(10, 3, dtype=torch.float64)
    W[0, 1], W[1, 0], W[2, 2] = 1.0, 1.0, 1.0
    sae = StandardSAE(W, W.new_zeros(3), W.T.contiguous(), W.new_zeros(10))
    # Names at 1 and 2, S2 at 3, END at distances that differ.
    names = [[5, 3] if n < 4 else [3, 5] for n in range(8)]
    rows = prompts_of(model, 8).with_columns(
        token_ids=pl.Series([[0, *names[n], 7, 3, 3, 3, 3][: 5 + n % 4] for n in range(8)]),
        n_tokens=pl.Series([5 + n % 4 for n in range(8)]),
        positions=pl.Series(
            [[1, 2, 3, 4 + n % 4] if n < 4 else [2, 1, 3, 4 + n % 4] for n in range(8)]
        ),
    )
    tables = qk_carried(
        model,
        {0: sae},
        ordered(rows),
        [Carrier((2, 0), (1, 0))],
        QkFeatureSettings(top_pairs=2, top_k=[1]),
    )
    for order, sign in (("ABBA", 1), ("BABA", -1)):
        at = tables.pairs.filter(name_order=order)
        assert at.filter(source_role="Name1-Name2", query_kind="not_carried").height == 0
        contrast = at.filter(source_role="Name1-Name2", rank=0).row(0, named=True)
        assert [contrast[c] for c in PART] == ["feature", 0, 1]
        assert contrast["key_kind"] == "embedding"
        assert contrast["mean"] * sign > 0.05
        read, silent = ("Name1", "Name2") if sign > 0 else ("Name2", "Name1")
        top = at.filter(source_role=read, rank=0).row(0, named=True)
        assert [top[c] for c in PART] == ["feature", 0, 1]
        # Nothing else writes what the query reads.
        kinds = tables.kinds.filter(name_order=order, source_role=read, query_kind="not_carried")
        assert kinds.height > 3
        assert kinds["mean"].abs().max() == pytest.approx(0, abs=1e-9)
        assert at.filter(source_role=silent)["mean"].abs().max() == pytest.approx(0, abs=1e-9)


def test_a_residual_sae_splits_the_key(gpt2: LanguageModel) -> None:
    prompts, saes = ordered(prompts_of(gpt2, 10)), saes_of(gpt2)
    residual = {2: random_sae(gpt2.config.d_model, "topk", seed=7)}
    tables = qk_carried(gpt2, saes, prompts, CARRIERS[:1], residual_saes=residual)
    assert {"residual_feature", "residual_bias", "residual_error", "key_bias"} == set(
        tables.kinds["key_kind"]
    )
    assert {"feature", "value_bias", "not_carried"} <= set(tables.kinds["query_kind"])


def test_what_cannot_be_split_is_refused(gpt2: LanguageModel) -> None:
    prompts, saes = ordered(prompts_of(gpt2, 10)), saes_of(gpt2)
    with pytest.raises(QkFeatureError, match=r"carrier L2H1 does not come before head L2H0"):
        qk_carried(gpt2, saes, prompts, [Carrier((2, 0), (2, 1))])
    with pytest.raises(QkFeatureError, match=r"head L1H9 does not exist"):
        qk_carried(gpt2, saes, prompts, [Carrier((2, 0), (1, 9))])
    with pytest.raises(QkFeatureError, match="no order of names"):
        qk_carried(gpt2, saes, prompts.drop("name_order"), CARRIERS)
    few = prompts.filter(name_order="ABBA").head(3)
    with pytest.raises(QkFeatureError, match="3 base prompts with the order of names 'ABBA'"):
        qk_carried(gpt2, saes, few, CARRIERS)
    with pytest.raises(QkFeatureError, match="each pair once"):
        qk_carried(gpt2, saes, prompts, [CARRIERS[0]] * 2)
