"""Identities of a family's model, computed beside the package: from transformers' own module, whose
hidden states, attention patterns and logits nothing of the package touches.

`python -m tests.model.family_identities` writes the table of docs/models.md anew.

Belongs here: one function per identity, which gives its worst relative error. Does not belong here:
models (families.py), what must come out (test_model_families.py).
"""

import copy
import logging
import sys
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.attribution.dfa import attention_of_layers, direct_feature_attribution
from mechinterp_assets.attribution.rdfa import Rdfa
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.residual import attention_scales, residual_stream
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.model.agreement import disagreement, worst
from mechinterp_assets.model.analyses import Analysis
from mechinterp_assets.model.capabilities import capabilities_of
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError
from tests.attribution.random_models import saes_of
from tests.model.families import D_VOCAB, FAMILIES, save_family

LENGTH = 20  # more than two sliding windows


class OwnRun:
    """One forward pass of transformers' module, with what its hooks show.

    z, out [layer]: input and output of the attention output projection; pattern [layer] of
    [batch, head, destination, source]; hidden [layer + 1]; logits.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        drawn = torch.Generator().manual_seed(1)
        self.ids = torch.randint(2, D_VOCAB, (2, LENGTH), generator=drawn)
        self.ids[:, 0] = 1
        # Loaded anew: only eager attention gives patterns.
        self.hf = AutoModelForCausalLM.from_pretrained(
            model.source, attn_implementation="eager", dtype=torch.float32
        ).eval()
        z: dict[int, Tensor] = {}
        out: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                z[layer], out[layer] = args[0], output

            return hook

        for layer in range(model.config.n_layers):
            name = _name_of(model.hf, model.output_projection(layer))
            self.hf.get_submodule(name).register_forward_hook(keep(layer))
        with torch.no_grad():
            found = self.hf(
                self.ids, output_attentions=True, output_hidden_states=True, use_cache=False
            )
        self.z, self.out = z, out
        self.pattern, self.hidden, self.logits = found.attentions, found.hidden_states, found.logits

    @cached_property
    def saes(self) -> Any:
        return saes_of(self.model)


# ---- identities ----------------------------------------------------------------------------------


@torch.no_grad()
def logits(own: OwnRun) -> float:
    """The bridge's logits, raw; log probabilities of both views."""
    model, expected = own.model, own.logits
    views = [model.raw(own.ids).log_softmax(-1), model.processed(own.ids).log_softmax(-1)]
    errors = [disagreement(view, expected.log_softmax(-1)) for view in views]
    return worst([disagreement(model.raw(own.ids), expected), *errors])


@torch.no_grad()
def harvested_z(own: OwnRun) -> float:
    """z of the harvest, and hook_z of the bridge."""
    harvested = capture_z(own.model, own.ids)
    _, cache = own.model.raw.run_with_cache(own.ids)
    errors = []
    for layer, expected in own.z.items():
        errors.append(disagreement(harvested[layer], expected))
        errors.append(disagreement(cache[f"blocks.{layer}.attn.hook_z"].flatten(2), expected))
    return worst(errors)


@torch.no_grad()
def heads_sum(own: OwnRun) -> float:
    """Sum over heads of z W_O + b_O, and the attention output projection's own output."""
    weights, config = own.model.raw_weights, own.model.config
    errors = []
    for layer, z in own.z.items():
        z = z.view(*z.shape[:2], config.n_heads, config.d_head)
        found = torch.einsum("bthk,hkd->btd", z, weights.W_O[layer]) + weights.b_O[layer]
        errors.append(disagreement(found, own.out[layer]))
    return worst(errors)


