"""Metrics of a run at END, and of a pair's attention score.

Belongs here: numbers computed from logits. Does not belong here: effects (patched - clean), which
are views.
"""

import torch
from torch import Tensor

from mechinterp_assets.precision import float64

LOGIT_METRICS = ("logit_diff", "kl", "loss", "prob")


def logit_metrics(logits: Tensor, clean_logits: Tensor, io: Tensor, s: Tensor) -> dict[str, Tensor]:
    """Metrics of each row: name -> [row] float64.

    logits, clean_logits [row, d_vocab] at END; io, s [row] token ids.
      logit_diff  logit(IO) - logit(S)
      kl          KL(clean || patched) over the next token, in nats; 0 for the clean run itself
      loss        -log p(IO), in nats
      prob        p(IO)
    """
    logits = float64(logits)
    io, s = io.to(logits.device), s.to(logits.device)
    log_probs = logits.log_softmax(dim=-1)
    clean = float64(clean_logits).log_softmax(dim=-1)
    rows = torch.arange(len(io), device=io.device)
    log_p_io = log_probs[rows, io]
    return {
        "logit_diff": logits[rows, io] - logits[rows, s],
        "kl": (clean.exp() * (clean - log_probs)).sum(dim=-1),
        "loss": -log_p_io,
        "prob": log_p_io.exp(),
    }
