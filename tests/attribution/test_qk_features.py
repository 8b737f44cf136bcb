"""Scores by pairs of parts: identities on random models (LayerNorm with learned positions; RMSNorm,
rotary positions and grouped queries; parallel blocks), a slow reference from Hugging Face's own
parameters, a planted pair, statistics of hand-made contributions."""

from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from mechinterp_assets.attribution.qk_features import QkFeatureError, qk_features
from mechinterp_assets.attribution.qk_pairs import (
    N_BOOTSTRAP,
    PairTables,
    RolePairs,
    pair_tables,
)
from mechinterp_assets.attribution.residual_parts import PartNumbers
from mechinterp_assets.attribution.settings import QkFeatureSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import TASK_PROMPTS_SCHEMA
from mechinterp_assets.prompts.ioi import PromptError, ioi_prompts
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.statistics.bootstrap import resample_counts
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from tests.attribution.frozen_trees import COPIED, marked_gpt2
from tests.attribution.random_models import random_sae, saes_of

HEADS = [(2, 0), (2, 2), (1, 1)]
EVERY_PAIR = QkFeatureSettings(top_pairs=10**6, top_k=[1, 3, 10**6])
SCORE = ["layer", "head", "source_role"]


@pytest.fixture(params=["gpt2", "llama", "neox"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    found: LanguageModel = request.getfixturevalue(request.param)
    return found


def prompts_of(model: LanguageModel, n: int = 6) -> pl.DataFrame:
    """Random tokens of two lengths, the roles at other places in every second prompt."""
    generator = torch.Generator().manual_seed(5)
    rows = []
    for number in range(n):
        length = 7 + number % 2
        ids = torch.randint(3, model.config.d_vocab, (length,), generator=generator).tolist()
        first, second = (1, 2) if number % 2 else (3, 1)
        rows.append(
            {
                "task": "ioi",
                "prompt": number,
                "pair_id": number,
                "template": 0,
                "variant": "base",
                "text": "",
                "token_ids": [model.bos_token_id, *ids[1:]],
                "n_tokens": length,
                "roles": ["IO", "S1", "S2", "END"],
                "positions": [first, second, 4, length - 1],
                "answer_token_ids": [1],
                "wrong_token_ids": [2],
            }
        )
    return pl.DataFrame(rows, schema=TASK_PROMPTS_SCHEMA, orient="row")


def scores_of(
    model: LanguageModel, prompts: pl.DataFrame, head: tuple[int, int], role: str
) -> list[float]:
    """Attention scores END -> role of the bridge's own run."""
    found = []
    for ids, roles, positions in prompts.select("token_ids", "roles", "positions").iter_rows():
        _, cache = model.raw.run_with_cache(torch.tensor([ids]))
        where = dict(zip(roles, positions, strict=True))
        score = cache[f"blocks.{head[0]}.attn.hook_attn_scores"][0, head[1]]
        found.append(float(score[where["END"], where[role]]))
    return found


def check_identities(
    tables: PairTables, expected: dict[tuple[int, int, str], list[float]], tolerance: float
) -> None:
    """Pairs and rest sum to the score, so do kinds, and shares of its variance sum to 1."""
    for (layer, head, role), scores in expected.items():
        where = {"layer": layer, "head": head, "source_role": role}
        pairs, kinds = tables.pairs.filter(**where), tables.kinds.filter(**where)
        mean = np.mean(scores)
        for frame in (pairs, kinds):
            assert abs(frame["mean"].sum() - mean) < tolerance
            assert frame["covariance_share"].sum() == pytest.approx(1, abs=tolerance)
        assert pairs["n_part_pairs"].sum() == kinds["n_part_pairs"].sum()
        summary = tables.summary.filter(**where)
        assert summary["mean_score"][0] == pytest.approx(mean, abs=tolerance)
        assert summary["sd_score"][0] == pytest.approx(np.std(scores, ddof=1), abs=tolerance)
        assert summary["identity_error"][0] < tolerance


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "gated"])
def test_pairs_and_rest_sum_to_the_models_score(model: LanguageModel, architecture: str) -> None:
    heads = [head for head in HEADS if head[1] < model.config.n_heads]
    prompts, saes = prompts_of(model), saes_of(model, architecture)
    tables = qk_features(model, saes, prompts, heads, QkFeatureSettings(top_pairs=7, top_k=[1, 5]))
    expected: dict[tuple[int, int, str], list[float]] = {}
    for head in heads:
        of_roles = {r: np.array(scores_of(model, prompts, head, r)) for r in ("IO", "S1", "S2")}
        of_roles["IO-S1"] = of_roles["IO"] - of_roles["S1"]
        of_roles["IO-S2"] = of_roles["IO"] - of_roles["S2"]
        expected |= {(*head, role): scores.tolist() for role, scores in of_roles.items()}
    assert len(tables.pairs.unique(SCORE)) == len(expected)
    check_identities(tables, expected, 1e-9)
    rest = tables.pairs.filter(query_kind="rest")
    assert len(rest) == len(expected)
    assert (rest["n_part_pairs"] > 0).all()


