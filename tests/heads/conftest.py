"""Models whose heads are known: one built by hand, one untrained."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.model.language_model import LanguageModel

VOCABULARY, CONTEXT = 24, 24
TOKEN = slice(0, VOCABULARY)
POSITION = slice(VOCABULARY, VOCABULARY + CONTEXT)
PREVIOUS = slice(VOCABULARY + CONTEXT, 2 * VOCABULARY + CONTEXT)
SHARPNESS = 40.0


def _config(**sizes: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        **sizes,
    )


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Two layers of two heads, no MLPs, every head known.

    The residual stream holds one-hot token, one-hot position and one-hot previous token.
    L0H0 attends to i - 1 and writes its token into PREVIOUS (a previous-token head).
    L0H1 attends to the earlier same token and not to itself (a duplicate-token head), writes 0.
    L1H0 attends to j where PREVIOUS(j) = TOKEN(i) and copies TOKEN(j) (an induction head).
    L1H1 attends uniformly and subtracts TOKEN(j) (an anti-copying head).
    """
    d_model, d_head = 96, 48
    model = GPT2LMHeadModel(_config(n_embd=d_model, n_layer=2, n_head=2)).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    for name, parameter in model.named_parameters():
        if "ln_" in name and name.endswith("weight"):
            parameter.data.fill_(1.0)
    trunk = model.transformer
    trunk.wte.weight.data[:, TOKEN] = torch.eye(VOCABULARY)
    trunk.wpe.weight.data[:, POSITION] = torch.eye(CONTEXT)

    def matrices(layer: int, head: int) -> tuple[torch.Tensor, ...]:
        """Views of W_Q, W_K, W_V [d_model, d_head] and W_O [d_head, d_model]."""
        fused = trunk.h[layer].attn.c_attn.weight.data.view(d_model, 3, 2, d_head)
        out = trunk.h[layer].attn.c_proj.weight.data.view(2, d_head, d_model)
        return fused[:, 0, head], fused[:, 1, head], fused[:, 2, head], out[head]

    token, position = torch.eye(VOCABULARY), torch.eye(CONTEXT)
    q, k, v, o = matrices(0, 0)
    q[POSITION, :CONTEXT] = SHARPNESS * position.roll(-1, dims=1)
    k[POSITION, :CONTEXT] = position
    v[TOKEN, :VOCABULARY] = token
    # LayerNorm scales a stream of two ones by about sqrt(d_model / 2); undo it.
    o[:VOCABULARY, PREVIOUS] = token / (d_model / 2) ** 0.5
    q, k, v, o = matrices(0, 1)
    q[TOKEN, :VOCABULARY] = SHARPNESS * token
    q[POSITION, VOCABULARY:] = -SHARPNESS * position
    k[TOKEN, :VOCABULARY] = token
    k[POSITION, VOCABULARY:] = position
    q, k, v, o = matrices(1, 0)
    q[TOKEN, :VOCABULARY] = SHARPNESS * token
    k[PREVIOUS, :VOCABULARY] = token
    v[TOKEN, :VOCABULARY] = token
    o[:VOCABULARY, TOKEN] = token
    q, k, v, o = matrices(1, 1)
    v[TOKEN, :VOCABULARY] = token
    o[:VOCABULARY, TOKEN] = -token
    return _saved(model, tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A GPT-2 with initial random weights."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(_config(n_embd=128, n_layer=3, n_head=4)).eval()
    return _saved(model, tmp_path_factory.mktemp("untrained"))


def _saved(model: GPT2LMHeadModel, folder: Path) -> LanguageModel:
    model.save_pretrained(folder)
    return LanguageModel.load(folder)
