"""Logit effects: planted answers, an independent reference, the logits of a real forward pass."""

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.attribution.logit_effects import (
    feature_logit_effects,
    logit_effects,
    logit_histograms,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec

N_HEADS, D_HEAD, D_MODEL, D_VOCAB = 3, 4, 16, 30
TOKENS = [f"t{i}" for i in range(D_VOCAB)]


def random_weights(n_features: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(n_features, N_HEADS * D_HEAD, generator=generator),
        torch.randn(N_HEADS, D_HEAD, D_MODEL, generator=generator),
        torch.randn(D_MODEL, D_VOCAB, generator=generator),
    )


def reference(W_dec: Tensor, W_O: Tensor, W_U: Tensor, feature: int) -> np.ndarray:
    """Head by head in float64."""
    d = W_dec[feature].double().numpy()
    written = np.zeros(D_MODEL)
    for head in range(N_HEADS):
        written += d[head * D_HEAD : (head + 1) * D_HEAD] @ W_O[head].double().numpy()
    return np.asarray(written @ W_U.double().numpy())


def test_effects_equal_a_float64_reference() -> None:
    W_dec, W_O, W_U = random_weights()
    found = logit_effects(W_dec, W_O, W_U)
    for feature in range(len(W_dec)):
        expected = reference(W_dec, W_O, W_U, feature)
        np.testing.assert_allclose(found[feature].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("workspace_bytes", [1, 4 * D_VOCAB * 4, 2**20])
def test_extreme_tokens_are_those_of_the_reference(workspace_bytes: int) -> None:
    W_dec, W_O, W_U = random_weights()
    frame = feature_logit_effects(W_dec, W_O, W_U, TOKENS, k=5, workspace_bytes=workspace_bytes)
    for feature in range(len(W_dec)):
        ranked = np.argsort(reference(W_dec, W_O, W_U, feature))
        rows = frame.filter(pl.col("feature") == feature)
        top = rows.filter(pl.col("extreme") == "top").sort("rank")
        bottom = rows.filter(pl.col("extreme") == "bottom").sort("rank")
        assert top["token_id"].to_list() == ranked[::-1][:5].tolist()
        assert bottom["token_id"].to_list() == ranked[:5].tolist()
        assert top["token"].to_list() == [TOKENS[i] for i in ranked[::-1][:5]]


@pytest.mark.parametrize("workspace_bytes", [1, 2**20])
def test_histograms_count_every_token_where_its_effect_lies(workspace_bytes: int) -> None:
    W_dec, W_O, W_U = random_weights()
    W_dec[4] = 0  # every effect is 0: one bin holds them all
    counts, centres = logit_histograms(W_dec, W_O, W_U, bins=7, workspace_bytes=workspace_bytes)
    assert counts.sum(dim=1).tolist() == [D_VOCAB] * len(W_dec)
    assert sorted(counts[4].tolist()) == [0] * 6 + [D_VOCAB]
    for feature in (0, 3, 10):
        effects = reference(W_dec, W_O, W_U, feature)
        expected, edges = np.histogram(effects, bins=7)
        assert counts[feature].tolist() == expected.tolist()
        np.testing.assert_allclose(centres[feature], (edges[1:] + edges[:-1]) / 2, atol=1e-4)


def test_a_direction_that_writes_one_unembedding_column_promotes_that_token() -> None:
    """Head 1 writes into the first 4 residual dimensions, which unembed tokens 7, 3, 9, 5."""
    W_O = torch.zeros(N_HEADS, D_HEAD, D_MODEL)
    W_O[1, :, :D_HEAD] = torch.eye(D_HEAD)
    W_U = torch.zeros(D_MODEL, D_VOCAB)
    planted = [7, 3, 9, 5]
    for i, token in enumerate(planted):
        W_U[i, token] = 2.0
    W_dec = torch.zeros(D_HEAD, N_HEADS * D_HEAD)
    W_dec[:, D_HEAD : 2 * D_HEAD] = torch.diag(torch.tensor([1.0, -1.0, 3.0, -0.5]))
    frame = feature_logit_effects(W_dec, W_O, W_U, TOKENS, k=1)
    top = frame.filter(pl.col("extreme") == "top")
    bottom = frame.filter(pl.col("extreme") == "bottom")
    assert (top["token_id"][0], top["logit_effect"][0]) == (7, 2.0)
    assert (bottom["token_id"][1], bottom["logit_effect"][1]) == (3, -2.0)
    assert (top["token_id"][2], top["logit_effect"][2]) == (9, 6.0)
    assert (bottom["token_id"][3], bottom["logit_effect"][3]) == (5, -1.0)


def test_equal_effects_are_ranked_by_token_id() -> None:
    W_dec, W_O, W_U = random_weights(2)
    W_U[:, 10:] = W_U[:, 10:11]
    frame = feature_logit_effects(W_dec, W_O, W_U, TOKENS, k=D_VOCAB)
    for feature in (0, 1):
        for direction in ("top", "bottom"):
            rows = frame.filter(feature=feature, extreme=direction)
            tied = rows.filter(pl.col("token_id") >= 10)["token_id"].to_list()
            assert tied == list(range(10, D_VOCAB))
            assert sorted(rows["token_id"].to_list()) == list(range(D_VOCAB))


def test_a_zero_decoder_row_has_no_tokens() -> None:
    W_dec, W_O, W_U = random_weights(4)
    W_dec[2] = 0
    frame = feature_logit_effects(W_dec, W_O, W_U, TOKENS, k=3)
    assert frame["feature"].unique().sort().to_list() == [0, 1, 3]
    empty = feature_logit_effects(torch.zeros_like(W_dec), W_O, W_U, TOKENS, k=3)
    assert empty.schema == frame.schema
    assert len(empty) == 0


def test_a_push_along_a_decoder_row_moves_the_logits_of_the_model_by_its_effect(
    organism: LanguageModel,
) -> None:
    """Last layer, MLP removed: adding d_i to z adds effect / final LayerNorm scale."""
    model = organism
    layer = model.config.n_layers - 1
    generator = torch.Generator().manual_seed(1)
    d = torch.randn(1, model.config.d_z, generator=generator)
    ids = torch.randint(1, model.config.d_vocab, (2, 12), generator=generator)
    ids[:, 0] = model.bos_token_id
    scales: list[Tensor] = []

    def no_mlp(value: Tensor, hook: object) -> Tensor:
        return torch.zeros_like(value)

    def logits(push: float) -> Tensor:
        def add(z: Tensor, hook: object) -> Tensor:
            return z + push * d.view(model.config.n_heads, model.config.d_head)

        def keep_scale(scale: Tensor, hook: object) -> Tensor:
            scales.append(scale)
            return scales[0]

        with torch.no_grad():
            out = model.processed.run_with_hooks(
                ids,
                fwd_hooks=[
                    (f"blocks.{layer}.attn.hook_z", add),
                    (f"blocks.{layer}.hook_mlp_out", no_mlp),
                    ("ln_final.hook_scale", keep_scale),
                ],
            )
        assert isinstance(out, Tensor)
        return out

    moved = (logits(1.0) - logits(0.0)) * scales[0]
    expected = logit_effects(d, model.weights.W_O[layer], model.weights.W_U)
    torch.testing.assert_close(moved, expected.expand_as(moved), rtol=1e-3, atol=2e-3)


def test_weights_of_another_shape_and_a_wrong_k_are_refused() -> None:
    W_dec, W_O, W_U = random_weights()
    with pytest.raises(ValueError, match="do not fit"):
        logit_effects(W_dec[:, :-1], W_O, W_U)
    with pytest.raises(ValueError, match="k is 31; give 1 to 30"):
        feature_logit_effects(W_dec, W_O, W_U, TOKENS, k=31)


def test_the_frame_has_the_declared_columns() -> None:
    declared = dict(polars_schema(table_spec("feature_logit_effects")))
    del declared["layer"]
    assert dict(feature_logit_effects(*random_weights(), TOKENS, k=2).schema) == declared
