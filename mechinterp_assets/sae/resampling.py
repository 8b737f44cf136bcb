"""Resampling of dead features (Bricken et al. 2023, "Neuron resampling").

Belongs here: which inputs dead features get, and how their weights start anew. Does not belong
here: when it happens (settings.resample_steps, train.py), how badly an architecture reconstructs a
row (its own file).
"""

import torch
from torch import Tensor

from mechinterp_assets.sae.steps import TrainingStep

# A resampled encoder row has this share of the living rows' mean norm.
RESAMPLED_ENCODER_NORM = 0.2


@torch.no_grad()
def resample_dead(
    step: TrainingStep, centred: Tensor, losses: Tensor, generator: torch.Generator
) -> int:
    """Give each dead feature the direction of a badly reconstructed input; returns how many.

    centred = x - b_dec [n, d_in] and its losses [n]. Inputs are drawn with probability
    proportional to their squared loss; the decoder row becomes the input's unit vector, the encoder
    row the same at 0.2 times the living rows' mean norm; b_enc and the architecture's own
    parameters start anew, Adam's moments at 0.
    """
    dead = step.dead()
    features = dead.nonzero().squeeze(1)
    weights = losses.square().cpu().double()
    weights[(centred.norm(dim=1) == 0).cpu()] = 0
    if len(features) == 0 or not weights.sum() > 0:
        return 0
    # inputs may repeat only when there are more dead features than inputs to give them
    replacement = len(features) > int((weights > 0).sum())
    drawn = torch.multinomial(weights, len(features), replacement, generator=generator)
    directions = centred[drawn.to(centred.device)]
    directions = directions / directions.norm(dim=1, keepdim=True)
    living = step.encoder[~dead].norm(dim=1)
    norm = living.mean() if len(living) else step.encoder.new_tensor(1.0)
    step.decoder[features] = directions
    step.encoder[features] = directions * (RESAMPLED_ENCODER_NORM * norm)
    step.b_enc[features] = 0
    for name, start in step.initial_extra().items():
        step.extra[name][features] = start[features]
    step.reset_moments(features)
    step.tokens_since_fired[features] = 0
    return len(features)