def rotated(model: LanguageModel, vector: Tensor, position: int) -> Tensor:
    """A query or key of one head at a position, by Hugging Face's own rotation."""
    if model.config.positional == "absolute":
        return vector
    trunk: Any = model.trunk
    cos, sin = trunk.rotary_emb(torch.zeros(1, dtype=torch.float32), torch.tensor([[position]]))
    x = vector[None, None, None]
    return apply_rotary_pos_emb(x, x, cos.double(), sin.double())[0][0, 0, 0]


def slow_pairs(
    model: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    prompts: pl.DataFrame,
    head: tuple[int, int],
    role: str,
) -> dict[tuple[object, ...], list[float]]:
    """(query part, key part) -> contribution per prompt, 0 where inactive; one pair at a time.

    From Hugging Face's parameters, and its own rotation, without the code under test.
    """
    layer, number = head
    config, parameters = model.config, dict(model.hf.named_parameters())
    H, dh, d = config.n_heads, config.d_head, config.d_model
    found: dict[tuple[object, ...], list[float]] = {}
    for row, (ids, roles, positions) in enumerate(
        prompts.select("token_ids", "roles", "positions").iter_rows()
    ):
        _, cache = model.raw.run_with_cache(torch.tensor([ids]))
        where = dict(zip(roles, positions, strict=True))
        resid = cache[f"blocks.{layer}.hook_resid_pre"][0]
        if config.normalization == "LN":
            name = f"transformer.h.{layer}."
            scale = (resid.var(-1, unbiased=False) + config.eps).sqrt()
            gain, bias = parameters[name + "ln_1.weight"], parameters[name + "ln_1.bias"]
            W, b = parameters[name + "attn.c_attn.weight"], parameters[name + "attn.c_attn.bias"]
            W_Q, W_K, b_Q, b_K = W[:, :d], W[:, d : 2 * d], b[:d], b[d : 2 * d]
        else:
            name = f"model.layers.{layer}."
            scale = (resid.square().mean(-1) + config.eps).sqrt()
            gain, bias = parameters[name + "input_layernorm.weight"], torch.zeros(d).double()
            W_Q = parameters[name + "self_attn.q_proj.weight"].T
            W_K = parameters[name + "self_attn.k_proj.weight"].T.unflatten(1, (-1, dh))
            W_K = W_K.repeat_interleave(H // config.n_kv_heads, 1).flatten(1)
            b_Q = b_K = torch.zeros(H * dh).double()

        def parts(
            position: int, cache: object = cache, ids: list[int] = ids
        ) -> dict[tuple[object, ...], Tensor]:
            out: dict[tuple[object, ...], Tensor] = {}
            token = model.hf.get_input_embeddings().weight[ids[position]]
            out["embedding", None, None] = token
            if config.positional == "absolute":
                out["position", None, None] = parameters["transformer.wpe.weight"][position]
            for m in range(layer):
                if config.normalization == "LN":
                    W_O = parameters[f"transformer.h.{m}.attn.c_proj.weight"]
                    b_O = parameters[f"transformer.h.{m}.attn.c_proj.bias"]
                else:
                    W_O = parameters[f"model.layers.{m}.self_attn.o_proj.weight"].T
                    b_O = torch.zeros(d).double()
                z = cache[f"blocks.{m}.attn.hook_z"][0, position].flatten()
                out["mlp", m, None] = cache[f"blocks.{m}.hook_mlp_out"][0, position]
                f = saes[m].encode(z[None])[0]
                for i in f.nonzero()[:, 0].tolist():
                    out["feature", m, i] = f[i] * saes[m].W_dec[i] @ W_O
                out["sae_error", m, None] = (z - saes[m](z[None])[0]) @ W_O
                out["sae_bias", m, None] = saes[m].b_dec @ W_O
                out["output_bias", m, None] = b_O
            return out

        def read(
            part: Tensor, position: int, W: Tensor, scale: Tensor = scale, gain: Tensor = gain
        ) -> Tensor:
            if config.normalization == "LN":
                part = part - part.mean()
            return (part / scale[position] * gain) @ W

        def turned(vector: Tensor, position: int) -> Tensor:
            return rotated(model, vector, position)

        own = slice(number * dh, (number + 1) * dh)
        end, source = where["END"], where[role]
        queries = {k: read(v, end, W_Q)[own] for k, v in parts(end).items()}
        queries["query_bias", None, None] = (bias @ W_Q + b_Q)[own]
        keys = {k: read(v, source, W_K)[own] for k, v in parts(source).items()}
        keys["key_bias", None, None] = (bias @ W_K + b_K)[own]
        for (q_name, q), (k_name, k) in product(queries.items(), keys.items()):
            value = float(turned(q, end) @ turned(k, source)) / dh**0.5
            found.setdefault((*q_name, *k_name), [0.0] * len(prompts))[row] = value
    return found


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_pair_agrees_with_a_slow_reference(request: pytest.FixtureRequest, name: str) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    prompts, saes, head = prompts_of(model), saes_of(model), (2, 2)
    tables = qk_features(model, saes, prompts, [head], EVERY_PAIR)
    assert (tables.summary["n_top_pairs"] <= tables.summary["n_part_pairs"]).all()
    first, second = (slow_pairs(model, saes, prompts, head, role) for role in ("IO", "S1"))
    zero = [0.0] * len(prompts)
    contrast = {
        pair: [a - b for a, b in zip(first.get(pair, zero), second.get(pair, zero), strict=True)]
        for pair in first | second
    }
    for role, expected in (("IO", first), ("IO-S1", contrast)):
        of_role = tables.pairs.filter(source_role=role)
        assert len(of_role) == len(expected)
        scores = np.sum(list(expected.values()), axis=0)
        for row in of_role.iter_rows(named=True):
            columns = [
                f"{side}_{c}" for side in ("query", "key") for c in ("kind", "layer", "feature")
            ]
            values = np.array(expected[tuple(row[c] for c in columns)])
            assert row["mean"] == pytest.approx(values.mean(), abs=1e-6)
            assert row["sd"] == pytest.approx(values.std(ddof=1), abs=1e-6)
            share = np.cov(values, scores)[0, 1] / scores.var(ddof=1)
            assert row["covariance_share"] == pytest.approx(share, abs=1e-6)
            assert row["score_share"] == pytest.approx(values.mean() / scores.mean(), abs=1e-5)
            if role == "IO" and (row["query_kind"], row["key_kind"]) == ("feature", "feature"):
                assert row["n_present"] == (values != 0).sum()
        ranked = of_role.sort("rank")["mean"].abs().to_numpy()
        assert (np.diff(ranked) <= 1e-12).all()
        summary = tables.summary.filter(source_role=role)
        for order, k, found in summary.select(
            "ordered_by", "n_top_pairs", "variance_explained"
        ).iter_rows():
            column = "rank" if order == "mean" else "covariance_rank"
            chosen = of_role.filter(pl.col(column) < k)
            part = np.sum(
                [expected[tuple(row[c] for c in columns)] for row in chosen.iter_rows(named=True)],
                axis=0,
            )
            assert found == pytest.approx(1 - (scores - part).var() / scores.var(), abs=1e-5)


def test_a_planted_pair_of_features_has_the_whole_score(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Layer 0 copies a token's mark to later positions; layer 1's query and key read the copy.

    One SAE feature of layer 0 stands for the copy, so it meets itself and nothing else counts.
    """
    hf = marked_gpt2()
    with torch.no_grad():
        reads = hf.transformer.h[1].attn.c_attn.weight
        reads[COPIED, 0] = 3.0  # query
        reads[COPIED, 8] = 1.0  # key
    folder = tmp_path_factory.mktemp("planted")
    hf.save_pretrained(folder)
    model = LanguageModel.load(folder, dtype=torch.float64)
    W = torch.zeros(8, 3, dtype=torch.float64)
    W[0, 1], W[1, 0], W[2, 2] = 1.0, 1.0, 1.0
    sae = StandardSAE(W, W.new_zeros(3), W.T.contiguous(), W.new_zeros(8))
    # The mark stands at 2; S1 comes before it, IO behind it, at several distances.
    rows = prompts_of(model, 4).with_columns(
        token_ids=pl.Series([[0, 3, 5, 3, 3, 3, 3][: 5 + n % 3] for n in range(4)]),
        n_tokens=pl.Series([5 + n % 3 for n in range(4)]),
        positions=pl.Series([[3, 1, 3, 4 + n % 3] for n in range(4)]),
    )
    tables = qk_features(
        model, {0: sae}, rows, [(1, 0)], QkFeatureSettings(top_pairs=1, top_k=(1, 2))
    )
    for role in ("IO", "IO-S1"):
        top = tables.pairs.filter(source_role=role, rank=0).row(0, named=True)
        sides = [
            (top[f"{s}_kind"], top[f"{s}_layer"], top[f"{s}_feature"]) for s in ("query", "key")
        ]
        assert sides == [("feature", 0, 1)] * 2
        assert top["mean"] > 0.1
        assert (top["score_share"], top["covariance_share"]) == pytest.approx((1, 1))
        assert top["n_present"] == top["n"] == 4
        summary = tables.summary.filter(source_role=role)
        assert summary["variance_explained"].to_list() == pytest.approx([1] * 4)
        assert summary["variance_explained_held_out"].to_list() == pytest.approx([1] * 4)
        rest = tables.pairs.filter(source_role=role, query_kind="rest")
        assert rest["mean"].to_list() == pytest.approx([0], abs=1e-12)
    # S1's score is 0 throughout: shares of nothing.
    flat = tables.summary.filter(source_role="S1")
    assert flat["variance_explained"].null_count() == len(flat) == flat["score_share"].null_count()


def test_a_residual_sae_splits_the_key(model: LanguageModel) -> None:
    prompts, saes = prompts_of(model), saes_of(model)
    residual = {2: random_sae(model.config.d_model, "topk", seed=7)}
    for centred in (False, True):
        settings = QkFeatureSettings(centre_residual=centred)
        tables = qk_features(
            model, saes, prompts, [(2, 0), (1, 0)], settings, residual_saes=residual
        )
        kinds = tables.kinds.filter(layer=2)
        assert {"residual_feature", "residual_bias", "residual_error", "key_bias"} == set(
            kinds["key_kind"]
        )
        assert "feature" in kinds["query_kind"]
        assert "residual_feature" not in tables.kinds.filter(layer=1)["key_kind"]
        expected = {(2, 0, "IO"): scores_of(model, prompts, (2, 0), "IO")}
        check_identities(tables, expected, 1e-9)


def test_a_layer_without_an_sae_keeps_its_attention_in_one_piece(gpt2: LanguageModel) -> None:
    saes = saes_of(gpt2)
    del saes[0]
    tables = qk_features(gpt2, saes, prompts_of(gpt2), [(2, 0)])
    of_layer = {
        layer: set(tables.kinds.filter(query_layer=layer)["query_kind"]) for layer in (0, 1)
    }
    assert of_layer[0] == {"attention", "mlp"}
    assert of_layer[1] == {"feature", "sae_error", "sae_bias", "output_bias", "mlp"}
    expected = {(2, 0, "S2"): scores_of(gpt2, prompts_of(gpt2), (2, 0), "S2")}
    check_identities(tables, expected, 1e-9)


def test_a_trained_rotary_model_in_float32(stories: LanguageModel) -> None:
    d = stories.config.d_z
    W = torch.randn(d, 40, generator=torch.Generator().manual_seed(0)) / d**0.5
    saes = {m: TopKSAE(W, torch.zeros(40), W.T.contiguous(), torch.zeros(d), k=6) for m in (0, 2)}
    prompts = prompts_of(stories)
    tables = qk_features(stories, saes, prompts, [(3, 1)])
    expected = {(3, 1, "IO"): scores_of(stories, prompts, (3, 1), "IO")}
    check_identities(tables, expected, 1e-4)


def test_the_embedded_model_on_ioi_prompts(organism: LanguageModel) -> None:
    prompts = ioi_prompts(organism.encode, 8, 0, organism.bos_token_id, ("base",))
    tables = qk_features(organism, {}, prompts, [(3, 3)])
    assert tables.pairs["identity_error"].to_numpy().max() < 1e-4
    assert set(tables.pairs["source_role"]) == {"IO", "S1", "S2", "IO-S1", "IO-S2"}
    for name, frame in (
        ("qk_feature_pairs", tables.pairs),
        ("qk_feature_kinds", tables.kinds),
        ("qk_feature_summary", tables.summary),
    ):
        added = {"task": pl.String(), "chosen_by": pl.String()}
        declared = dict(polars_schema(table_spec(name)))
        assert {name: declared[name] for name in declared if name not in added} == frame.schema


# ---- statistics ----------------------------------------------------------------------------------


def test_pairs_are_ordered_on_one_half_and_measured_on_the_other() -> None:
    """Two pairs: one makes the score of even prompts vary, the other that of odd ones."""
    numbers = PartNumbers(0, {})
    pairs = [number * numbers.count + 1 for number in (0, 1)]
    even = torch.tensor([1.0, -1.0, 2.0, -2.0]).double()
    values = torch.stack([even, even.flip(0)])
    prompt = torch.tensor([[0, 2, 4, 6], [1, 3, 5, 7]])
    score = torch.zeros(8).double()
    score[prompt] = values
    one = RolePairs(
        0,
        0,
        "IO",
        prompt.flatten(),
        torch.tensor(pairs).repeat_interleave(4),
        values.flatten(),
        score,
        torch.full((8,), 0.5).double(),
    )
    summary = pair_tables([one], numbers, top_pairs=5, top_k=(1, 2)).summary
    by_covariance = summary.filter(ordered_by="covariance")
    assert by_covariance["variance_explained"].to_list() == pytest.approx([0.5, 1])
    assert by_covariance["variance_explained_held_out"].to_list() == pytest.approx([0, 1])
    assert by_covariance["r_squared"].to_list() == pytest.approx([0.5, 1])


def role_pairs(values: NDArray[np.float64], score: NDArray[np.float64]) -> RolePairs:
    """Pairs (0, 0), (0, 1), ... with a contribution each in every prompt; values [pair, prompt]."""
    n_pairs, n = values.shape
    return RolePairs(
        0,
        0,
        "IO",
        torch.arange(n).repeat(n_pairs),
        torch.arange(n_pairs).repeat_interleave(n),
        torch.from_numpy(values.ravel()),
        torch.from_numpy(score),
        torch.full((n,), 0.5).double(),
    )


def test_intervals_against_a_loop_over_resampled_base_prompts() -> None:
    """Bases of one to three prompts; every resample written out prompt by prompt."""
    random = np.random.default_rng(0)
    bases = np.repeat(np.arange(9), random.integers(1, 4, 9))
    values = random.normal(np.array([[2], [0], [1]]), 1, (3, len(bases)))
    score = values.sum(0) + 3
    numbers = PartNumbers(0, {})
    frame = pair_tables(
        [role_pairs(values, score)], numbers, top_pairs=3, top_k=[2], bases=bases.tolist()
    ).summary
    odd, every = bases % 2 == 1, np.ones(len(bases), bool)

    def first(ordered_by: str, of: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sum of the two strongest parts over some prompts."""
        strength = {
            "mean": values[:, of].mean(1),
            "covariance": np.array([np.cov(v[of], score[of])[0, 1] for v in values]),
        }[ordered_by]
        found: NDArray[np.float64] = values[np.argsort(-np.abs(strength))[:2]].sum(0)
        return found

    for row in frame.iter_rows(named=True):
        assert (row["n"], row["n_bases"]) == (len(bases), 9)
        by = row["ordered_by"]
        parts = {"": (first(by, every), every), "_held_out": (first(by, ~odd), odd)}
        drawn: dict[str, list[float]] = {}
        for suffix, (part, of) in parts.items():
            kept = np.unique(bases[of])
            for counts in resample_counts(len(kept), N_BOOTSTRAP, 0):
                places = [
                    place
                    for base, count in zip(kept, counts, strict=True)
                    for place in np.tile(np.flatnonzero(bases == base), count)
                ]
                s, p = score[places], part[places]
                if s.var() < 1e-20 or p.var() < 1e-20:
                    continue
                found = {"variance_explained": 1 - (s - p).var() / s.var()}
                if not suffix:
                    found["r_squared"] = np.corrcoef(s, p)[0, 1] ** 2
                    found["score_share"] = p.mean() / s.mean()
                for name, value in found.items():
                    drawn.setdefault(name + suffix, []).append(value)
        assert set(drawn) == {
            *("variance_explained", "r_squared", "score_share", "variance_explained_held_out")
        }
        for name, resampled in drawn.items():
            bounds = (row[f"{name}_ci_low"], row[f"{name}_ci_high"])
            assert bounds == pytest.approx(np.quantile(resampled, [0.025, 0.975]), rel=1e-9), name


def test_prompts_of_one_base_are_no_more_evidence_than_one() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(2, 24)) + 1
    score, numbers = values.sum(0), PartNumbers(0, {})

    def width(copies: int, bases: list[int] | None) -> float:
        one = role_pairs(np.repeat(values, copies, axis=1), np.repeat(score, copies))
        frame = pair_tables([one], numbers, top_pairs=2, top_k=[1], bases=bases).summary
        return float(frame["r_squared_ci_high"][0] - frame["r_squared_ci_low"][0])

    once = width(1, None)
    assert width(4, np.repeat(np.arange(24), 4).tolist()) == pytest.approx(once)
    assert width(4, None) < 0.7 * once
    alone = pair_tables(
        [role_pairs(values, score)], numbers, top_pairs=2, top_k=[1], bases=[7] * 24
    ).summary
    assert alone["n_bases"].to_list() == [1, 1]
    assert alone["r_squared_ci_low"].null_count() == 2


def test_a_mean_score_of_unsure_sign_has_no_interval_of_its_shares() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=(2, 30))
    one = role_pairs(values, values.sum(0))
    row = pair_tables([one], PartNumbers(0, {}), top_pairs=2, top_k=[1]).summary.row(0, named=True)
    assert row["score_share"] is not None
    assert (row["score_share_ci_low"], row["score_share_ci_high"]) == (None, None)
    assert row["variance_explained_ci_low"] < row["variance_explained_ci_high"]


