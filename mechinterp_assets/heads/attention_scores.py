"""Scores of a head that are read off its attention pattern (METHODS section 4).

Belongs here: statistics that see the pattern A[destination i, source j] of one layer at a time and
are accumulated over batches. Does not belong here: running the model and thresholds (scores.py),
scores of weights (ov_scores.py).

Conventions: position 0 holds BOS. It is a source only for the attention sink score; every other
score and its null leave it out, as destination and as source, because attention that rests on BOS
says nothing about which of the other tokens a head looks for.

Null distributions of targeted scores are permutation nulls with exact moments. The statistic is the
mean over (sequence, destination) of the attention to a target source. Under the null the target is
replaced by a source drawn uniformly, independently for every (sequence, destination), from the
candidate sources of that destination. With m and v the mean and the variance of A[i, j] over the
candidates, the null mean is mean(m) and the null standard deviation is sqrt(sum(v)) / n: no draws
are needed.
"""

from typing import Protocol

import torch
from torch import Tensor

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.precision import float64


class PatternReader(Protocol):
    """Sees every layer's attention patterns, batch by batch."""

    def update(self, layer: int, pattern: Tensor) -> None:
        """Add a batch of one layer's patterns [batch, head, destination, source]."""
        ...


class PatternStatistic(PatternReader, Protocol):
    """Accumulates a score over batches of attention patterns."""

    def result(self) -> ScoreValues:
        """The score over everything added so far."""
        ...


class TargetedAttention:
    """Mean attention from chosen destinations to one target source each, with its exact null.

    destinations, targets [n]: position pairs, the same in every sequence.
    candidates [n, T]: sources that the null draws from.
    """

    def __init__(
        self,
        n_layers: int,
        n_heads: int,
        destinations: Tensor,
        targets: Tensor,
        candidates: Tensor,
        n_sequences: int,
    ) -> None:
        if not bool(candidates.any(dim=1).all()):
            raise ValueError("a destination has no candidate source for the null; leave it out")
        self.destinations = destinations
        self.targets = targets
        self.candidates = candidates
        self.n = n_sequences * len(destinations)
        self._sum = torch.zeros(n_layers, n_heads, dtype=torch.float64)
        self._null_sum = torch.zeros_like(self._sum)
        self._null_variance_sum = torch.zeros_like(self._sum)

    def update(self, layer: int, pattern: Tensor) -> None:
        rows = float64(pattern[:, :, self.destinations.to(pattern.device)])
        index = self.targets.to(rows.device).view(1, 1, -1, 1)
        hit = rows.gather(3, index.expand(rows.shape[0], rows.shape[1], -1, 1))
        keep = self.candidates.to(rows.device, torch.float64)
        count = keep.sum(dim=1)
        mean = (rows * keep).sum(dim=3) / count
        variance = ((rows - mean[..., None]).square() * keep).sum(dim=3) / count
        self._sum[layer] += hit.sum(dim=(0, 2, 3)).cpu()
        self._null_sum[layer] += mean.sum(dim=(0, 2)).cpu()
        self._null_variance_sum[layer] += variance.sum(dim=(0, 2)).cpu()

    def result(self) -> ScoreValues:
        return ScoreValues(
            value=self._sum / self.n,
            n=self.n,
            null_mean=self._null_sum / self.n,
            null_sd=self._null_variance_sum.sqrt() / self.n,
        )


class OffsetExplained:
    """R^2 of the attention probabilities explained by the offset i - j alone.

    Over all pairs 1 <= j <= i of all sequences: 1 - (residual sum of squares around the mean of
    each offset) / (total sum of squares). BOS is left out as destination and as source.
    Null: offset labels permuted over the pairs, exact moments (`permuted_r_squared_moments`).
    A head whose attention does not vary at all has R^2 = 0.
    """

    def __init__(self, n_layers: int, n_heads: int, length: int, n_sequences: int) -> None:
        destination, source = torch.tril_indices(length - 1, length - 1)
        self.destination, self.source = destination + 1, source + 1
        self.offset = destination - source
        self.n = n_sequences * len(self.offset)
        self._pairs = torch.bincount(self.offset).double() * n_sequences
        self._sum = torch.zeros(n_layers, n_heads, length - 1, dtype=torch.float64)
        self._powers = torch.zeros(n_layers, n_heads, 4, dtype=torch.float64)

    def update(self, layer: int, pattern: Tensor) -> None:
        device = pattern.device
        pairs = float64(pattern[:, :, self.destination.to(device), self.source.to(device)])
        for power in range(4):
            self._powers[layer, :, power] += pairs.pow(power + 1).sum(dim=(0, 2)).cpu()
        self._sum[layer].index_add_(1, self.offset, pairs.sum(dim=0).cpu())

    def result(self) -> ScoreValues:
        m1, m2, m3, m4 = (self._powers / self.n).unbind(dim=-1)
        variance = m2 - m1.square()
        fourth = m4 - 4 * m1 * m3 + 6 * m1.square() * m2 - 3 * m1.pow(4)
        explained = (self._sum.square() / self._pairs).sum(dim=2) / self.n - m1.square()
        varies = variance > 1e-12 * m2
        divisor = variance.where(varies, torch.ones_like(variance))
        null_mean, null_sd = permuted_r_squared_moments(self._pairs, fourth / divisor.square())
        return ScoreValues(
            value=(explained / divisor).where(varies, 0.0),
            n=self.n,
            null_mean=null_mean.where(varies, 0.0),
            null_sd=null_sd.where(varies, 0.0),
        )


