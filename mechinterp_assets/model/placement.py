"""Where the weights of a model lie: on one device, or by layers on several of one process.

Belongs here: what a device map comes to, and which are refused. Does not belong here: loading
(language_model.py), the choice of a device (resources/compute.py).

accelerate places layers and moves what passes between them. Analysis happens on one device, that of
the embedding: hooks, caches, logits, z and weights are handed over there (bridge.py, weights.py).
"""

from typing import Any

import torch
from accelerate.hooks import remove_hook_from_submodules

from mechinterp_assets.model.shape import ModelError


def settle(hf: Any, source: str) -> torch.device:
    """The device that analysis of a model placed by a device map happens on.

    A map to one device is no map: accelerate's hooks are taken off. Raises ModelError where weights
    are left on the CPU or on disk beside a GPU: bridges fold norms into weights that are there.
    """
    placed = getattr(hf, "hf_device_map", {})
    places = {str(place) for place in placed.values()}
    if len(places) <= 1 and "disk" not in places:
        remove_hook_from_submodules(hf)
        hf.__dict__.pop("hf_device_map", None)
    elif left := sorted(places & {"cpu", "disk"}):
        modules = [name for name, place in placed.items() if str(place) in left]
        raise ModelError(
            f"model.device_map: auto leaves {len(modules)} parts of {source} on {', '.join(left)} "
            f"({modules[0]}, ...), where their weights cannot be processed; give it more GPUs or "
            "load in 16 bits (model.dtype)"
        )
    device = hf.get_input_embeddings().weight.device
    assert isinstance(device, torch.device)
    return device