# ---- bad input -----------------------------------------------------------------------------------


def test_errors_name_what_is_wrong(gpt2: LanguageModel) -> None:
    prompts, saes = prompts_of(gpt2), saes_of(gpt2)
    with pytest.raises(QkFeatureError, match=r"head L2H3 does not exist; .* heads 0\.\.2"):
        qk_features(gpt2, saes, prompts, [(2, 3)])
    with pytest.raises(QkFeatureError, match="each once"):
        qk_features(gpt2, saes, prompts, [(2, 1), (2, 1)])
    with pytest.raises(QkFeatureError, match="3 base prompts; give at least 4"):
        qk_features(gpt2, saes, prompts.head(3), [(2, 1)])
    with pytest.raises(QkFeatureError, match="residual-stream SAE of layer 2 reads 5 dimensions"):
        qk_features(gpt2, saes, prompts, [(2, 1)], residual_saes={2: random_sae(5, "topk")})
    with pytest.raises(ValidationError, match="'S3' is none of the sources"):
        QkFeatureSettings(contrasts=[("IO", "S3")])
    with pytest.raises(PromptError, match="no prompt has a position of role 'S3'"):
        qk_features(gpt2, saes, prompts, [(2, 1)], QkFeatureSettings(sources=["S3"], contrasts=[]))
    behind = QkFeatureSettings(destination="S1", sources=["S2"], contrasts=[])
    with pytest.raises(PromptError, match="role S2 of prompt 0 lies behind S1"):
        qk_features(gpt2, saes, prompts, [(2, 1)], behind)
