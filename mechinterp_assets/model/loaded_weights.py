"""Whether weights that were loaded are those of the model: all of them, of its shapes, finite.

Belongs here: checks of a loaded model. Does not belong here: files (model_files.py).

transformers gives random values to what it does not find, and says so in its log alone.
"""

from collections.abc import Mapping
from typing import Any

import torch

from mechinterp_assets.model.model_files import is_constant, shown
from mechinterp_assets.model.shape import ModelError


def check_loaded(hf: Any, source: str, report: Mapping[str, Any]) -> None:
    """Raise ModelError, naming tensors, unless every weight of `hf` came from its files.

    report: what from_pretrained gives as output_loading_info. Constants that old checkpoints store
    (causal masks, rotary frequencies) may be there; tied weights are stored once.
    """
    missing = report["missing_keys"]
    unexpected = [name for name in report["unexpected_keys"] if not is_constant(name)]
    other_shapes = [
        f"{name} {list(stored)} instead of {list(expected)}"
        for name, stored, expected in report["mismatched_keys"]
    ]
    problems = [
        f"{len(names)} {what}: {shown(names)}"
        for what, names in (
            ("missing", missing),
            ("that the model does not have", unexpected),
            ("of another shape", other_shapes),
            ("that cannot be read", report["error_msgs"]),
        )
        if names
    ]
    if problems:
        raise ModelError(
            f"the weights of {source} do not fit its config.json (tensors {'; '.join(problems)}); "
            "copy the folder again from its source, or write it with save_pretrained"
        )
    _check_tied(hf, source)
    _check_finite(hf, source)


# ---- private -------------------------------------------------------------------------------------


def _check_tied(hf: Any, source: str) -> None:
    """One config has one answer: an unembedding that is said to be the embedding is it."""
    embedding, unembedding = hf.get_input_embeddings(), hf.get_output_embeddings()
    said = getattr(hf.config, "tie_word_embeddings", False)
    if said and unembedding is not None and embedding.weight is not unembedding.weight:
        raise ModelError(
            f"{source} stores an unembedding that differs from its embedding, but config.json says "
            "tie_word_embeddings; set it to false, or leave the unembedding's tensor out"
        )


def _check_finite(hf: Any, source: str) -> None:
    # Minimum and maximum carry NaN along, in one pass without a copy.
    odd = [
        name
        for name, weight in hf.named_parameters()
        if weight.numel() and not torch.stack(torch.aminmax(weight.detach())).isfinite().all()
    ]
    if odd:
        dtype = str(hf.dtype).removeprefix("torch.")
        wider = ", or load them in a wider model.dtype" if dtype == "float16" else ""
        raise ModelError(
            f"{len(odd)} tensors of {source} have NaN or infinity as {dtype}: {shown(odd)}; copy "
            f"the weights again from their source{wider}"
        )