@torch.no_grad()
def ablation(own: OwnRun) -> float:
    """Logits with a head's hook_z set to 0, and with its columns of the projection set to 0."""
    model, config = own.model, own.model.config
    errors = []
    for layer in range(config.n_layers):
        head = layer % config.n_heads
        cut = copy.deepcopy(own.hf)
        projection = cut.get_submodule(_name_of(model.hf, model.output_projection(layer)))
        columns = slice(head * config.d_head, (head + 1) * config.d_head)
        if type(projection).__name__ == "Conv1D":
            projection.weight[columns] = 0
        else:
            projection.weight[:, columns] = 0

        def silence(z: Tensor, hook: Any, head: int = head) -> Tensor:
            z = z.clone()
            z.view(*z.shape[:2], config.n_heads, -1)[:, :, head] = 0
            return z

        hooks = [(f"blocks.{layer}.attn.hook_z", silence)]
        found = model.raw.run_with_hooks(own.ids, fwd_hooks=hooks)
        errors.append(disagreement(found, cut(own.ids, use_cache=False).logits))
    return worst(errors)


@torch.no_grad()
def dfa(own: OwnRun) -> float:
    """Direct feature attribution over heads and sources, and w . z."""
    config = own.model.config
    attention = attention_of_layers(own.model, own.ids, range(config.n_layers))
    w = torch.randn(2, config.n_heads, config.d_head, generator=torch.Generator().manual_seed(2))
    rows, ends = torch.arange(2), torch.tensor([LENGTH - 1, LENGTH // 2])
    errors = []
    for layer, z in own.z.items():
        found = direct_feature_attribution(attention[layer], rows, ends, w).sum((1, 2))
        expected = (z[rows, ends] * w.flatten(1)).sum(-1)
        errors.append(float((found - expected).norm() / (z[rows, ends].norm() * w.norm())))
    return worst(errors)


def rdfa(own: OwnRun) -> float:
    """Leaves of a recursive attribution, and the pre-activation on transformers' z."""
    layer = own.model.config.n_layers - 1
    pre = own.saes[layer].pre_activations(own.z[layer][0, -1][None].double())[0]
    active = own.saes[layer].encode(own.z[layer][0, -1][None].to(own.saes[layer].W_enc))[0]
    feature = int(active.argmax())
    settings = RdfaSettings(max_depth=2, branching=3, min_share=0.001)
    tree = Rdfa(own.model, own.saes, settings).tree(own.ids[0], layer, feature, LENGTH - 1)
    leaves = tree.filter(tree["identity_error"].is_null())["dfa"].sum()
    return abs(float(leaves) - float(pre[feature])) / float(pre.abs().max())


@torch.no_grad()
def omega_slices(own: OwnRun) -> float:
    """Softmax of the sums of Omega's slices, and rows of transformers' attention patterns."""
    model, config = own.model, own.model.config
    omega = ModelOmega(model)
    errors = []
    _, cache = model.processed.run_with_cache(own.ids)
    for layer in range(config.n_layers):
        x = cache[f"blocks.{layer}.hook_resid_pre"][0].double()
        if config.normalization == "LN":
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + config.eps).sqrt()
        x = torch.cat([x, torch.ones_like(x[:, :1])], -1)
        head, i = (layer + 1) % config.n_heads, LENGTH - 2 - layer
        expected = own.pattern[layer][0, head, i]
        seen = (expected > 0).nonzero().flatten().tolist()
        slices = []
        for j in seen:
            U, S, V = omega.vectors(layer, head, i - j)
            slices.append((S * (x[i] @ U) * (x[j] @ V)).sum())
        scores = torch.stack(slices) * attention_scales(model)[layer]
        errors.append(disagreement(scores.softmax(0), expected[seen]))
    return worst(errors)


@torch.no_grad()
def writers_sum(own: OwnRun) -> float:
    """Embedding, heads, biases and MLPs, and the residual stream (centred where it is)."""
    last = own.model.config.n_layers - 1
    stream = residual_stream(own.model, own.ids, last + 1, device=torch.device("cpu"))
    total = stream.outputs.sum(2)
    expected = own.hidden[last]
    if own.model.config.normalization == "LN":
        total, expected = (x - x.mean(-1, keepdim=True) for x in (total, expected))
    return disagreement(total, expected)


@torch.no_grad()
def direct_effects(own: OwnRun) -> float:
    """Logits of a stream moved by what a head writes: W_U through the final norm, and the model's
    own final norm and unembedding."""
    model, config = own.model, own.model.config
    _, cache = model.processed.run_with_cache(own.ids)
    end = cache[f"blocks.{config.n_layers - 1}.hook_resid_post"].double()
    z = cache[f"blocks.{config.n_layers - 1}.attn.hook_z"].view(*own.ids.shape, config.n_heads, -1)
    end = end - z[:, :, 0].double() @ model.weights.W_O[config.n_layers - 1][0].double()
    if config.normalization == "LN":
        end = end - end.mean(-1, keepdim=True)
    end = end / (end.square().mean(-1, keepdim=True) + config.eps).sqrt()
    found = end @ model.weights.W_U.double() + model.weights.b_U.double()

    def without(x: Tensor, hook: Any) -> Tensor:
        return x - z[:, :, 0] @ model.weights.W_O[config.n_layers - 1][0]

    hooks = [(f"blocks.{config.n_layers - 1}.hook_resid_post", without)]
    return disagreement(found, model.processed.run_with_hooks(own.ids, fwd_hooks=hooks))


@torch.no_grad()
def edges(own: OwnRun) -> float:
    """The model of functions that edges are patched in, and transformers' logits."""
    split = SplitModel(own.model)
    error = split.check(own.model, own.ids)
    end = split.run(own.ids).final[:, -1]
    found = split.normalise(end) @ split.W_U + split.b_U
    expected = own.logits[:, -1].log_softmax(-1)
    return worst([error, disagreement(found.log_softmax(-1), expected)])


# Column of the table, what it needs, and the identity.
IDENTITIES: dict[str, tuple[Analysis, Callable[[OwnRun], float]]] = {
    "logits": ("processed_weights", logits),
    "z": ("activations", harvested_z),
    "heads": ("activations", heads_sum),
    "ablation": ("activations", ablation),
    "DFA": ("feature_attribution", dfa),
    "recursive DFA": ("recursive_attribution", rdfa),
    "direct effects": ("direct_effects", direct_effects),
    "Omega slices": ("query_key", omega_slices),
    "writers": ("tracing", writers_sum),
    "edges": ("edges", edges),
}


# ---- the table -----------------------------------------------------------------------------------

HEADER = "| family | " + " | ".join(IDENTITIES) + " |"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def load_family(name: str, folder: Path) -> LanguageModel:
    """The family's model. Raises ModelError where it is refused as a whole."""
    model = LanguageModel.load(save_family(name, folder))
    capabilities_of(model).require("activations")
    return model


def row_of(name: str, folder: Path, notes: list[str]) -> str:
    """A family's row; reasons are numbered in `notes`."""
    try:
        own = OwnRun(load_family(name, folder))
    except ModelError as error:
        text = str(error).replace(str(folder), "the model").split("; docs/")[0]
        return f"| {name} | " + " | ".join([_note(notes, text)] * len(IDENTITIES)) + " |"
    cells = []
    for analysis, identity in IDENTITIES.values():
        reason = capabilities_of(own.model).of(analysis).reason
        cells.append(f"{identity(own):.0e}" if reason is None else _note(notes, reason))
    return f"| {name} | " + " | ".join(cells) + " |"


def table() -> str:
    """The table and its notes in Markdown."""
    notes: list[str] = []
    rows = []
    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(name, Path(folder), notes))
        print(rows[-1], file=sys.stderr)
    lines = [HEADER, "|---" * (len(IDENTITIES) + 1) + "|", *rows, ""]
    lines += [f"{number}. {text}" for number, text in enumerate(notes, 1)]
    return "\n".join(lines)


def _note(notes: list[str], text: str) -> str:
    if text not in notes:
        notes.append(text)
    return f"refused ({notes.index(text) + 1})"


def _name_of(hf: nn.Module, module: nn.Module) -> str:
    return next(name for name, found in hf.named_modules() if found is module)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}")
