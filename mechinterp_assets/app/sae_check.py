"""What an SAE folder is, and whether it fits a model: the lines of `mechinterp sae-check`.

Belongs here: the tokens that it is measured on, the order of what is said, the verdict. Does not
belong here: reading folders and measuring (sae/), arguments (sae_commands.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechinterp_assets.sae.errors import SaeError

if TYPE_CHECKING:  # torch
    from torch import Tensor

    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.sae.base import SparseAutoencoder
    from mechinterp_assets.sae.external import Expectation, ExternalSae, Fit
    from mechinterp_assets.sae.readings import Reading

Say = Callable[[str], None]
DEFAULT_CONTEXT = 128
FEW_TOKENS = 2048
LISTED_SITES = 3


@dataclass(frozen=True)
class Sample:
    """Token ids [sequence, position] to measure on, and what they are, for the reader."""

    token_ids: Tensor
    source: str


def describe(folder: Path, say: Say) -> dict[str, Any]:
    """Say what an SAE folder is; gives its cfg.json in SAELens's words.

    Raises SaeError for what is no SAE folder, or cannot be read as what it says it is.
    """
    from mechinterp_assets.sae.external import folder_hash
    from mechinterp_assets.sae.io import declared, keys_not_read, load_sae

    config = declared(folder)
    sae = load_sae(folder)
    metadata = config.get("metadata") or {}
    k = "" if sae.k is None else f", k {sae.k}"
    say(f"{folder}")
    say(f"  architecture   {sae.architecture}, d_in {sae.d_in:,}, d_sae {sae.d_sae:,}{k}")
    say(f"  hook           {metadata.get('hook_name') or '(none)'}")
    say(f"  normalisation  {config.get('normalize_activations') or 'none'}")
    say(f"  stored as      {config.get('dtype', 'float32')}")
    said = {
        "model": metadata.get("model_name"),
        "context": metadata.get("context_size"),
        "text": metadata.get("dataset_path"),
    }
    told = ", ".join(f"{name} {value}" for name, value in said.items() if value)
    say(f"  trained on     {told or '(it does not say)'}")
    say(f"  hash           {folder_hash(folder)} (sae.expected_hash), weights {sae.weights_hash()}")
    if unread := keys_not_read(folder):
        say(f"  not read       {', '.join(unread)}")
    return config


def context_of(config: dict[str, Any], model: LanguageModel) -> int:
    """Positions of a sequence: as the SAE was trained, as far as the model has them."""
    said = (config.get("metadata") or {}).get("context_size")
    wanted = said if isinstance(said, int) and said > 1 else DEFAULT_CONTEXT
    return min(wanted, model.config.n_ctx)


def sample_of_text(model: LanguageModel, text: str, source: str, context: int, n: int) -> Sample:
    """The first n tokens of a text as sequences of `context` positions, BOS first where the model's
    sequences begin with it.

    Raises SaeError for a text of less than one sequence.
    """
    import torch

    # 8 characters a token are more than any language's tokenizer makes of prose
    ids = model.encode(text[: 8 * n])[:n]
    width = context - 1 if model.bos.prepended else context
    sequences = torch.tensor(ids[: len(ids) // width * width]).view(-1, width)
    if not len(sequences):
        raise SaeError(f"{source} is {len(ids)} tokens, less than one sequence of {width}")
    if model.bos.prepended:
        bos = torch.full((len(sequences), 1), model.bos_token_id)
        sequences = torch.cat([bos, sequences], 1)
    return Sample(sequences, source)


def built_in_text(n_tokens: int) -> str:
    """Generated English of at least as many tokens, the same on every machine."""
    from mechinterp_assets.corpora.structured import documents

    return "\n".join(document["text"] for document in documents(max(20, n_tokens // 20), seed=0))


def check(
    folder: Path,
    config: dict[str, Any],
    model: LanguageModel,
    sample: Sample,
    expected: Expectation,
    say: Say,
) -> bool:
    """Measure the SAE on the model, say what comes out, and whether it fits."""
    import re

    from mechinterp_assets.model.value_offset import value_offset
    from mechinterp_assets.sae.external import measure_fit, read_external, read_residual
    from mechinterp_assets.sae.sites import activation_rows, residual_hook, z_hook

    hook = str((config.get("metadata") or {}).get("hook_name") or "")
    layer = re.fullmatch(r"blocks\.([0-9]{1,6})\.(attn\.hook_z|hook_resid_pre)", hook)
    say(f"measured on {sample.token_ids.numel():,} tokens of {sample.source}")
    if layer is None:
        say(
            f"does not fit: hook {hook!r} is none that is used here (attn.hook_z for the section "
            "sae, hook_resid_pre for residual_sae)"
        )
        return False
    number = int(layer[1])
    if number >= model.config.n_layers:
        last = model.config.n_layers - 1
        say(f"does not fit: {model.source} has no layer {number}, but 0..{last}")
        return False
    try:
        if layer[2] == "hook_resid_pre":
            sae = read_residual(folder, model, number)
            rows = activation_rows(model, sample.token_ids, residual_hook(number))
            fits = _residual_fits(sae, rows, number, expected, say)
        else:
            context = sample.token_ids.shape[1]
            external = read_external(folder, model, number, context_size=context)
            rows = activation_rows(model, sample.token_ids, z_hook(number))
            offset = value_offset(model, number)
            fit = measure_fit(external, rows, offset, model.config.n_heads, expected)
            fits = _z_fits(external, fit, number, say)
    except SaeError as error:
        say(f"does not fit: {error}")
        fits = False
    if not fits:
        for line in _elsewhere(folder, model, sample, hook):
            say(line)
    return fits


# ---- private -------------------------------------------------------------------------------------


def _z_fits(external: ExternalSae, fit: Fit, layer: int, say: Say) -> bool:
    """Say how an SAE of z was measured to fit."""
    for line in _reading_lines(fit):
        say(line)
    for warning in (*external.warnings, *fit.warnings):
        say(f"warning: {warning}")
    for objection in fit.objections:
        say(f"does not fit: {objection}")
    if not fit.objections:
        say(
            f"fits: as trained on {fit.chosen.name} weights it explains "
            f"{1 - fit.chosen.loss:.3f} of z of layer {layer} with {fit.chosen.l0:.1f} features a "
            "token"
        )
    return not fit.objections


def _reading_lines(fit: Fit) -> Iterator[str]:
    """A table of the readings, those of other k in one line."""
    titles = {
        "raw": "raw weights",
        "processed": "processed weights",
        "permuted_heads": "heads permuted (control)",
        "rescaled": "z scaled to norm sqrt(d_in)",
    }
    yield f"  {'read as trained on':28} {'1 - FVU':>8} {'explained':>10} {'L0':>8}"
    others: list[Reading] = []
    for one in fit.readings:
        if one.name == "largest_k":
            others.append(one)
            continue
        title = titles[one.name] + (" *" if one is fit.chosen else "")
        explained = float("nan") if one.explained_variance is None else one.explained_variance
        yield f"  {title:28} {1 - one.loss:8.3f} {explained:10.3f} {one.l0:8.1f}"
    shown = ", ".join(f"{one.k}: {1 - one.loss:.3f}" for one in others)
    yield f"  1 - FVU of the k largest activations alone, by k: {shown}"


def _residual_fits(
    sae: SparseAutoencoder, rows: Tensor, layer: int, expected: Expectation, say: Say
) -> bool:
    """Measure an SAE of the stream before a block, rows [n, d_model], and say how it fits.

    Centred weights leave that stream without its mean.
    """
    from mechinterp_assets.sae.readings import measured

    views = {
        "false": measured("raw", sae, rows),
        "true": measured("processed", sae, rows - rows.mean(1, keepdim=True)),
    }
    for centred, one in views.items():
        say(f"  residual_sae.centre: {centred:5}  1 - FVU {1 - one.loss:.3f}, L0 {one.l0:.1f}")
    best = min(views, key=lambda centred: views[centred].loss)
    if views[best].loss > expected.max_fvu:
        say(
            f"does not fit: it leaves {views[best].loss:.3f} of the stream before layer {layer} "
            f"unexplained, which may be at most {expected.max_fvu}"
        )
        return False
    say(f"fits: with residual_sae.centre: {best}")
    return True


def _elsewhere(folder: Path, model: LanguageModel, sample: Sample, hook: str) -> Iterator[str]:
    """Where the SAE reconstructs best, if anywhere but at the hook that it names."""
    from mechinterp_assets.sae.io import load_sae
    from mechinterp_assets.sae.sites import fvu_by_hook

    few = sample.token_ids[: max(1, FEW_TOKENS // sample.token_ids.shape[1])]
    found = fvu_by_hook(model, load_sae(folder), few)
    if not found:
        yield "no activation of this model has its width"
        return
    listed = [f"{name} {1 - fvu:.3f}" for name, fvu in list(found.items())[:LISTED_SITES]]
    yield f"1 - FVU is largest at {', '.join(listed)} (its own hook: {hook})"
