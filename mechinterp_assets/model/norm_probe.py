"""What a norm of a model makes of chosen inputs: its gain and bias are read off the answers.

Belongs here: asking the module. Does not belong here: which inputs tell what is asked for.

Architectures store gains differently (some store gain - 1), so that the module is asked.
"""

import copy

import torch
from torch import Tensor, nn

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64, is_narrow


@torch.no_grad()
def norm_answers(model: LanguageModel, norm: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs of a norm of `model` for inputs [n, width], float64; computed in float32 at least."""
    if is_narrow(model.dtype):  # its own rounding is no part of the gain
        norm = copy.deepcopy(norm).float()
    wide = torch.promote_types(model.dtype, torch.float32)
    return float64(norm(inputs[None].to(model.device, wide))[0])
