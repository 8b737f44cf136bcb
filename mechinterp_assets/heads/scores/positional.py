"""Heads whose attention is a matter of the offset alone."""

import torch
from torch import Tensor

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.score_kinds import PatternScore
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.precision import float64


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


def positional(n_layers: int, n_heads: int, data: TokenDataset) -> OffsetExplained:
    """R^2 of A explained by offset alone."""
    return OffsetExplained(n_layers, n_heads, data.length, len(data.token_ids))


SCORES = (
    PatternScore(
        name="positional",
        definition="R^2 of A over all pairs 1 <= j <= i explained by the offset i - j alone",
        value_range="0 to 1",
        terms="(sequence, destination, source) triples",
        null_distribution="Offset labels permuted over the pairs; exact",
        threshold=0.7,
        dataset="plain",
        statistic=positional,
    ),
)
