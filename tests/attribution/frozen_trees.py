"""What trees of recursive attribution are tested with: sequences of random models, the sum at every
split, an independent frozen forward pass, a model that copies a mark."""

from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from mechinterp_assets.attribution.residual_saes import ResidualSaes
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

LENGTH = 7
# Everything becomes a row of its own.
WHOLE = RdfaSettings(max_depth=9, branching=1000, min_share=0, max_nodes=10**6)
# Dimensions of copying_gpt2: pairs (i, i + 1) of opposite sign, so that LayerNorm's mean is 0.
MARK, COPIED = 0, 2


def tokens(model: LanguageModel, seed: int = 3, n: int = LENGTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, model.config.d_vocab, (n,), generator=generator)
    ids[0] = model.bos_token_id
    return ids


def z_of(model: LanguageModel, ids: Tensor, layer: int) -> Tensor:
    """z_cat [position, d_z] of the bridge's forward pass."""
    _, cache = model.raw.run_with_cache(ids[None])
    z: Tensor = cache[f"blocks.{layer}.attn.hook_z"][0].flatten(1)
    return z


def an_active_feature(
    model: LanguageModel, saes: dict[int, SparseAutoencoder], layer: int, position: int
) -> tuple[int, float]:
    """The strongest feature there, and its activation."""
    z = z_of(model, tokens(model), layer)[position]
    value, feature = saes[layer].encode(z[None].to(saes[layer].W_enc))[0].max(dim=0)
    assert value > 0
    return int(feature), float(value)


def worst_level(tree: pl.DataFrame) -> float:
    """Largest |sum of parts - value| over all split nodes, relative to the size of the parts.

    From the rows' values alone, not from the column identity_error.
    """
    parts = (
        tree.drop_nulls("parent")
        .group_by("parent")
        .agg(total=pl.col("dfa").sum(), size=pl.col("dfa").abs().sum())
    )
    joined = parts.join(tree, left_on="parent", right_on="node")
    assert len(joined) == len(parts) > 0
    error = (joined["total"] - joined["dfa"]).abs() / joined["size"]
    return float(error.to_numpy().max())


def frozen_pre_activation(
    model: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    ids: Tensor,
    layer: int,
    feature: int,
    embedding: Tensor,
    residual: ResidualSaes | None = None,
) -> Tensor:
    """Pre-activation at the last position with everything frozen, as a function of `embedding`.

    Written from Hugging Face's parameters, without the code under test: patterns, scales, MLP
    outputs, SAE errors and the choice of active features are constants of a first run. Values read
    the stream through its residual SAE where its layer has one; what is written is added as ever.
    """
    residual = residual or ResidualSaes()
    _, cache = model.raw.run_with_cache(ids[None])
    config, parameters = model.config, dict(model.hf.named_parameters())
    H, dh = config.n_heads, config.d_head
    x = embedding
    if config.positional == "absolute":
        x = x + parameters["transformer.wpe.weight"][: len(ids)]
    for m in range(layer + 1):
        resid = cache[f"blocks.{m}.hook_resid_pre"][0]
        read = x
        if m in residual.by_layer:
            sae, mean = residual.by_layer[m], resid.mean(-1, keepdim=True)
            seen = resid - mean if residual.centre else resid
            gate = (sae.encode(seen) > 0).to(seen)
            now = x - x.mean(-1, keepdim=True) if residual.centre else x
            read = sae.decode(gate * sae.pre_activations(now)) + resid - sae(seen)
        if config.normalization == "LN":
            name = f"transformer.h.{m}."
            scale = (resid.var(-1, unbiased=False, keepdim=True) + config.eps).sqrt()
            n = (read - read.mean(-1, keepdim=True)) / scale * parameters[name + "ln_1.weight"]
            n = n + parameters[name + "ln_1.bias"]
            width = config.d_model
            v = n @ parameters[name + "attn.c_attn.weight"][:, 2 * width :]
            v = (v + parameters[name + "attn.c_attn.bias"][2 * width :]).view(-1, H, dh)
            W_O = parameters[name + "attn.c_proj.weight"]
            b_O = parameters[name + "attn.c_proj.bias"]
        else:
            name = f"model.layers.{m}."
            scale = (resid.square().mean(-1, keepdim=True) + config.eps).sqrt()
            n = read / scale * parameters[name + "input_layernorm.weight"]
            v = (n @ parameters[name + "self_attn.v_proj.weight"].T).view(-1, config.n_kv_heads, dh)
            v = v.repeat_interleave(H // config.n_kv_heads, dim=1)
            W_O, b_O = parameters[name + "self_attn.o_proj.weight"].T, torch.zeros(())
        z = torch.einsum("hds,she->dhe", cache[f"blocks.{m}.attn.hook_pattern"][0], v).flatten(1)
        if m == layer:
            return saes[m].pre_activations(z)[-1, feature]
        before = cache[f"blocks.{m}.attn.hook_z"][0].flatten(1)
        if m in saes:
            gate = (saes[m].encode(before) > 0).to(z)
            error = before - saes[m](before)
            z = saes[m].decode(gate * saes[m].pre_activations(z)) + error
        else:
            z = before
        x = x + z @ W_O + b_O + cache[f"blocks.{m}.hook_mlp_out"][0]
    raise AssertionError


def check_embedding_paths(
    model: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    ids: Tensor,
    layer: int,
    feature: int,
    tree: pl.DataFrame,
    residual: ResidualSaes | None = None,
) -> None:
    """A whole tree sums at each level, and its paths to a token's embedding are gradient x input of
    an independent frozen pass."""
    assert worst_level(tree) < 1e-9
    embedding = model.hf.get_input_embeddings().weight[ids].clone().requires_grad_()
    value = frozen_pre_activation(model, saes, ids, layer, feature, embedding, residual)
    assert float(value.detach()) == pytest.approx(tree["dfa"][0], rel=1e-5)
    (gradient,) = torch.autograd.grad(value, embedding)
    expected = (gradient * embedding).sum(-1).detach()
    found = tree.filter(node_kind="embedding").group_by("at_position").agg(pl.col("dfa").sum())
    assert len(found) == len(ids)
    for source, total in found.iter_rows():
        assert total == pytest.approx(float(expected[source]), rel=1e-6, abs=1e-8)


def marked_gpt2() -> GPT2LMHeadModel:
    """Two layers; token 5 has a mark, which layer 0 copies to later positions."""
    config = GPT2Config(
        n_layer=2, n_head=1, n_embd=8, n_positions=8, vocab_size=8, bos_token_id=0, eos_token_id=0
    )
    hf = GPT2LMHeadModel(config)
    other = 4
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        wte = hf.transformer.wte.weight
        # Pairs (i, i + 1) of opposite sign, so that LayerNorm's mean is 0.
        wte[:, other], wte[:, other + 1] = 1.0, -1.0
        wte[5] = 0
        wte[5, MARK], wte[5, MARK + 1] = 1.0, -1.0
        _copy(hf.transformer.h[0], MARK, COPIED)
    return hf


def copying_gpt2(folder: Path) -> LanguageModel:
    """Layer 0 copies the mark of token 5 to later positions, layer 1 reads the copy alone."""
    hf = marked_gpt2()
    with torch.no_grad():
        _copy(hf.transformer.h[1], COPIED, 6)
    hf.save_pretrained(folder)
    return LanguageModel.load(folder, dtype=torch.float64)


def _copy(block: GPT2Block, read: int, write: int) -> None:
    block.attn.c_attn.weight[read, 16] = 1.0
    block.attn.c_proj.weight[0, write], block.attn.c_proj.weight[0, write + 1] = 1.0, -1.0
