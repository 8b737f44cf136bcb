"""What processed weights take from z.

Belongs here: the constant by which a layer's z differs between the two views. Does not belong here:
the views (language_model.py).

Processing folds the value bias and LayerNorm's bias into b_O: as a head's attention sums to 1, its
z then lacks c = b_V + ln1.b W_V at every token: z_processed = z_raw - c (K24's SAEs read that). A
single token attends to itself alone, so its z is its value; where the stream before the block is 0,
LayerNorm and RMSNorm give their bias, and that value is c. It needs no name of a weight.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mechinterp_assets.model.language_model import LanguageModel


@torch.no_grad()
def value_offset(model: LanguageModel, layer: int) -> Tensor:
    """c of a layer [n_heads * d_head] float32, on the CPU; 0 for models without these biases."""
    caught: list[Tensor] = []
    projection = model.output_projection(layer)

    def zero_stream(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (torch.zeros_like(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": torch.zeros_like(kwargs["hidden_states"])}

    def catch(module: nn.Module, args: tuple[Any, ...]) -> None:
        caught.append(args[0].detach().float().cpu().flatten())

    handles = [
        model.block(layer).register_forward_pre_hook(zero_stream, with_kwargs=True),
        projection.register_forward_pre_hook(catch),
    ]
    try:
        model.trunk(
            input_ids=torch.full((1, 1), model.bos_token_id, device=model.device), use_cache=False
        )
    finally:
        for handle in handles:
            handle.remove()
    return caught[0]
