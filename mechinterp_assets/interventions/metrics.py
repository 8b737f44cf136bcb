"""Metrics of a run at END, and of a pair's attention score.

Belongs here: numbers computed from logits. Does not belong here: effects (patched - clean), which
are views.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechinterp_assets.precision import float64

LOGIT_METRICS = ("logit_diff", "kl", "loss", "prob")


def logit_metrics(
    logits: Tensor,
    clean_logits: Tensor,
    answers: Sequence[Sequence[int]],
    wrong: Sequence[Sequence[int]],
) -> dict[str, Tensor]:
    """Metrics of each row: name -> [row] float64.

    logits, clean_logits [row, d_vocab] at END; answers, wrong: token ids of each row.
      logit_diff  mean logit of the answers - mean logit of the wrong tokens; NaN without wrong ones
      kl          KL(clean || patched) over the next token, in nats; 0 for the clean run itself
      loss        -log p of the answers together, in nats; NaN without answers, as the others but kl
      prob        p of the answers together
    """
    logits = float64(logits)
    log_probs = logits.log_softmax(dim=-1)
    clean = float64(clean_logits).log_softmax(dim=-1)
    right, n_right = _padded(answers, logits.device)
    other, n_other = _padded(wrong, logits.device)
    log_p = log_probs.gather(1, right).masked_fill(~n_right, -torch.inf).logsumexp(dim=-1)
    log_p = log_p.masked_fill(~n_right.any(dim=-1), torch.nan)
    return {
        "logit_diff": _mean(logits.gather(1, right), n_right)
        - _mean(logits.gather(1, other), n_other),
        "kl": (clean.exp() * (clean - log_probs)).sum(dim=-1),
        "loss": -log_p,
        "prob": log_p.exp(),
    }


def _padded(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [row, widest] and which of them are there."""
    width = max([1, *map(len, ids)])
    padded = torch.tensor([[*own, *([0] * (width - len(own)))] for own in ids], device=device)
    there = torch.tensor([[i < len(own) for i in range(width)] for own in ids], device=device)
    return padded, there


def _mean(values: Tensor, there: Tensor) -> Tensor:
    return values.masked_fill(~there, 0.0).sum(dim=-1) / there.sum(dim=-1)
