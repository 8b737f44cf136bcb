"""Which terms of a row of scores make a head attend: ACC's and ACC++'s rules, for one pair.

Belongs here: the firing thresholds, relative attention and its S, integrated gradients of the
softmax, greedy removal. Does not belong here: terms (score_terms.py), following writers upstream
(acc_trace.py).

A pair is a destination d and a source s of one head; a side's terms sum to the row of scores.

ACC (relative attention)
  score'(d, s) = score(d, s) - mean over the other seen sources s' of score(d, s'),
  S    the smallest set of singular vectors k, largest share of score' first, that reaches score'
       (a negative score' is mirrored)
  contribution of a writer: its terms on S at s, less their mean over the s'
ACC++
  a pair fires where attention >= tau(d) = min(1, 2.5 / (d + 1)), whatever the score's sign
  terms are ordered by integrated gradients of the attention along alpha * row, alpha from 0 to 1
  in 64 trapezoids; they sum to attention - 1 / (number of seen sources)
  they are removed in that order until attention falls below tau(d)
  contribution of a writer: the attention lost as its terms are removed

Source: ACC and ACC++ by the authors of FC24, as the successors of FC24's tracing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mechinterp_assets.circuits.score_model import ScoreModel
from mechinterp_assets.circuits.score_terms import RowTerms, SideTerms
from mechinterp_assets.circuits.slices import select_slices
from mechinterp_assets.circuits.soft_cap import gradient_before

TRAPEZOIDS = 64
_CHUNK = 2048  # terms removed at a time


def firing_limit(destination: int) -> float:
    """tau(d): least attention of a pair that fires under ACC++, 2.5 times that of no preference."""
    return min(1.0, 2.5 / (destination + 1))


@dataclass(frozen=True)
class SideChoice:
    """What a rule keeps on one side of a pair; float64.

    effect [item]: contribution of each item of the side's terms (ACC: its part of score' through S;
    ACC++: attention lost as its terms are removed). kept [item]: items that the rule names. slices
    [k]: singular vectors used (ACC: S; ACC++: those with a removed term). whole: ACC, the sum of
    all items' effects; ACC++, attention before removal. left: ACC++, attention after it, else NaN.
    """

    effect: Tensor
    kept: Tensor
    slices: Tensor
    whole: float
    left: float


# ---- ACC -----------------------------------------------------------------------------------------


def relative_weight(terms: RowTerms, source: int) -> Tensor:
    """Weights [source] that make score' of a row: score - mean of the other seen sources."""
    others = terms.seen.clone()
    others[source] = False
    weight = -others.double() / others.sum().clamp(min=1)
    weight[source] = 1.0
    return weight


def acc_side(terms: RowTerms, side: SideTerms, source: int, fraction: float) -> SideChoice:
    """ACC on one side. fraction: share of score' through S that kept items reach, largest first.

    Effects of a negative score' count by its sign: what makes the head attend less is then kept.
    """
    relative = side.weighted(relative_weight(terms, source))
    slices = select_slices(relative.sum(0))
    effect = (relative * slices).sum(-1)
    total = effect.sum()
    ordered, order = (effect * torch.where(total < 0, -1.0, 1.0)).sort(descending=True, stable=True)
    reached = ordered.cumsum(0) >= fraction * total.abs()
    kept = (reached.cumsum(0) - reached.long() == 0) & (ordered > 0) & (total != 0)
    return SideChoice(
        effect, torch.zeros_like(kept).scatter(0, order, kept), slices, float(total), float("nan")
    )


# ---- ACC++ ---------------------------------------------------------------------------------------


def attention_of(model: ScoreModel, rows: Tensor, seen: Tensor) -> Tensor:
    """Softmax of rows of scores [..., source] as the model takes it."""
    return model.capped(rows).masked_fill(~seen, float("-inf")).softmax(-1)


def integrated_gradient(model: ScoreModel, terms: RowTerms, source: int) -> Tensor:
    """Mean over alpha in [0, 1] of the gradient of attention to `source` by each score [source].

    Its product with the terms of a side sums to attention - that of a row of zeros.
    """
    alpha = torch.linspace(0, 1, TRAPEZOIDS + 1, dtype=torch.float64, device=terms.row.device)
    rows = alpha[:, None] * terms.row
    attention = attention_of(model, rows, terms.seen)
    gradient = -attention[:, source, None] * attention
    gradient[:, source] += attention[:, source]
    gradient = gradient_before(gradient, rows, model.cap)
    weight = torch.full_like(alpha, 1 / TRAPEZOIDS)
    weight[[0, -1]] /= 2
    return weight @ gradient


def acc_plus_side(
    model: ScoreModel, terms: RowTerms, side: SideTerms, source: int, limit: float
) -> SideChoice:
    """ACC++ on one side: terms with the largest integrated gradient are removed until attention is
    below `limit`. Terms that do not raise attention are never removed."""
    score = side.weighted(integrated_gradient(model, terms, source))
    effect = side.value.new_zeros(len(side.value))
    slices = torch.zeros(side.value.shape[1], dtype=torch.bool, device=effect.device)
    kept = torch.zeros(len(side.value), dtype=torch.bool, device=effect.device)
    flat, width = score.flatten(), score.shape[1]
    order = _descending(flat, _CHUNK)
    row = terms.row.clone()
    whole = attention = float(attention_of(model, row, terms.seen)[source])
    while attention >= limit:
        some = next(order, None)
        if some is None:
            break
        item, k = some // width, some % width
        value = side.value[item, k]
        if side.key is not None:
            removed = value[:, None] * side.key[k]
        else:
            removed = value.new_zeros(len(some), len(row))
            removed[torch.arange(len(some), device=row.device), side.position[item]] = value
        rows = row - removed.cumsum(0)
        after = attention_of(model, rows, terms.seen)[:, source]
        below = (after < limit).nonzero()[:, 0]
        n = int(below[0]) + 1 if len(below) else len(some)
        before = torch.cat([after.new_tensor([attention]), after[: n - 1]])
        effect.index_add_(0, item[:n], before - after[:n])
        slices[k[:n]] = True
        kept[item[:n]] = True
        row, attention = rows[n - 1], float(after[n - 1])
    return SideChoice(effect, kept, slices, whole, attention)


def _descending(values: Tensor, chunk: int) -> Iterator[Tensor]:
    """Indices of the positive values, largest first and ties in order, `chunk` at a time.

    The first chunk mostly suffices, so that not all values are sorted unless more are asked for.
    """
    if chunk < len(values):
        least = values.topk(chunk).values[-1]
        # Ties with the least one are left to the rest, as some of them may not be among the first.
        first = ((values > least) & (values > 0)).nonzero()[:, 0]
    else:
        least, first = values.new_zeros(()), (values > 0).nonzero()[:, 0]
    if len(first):
        yield first[values[first].argsort(descending=True, stable=True)]
    rest = ((values <= least) & (values > 0)).nonzero()[:, 0]
    rest = rest[values[rest].argsort(descending=True, stable=True)]
    for start in range(0, len(rest), chunk):
        yield rest[start : start + chunk]
