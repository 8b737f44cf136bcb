"""Models in TransformerLens's own format (GELU-2L and its kin), as a GPT-2 that computes the same.

Belongs here: such a folder's config.json and tensors, by TransformerLens's names, and the GPT-2
that they are. Does not belong here: Hugging Face folders (language_model.py), sizes (shape.py).

A model of learned positions, LayerNorm and one MLP a block is a GPT-2 with an MLP width, an
activation and an unembedding bias of its own. LNPre is a LayerNorm of gain 1 and bias 0, a block
without MLP one whose MLP writes 0. What a GPT-2 cannot be is refused: SoLU with its norm, rotary or
shortformer positions, heads that do not fill d_model. Both formats have z and every activation.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.model.shape import ModelError, ModelShape, is_transformer_lens

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_new", "relu": "relu", "silu": "silu"}
_NORMS = ("LN", "LNPre")
_NO_WEIGHTS = ("attn.mask", "attn.IGNORE")


def is_transformer_lens_folder(folder: Path) -> bool:
    """Whether a folder's config.json is TransformerLens's."""
    return is_transformer_lens(_read(folder / "config.json"))


def load_transformer_lens(folder: Path, shape: ModelShape, dtype: torch.dtype) -> GPT2LMHeadModel:
    """The model of a folder, as GPT-2. Raises ModelError for what no GPT-2 computes."""
    given = _read(folder / "config.json")
    _check(given, folder)
    config = GPT2Config(
        vocab_size=shape.d_vocab,
        n_positions=shape.n_ctx,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_inner=shape.d_mlp,
        activation_function=_ACTIVATIONS.get(str(given.get("act_fn")), "relu"),
        layer_norm_epsilon=shape.eps,
        scale_attn_weights=bool(given.get("use_attn_scale", True)),
        tie_word_embeddings=False,
        bos_token_id=given.get("bos_token_id", 0),
        eos_token_id=given.get("bos_token_id", 0),
        architectures=["GPT2LMHeadModel"],
    )
    model = GPT2LMHeadModel(config)
    model.lm_head = nn.Linear(shape.d_model, shape.d_vocab, bias=True)
    found = {
        name: tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if not name.endswith(_NO_WEIGHTS)
    }
    wanted = model.state_dict()
    mapped = _mapped(found, shape, folder)
    if odd := [n for n, tensor in mapped.items() if wanted[n].shape != tensor.shape]:
        raise ModelError(f"{folder}: tensors do not have the sizes of config.json: {odd[:3]}")
    model.load_state_dict(mapped)
    return model.to(dtype)


# ---- private -------------------------------------------------------------------------------------


def _read(file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _check(given: Mapping[str, Any], folder: Path) -> None:
    attention_only = bool(given.get("attn_only", False))
    problems = {
        "act_fn": not attention_only and given.get("act_fn") not in _ACTIVATIONS,
        "normalization_type": _norm(given) not in _NORMS,
        "positional_embedding_type": given.get("positional_embedding_type", "standard")
        != "standard"
        or bool(given.get("shortformer_pos", False)),
        "final_rms": bool(given.get("final_rms", False)),
        "gated_mlp": bool(given.get("gated_mlp", False)),
        "parallel_attn_mlp": bool(given.get("parallel_attn_mlp", False)),
        "attn_scale": given.get("attn_scale", -1.0) not in (-1.0, None),
        "d_head": given["n_heads"] * given["d_head"] != given["d_model"],
    }
    if wrong := [name for name, is_wrong in problems.items() if is_wrong]:
        raise ModelError(
            f"{folder} is a model in TransformerLens's format that no GPT-2 computes "
            f"({', '.join(f'{name}: {given.get(name)!r}' for name in wrong)}); models of "
            f"LayerNorm, learned positions and one of {', '.join(_ACTIVATIONS)} are read"
        )


def _norm(given: Mapping[str, Any]) -> Any:
    return given.get("normalization_type", given.get("normalization"))


def _mapped(found: dict[str, Tensor], shape: ModelShape, folder: Path) -> dict[str, Tensor]:
    """GPT-2's tensors; absent biases and norms' weights are 0 and 1. Raises ModelError."""
    d, used = shape.d_model, set()

    def get(name: str, default: Tensor | None = None) -> Tensor:
        used.add(name)
        tensor = found.get(name, default)
        if tensor is None:
            raise ModelError(f"{folder} has no tensor {name}; copy it again from its source")
        return tensor

    one, zero = torch.ones(d), torch.zeros(d)
    mapped = {
        "transformer.wte.weight": get("embed.W_E"),
        "transformer.wpe.weight": get("pos_embed.W_pos"),
        "transformer.ln_f.weight": get("ln_final.w", one),
        "transformer.ln_f.bias": get("ln_final.b", zero),
        "lm_head.weight": get("unembed.W_U").T,
        "lm_head.bias": get("unembed.b_U", torch.zeros(shape.d_vocab)),
    }
    for layer in range(shape.n_layers):
        block, own = f"transformer.h.{layer}.", f"blocks.{layer}."
        q, k, v = (get(f"{own}attn.W_{name}").permute(1, 0, 2).reshape(d, -1) for name in "QKV")
        biases = [get(f"{own}attn.b_{name}", zero).flatten() for name in "QKV"]
        width = shape.d_mlp
        mlp = {
            "c_fc.weight": get(f"{own}mlp.W_in", torch.zeros(d, width)),
            "c_fc.bias": get(f"{own}mlp.b_in", torch.zeros(width)),
            "c_proj.weight": get(f"{own}mlp.W_out", torch.zeros(width, d)),
            "c_proj.bias": get(f"{own}mlp.b_out", zero),
        }
        mapped |= {
            f"{block}ln_1.weight": get(f"{own}ln1.w", one),
            f"{block}ln_1.bias": get(f"{own}ln1.b", zero),
            f"{block}ln_2.weight": get(f"{own}ln2.w", one),
            f"{block}ln_2.bias": get(f"{own}ln2.b", zero),
            f"{block}attn.c_attn.weight": torch.cat([q, k, v], 1),
            f"{block}attn.c_attn.bias": torch.cat(biases),
            f"{block}attn.c_proj.weight": get(f"{own}attn.W_O").flatten(0, 1),
            f"{block}attn.c_proj.bias": get(f"{own}attn.b_O", zero),
            **{f"{block}mlp.{name}": tensor for name, tensor in mlp.items()},
        }
    if unused := sorted(set(found) - used):
        raise ModelError(f"{folder} has tensors that its config.json does not say: {unused[:3]}")
    return mapped
