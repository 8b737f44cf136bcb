"""A model of which every head is known by how many matching tokens it needs."""

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.model.language_model import LanguageModel

VOCABULARY = CONTEXT = 40
D_HEAD = 2 * VOCABULARY + 1
D_MODEL = 4 * D_HEAD
BOS = 0
TOKEN, POSITION, LAST, LAST_BUT_ONE = (
    slice(VOCABULARY * i, VOCABULARY * (i + 1)) for i in range(4)
)
SHORT, LONG = (1, 0), (1, 1)
SHARPNESS = 40.0


def planted_prefix_model(folder: Path) -> LanguageModel:
    """Two layers of four heads, no MLPs.

    The residual stream holds one-hot token, position, last token and last token but one. L0H0 and
    L0H1 attend to i - 1 and i - 2 and write their tokens. SHORT attends to j where the last token
    of j is the token of i. LONG does so too where also the last but one of j is the last of i, and
    attends to BOS otherwise: with two matching tokens j beats BOS, with one BOS beats j. Both copy
    the token of j. The other heads attend uniformly and write nothing.
    """
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=D_MODEL,
        n_layer=2,
        n_head=4,
        bos_token_id=BOS,
        eos_token_id=BOS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        is_scale = "ln_" in name and name.endswith("weight")
        parameter.data.fill_(1.0 if is_scale else 0.0)
    trunk = model.transformer
    one = torch.eye(VOCABULARY)
    trunk.wte.weight.data[:, TOKEN] = one
    trunk.wpe.weight.data[:, POSITION] = one

    def matrices(layer: int, head: int) -> tuple[torch.Tensor, ...]:
        """Views of W_Q, W_K, W_V [d_model, d_head], W_O [d_head, d_model] and b_Q [d_head]."""
        fused = trunk.h[layer].attn.c_attn.weight.data.view(D_MODEL, 3, 4, D_HEAD)
        bias = trunk.h[layer].attn.c_attn.bias.data.view(3, 4, D_HEAD)
        out = trunk.h[layer].attn.c_proj.weight.data.view(4, D_HEAD, D_MODEL)
        return fused[:, 0, head], fused[:, 1, head], fused[:, 2, head], out[head], bias[0, head]

    for head, (back, written) in enumerate(((1, LAST), (2, LAST_BUT_ONE))):
        q, k, v, o, _ = matrices(0, head)
        q[POSITION, :VOCABULARY] = SHARPNESS * one.roll(-back, dims=1)
        k[POSITION, :VOCABULARY] = one
        v[TOKEN, :VOCABULARY] = one
        # LayerNorm scales a stream of two ones by about sqrt(d_model / 2); undo it.
        o[:VOCABULARY, written] = one / (D_MODEL / 2) ** 0.5
    scale = (D_MODEL / 4) ** 0.5  # of a stream of four ones
    first, second = slice(0, VOCABULARY), slice(VOCABULARY, 2 * VOCABULARY)
    for layer, head in (SHORT, LONG):
        q, k, v, o, b_q = matrices(layer, head)
        q[TOKEN, first] = SHARPNESS * one
        k[LAST, first] = one
        if (layer, head) == LONG:
            q[LAST, second] = SHARPNESS * one
            k[LAST_BUT_ONE, second] = one
            b_q[-1] = SHARPNESS * scale
            k[BOS, -1] = 1.5
        v[TOKEN, first] = one
        o[:VOCABULARY, TOKEN] = one
    model.save_pretrained(folder)
    return LanguageModel.load(folder)
