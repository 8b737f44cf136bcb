"""Mean attention to one target source per destination, with its exact null (METHODS section 4).

Belongs here: what scores of targeted attention share. Does not belong here: which targets a score
has (its file in `scores/`), running the model (pattern_pass.py).

Conventions: position 0 holds BOS. It is a source only for the attention sink score; every other
score and its null leave it out, as destination and as source, because attention that rests on BOS
says nothing about which of the other tokens a head looks for.

Nulls of targeted scores are permutation nulls with exact moments. The statistic is the mean over
(sequence, destination) of the attention to a target source. Under the null the target is replaced
by a source drawn uniformly, independently for every (sequence, destination), from the candidate
sources of that destination. With m and v the mean and the variance of A[i, j] over the candidates,
the null mean is mean(m) and the null standard deviation is sqrt(sum(v)) / n: no draws are needed.
"""

import torch
from torch import Tensor

from mechinterp_assets.heads.datasets import TokenDataset
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.precision import float64

# Texts of definitions that these scores share.
DESTINATIONS = "(sequence, destination) pairs"
ANOTHER_SOURCE = (
    "The target replaced by another source drawn uniformly from 1 .. i, independently for every "
    "(sequence, destination); exact"
)


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


def second_half(data: TokenDataset) -> Tensor:
    """Positions of the second half of RRT."""
    return torch.arange(data.period + 1, data.length)


def targeted(
    n_layers: int, n_heads: int, data: TokenDataset, destinations: Tensor, targets: Tensor
) -> TargetedAttention:
    """Attention to one target each; null: another source from 1 .. destination."""
    source = torch.arange(data.length)
    candidates = (source >= 1) & (source <= destinations[:, None]) & (source != targets[:, None])
    return TargetedAttention(
        n_layers, n_heads, destinations, targets, candidates, len(data.token_ids)
    )