def permuted_r_squared_moments(group_sizes: Tensor, kurtosis: Tensor) -> tuple[Tensor, Tensor]:
    """Exact mean and sd of a one-way R^2 when the group labels are permuted at random.

    group_sizes [group]; kurtosis [...] = mean((y - mean y)^4) / mean((y - mean y)^2)^2.
    R^2 = sum over groups of S^2 / size over N, with S the group's sum of standardised y. Its second
    moment follows from the moments of values drawn without replacement from a population with sum
    0 (Pitman 1938). Returns tensors of kurtosis's shape.
    """
    n, size = group_sizes.sum(), group_sizes
    e4 = kurtosis
    e31 = -e4 / (n - 1)
    e22 = (n - e4) / (n - 1)
    e211 = -(e31 + e22) / (n - 2)
    e1111 = -3 * e211 / (n - 3)

    def total(values: Tensor) -> Tensor:
        return values.sum()

    # E[S^4] / size^2 of one group: patterns 4, 3+1, 2+2, 2+1+1, 1+1+1+1 of equal indices.
    same = (
        e4 * total(1 / size)
        + (4 * e31 + 3 * e22) * total((size - 1) / size)
        + 6 * e211 * total((size - 1) * (size - 2) / size)
        + e1111 * total((size - 1) * (size - 2) * (size - 3) / size)
    )
    # E[S_g^2 S_h^2] / (size_g size_h) of two groups.
    k, rest = len(size), size - 1
    pairs = total(rest).square() - total(rest.square())
    different = e22 * k * (k - 1) + e211 * 2 * (k - 1) * total(rest) + e1111 * pairs
    mean = (k - 1) / (n - 1) * torch.ones_like(kurtosis)
    second = (same + different) / n.square()
    return mean, (second - mean.square()).clamp_min(0).sqrt()


def previous_token(n_layers: int, n_heads: int, data: TokenDataset) -> PatternStatistic:
    """Mean A[i, i-1] for i >= 2; null: a source from 1 .. i other than i-1."""
    destinations = torch.arange(2, data.length)
    return _targeted(n_layers, n_heads, data, destinations, destinations - 1)


def duplicate_token(n_layers: int, n_heads: int, data: TokenDataset) -> PatternStatistic:
    """RRT: mean A[i, earlier position of the same token]; null: another source from 1 .. i."""
    destinations = _second_half(data)
    return _targeted(n_layers, n_heads, data, destinations, destinations - data.period)


def induction(n_layers: int, n_heads: int, data: TokenDataset) -> PatternStatistic:
    """RRT: mean A[i, position after the earlier same token]; null: another source from 1 .. i."""
    destinations = _second_half(data)
    return _targeted(n_layers, n_heads, data, destinations, destinations - data.period + 1)


def attention_sink(n_layers: int, n_heads: int, data: TokenDataset) -> PatternStatistic:
    """Mean A[t, 0] over all t; null: a source from 0 .. t, position 0 included.

    The null mean is then exactly the value of uniform attention, mean over t of 1 / (t + 1).
    """
    destinations = torch.arange(data.length)
    candidates = torch.ones(data.length, data.length, dtype=torch.bool).tril()
    return TargetedAttention(
        n_layers,
        n_heads,
        destinations,
        torch.zeros_like(destinations),
        candidates,
        len(data.token_ids),
    )


def positional(n_layers: int, n_heads: int, data: TokenDataset) -> PatternStatistic:
    """R^2 of A explained by offset alone."""
    return OffsetExplained(n_layers, n_heads, data.length, len(data.token_ids))


def _second_half(data: TokenDataset) -> Tensor:
    return torch.arange(data.period + 1, data.length)


def _targeted(
    n_layers: int, n_heads: int, data: TokenDataset, destinations: Tensor, targets: Tensor
) -> TargetedAttention:
    source = torch.arange(data.length)
    candidates = (source >= 1) & (source <= destinations[:, None]) & (source != targets[:, None])
    return TargetedAttention(
        n_layers, n_heads, destinations, targets, candidates, len(data.token_ids)
    )
