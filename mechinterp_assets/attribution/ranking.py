"""Running top-k of many groups at once, for streams.

Belongs here: the merge of candidates into ranked lists. What is ranked (activations of features,
hashes of examples) is the caller's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_MERGE_ELEMENTS = 2**24  # entries gathered at once while lists are merged: bounds the workspace


class GroupedTopK:
    """The k largest keys of each of `n_groups` groups, with what belongs to them.

    Keys are compared exactly. Of equal keys the one that arrived first ranks higher, within an
    update and between updates, so the result does not depend on how the stream is cut.

    Attributes:
        keys: [group, k], descending; `empty` where fewer than k candidates arrived.
        payload: tensors [group, k, ...], parallel to `keys`.
    """

    def __init__(
        self,
        n_groups: int,
        k: int,
        *,
        key_dtype: torch.dtype,
        payload: Sequence[tuple[torch.dtype, tuple[int, ...]]],
        device: torch.device,
    ) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; a ranking needs k >= 1")
        info = torch.finfo(key_dtype) if key_dtype.is_floating_point else torch.iinfo(key_dtype)
        self.k = k
        self.empty = -torch.inf if key_dtype.is_floating_point else info.min
        self.keys = torch.full((n_groups, k), self.empty, dtype=key_dtype, device=device)
        self.payload = [
            torch.zeros((n_groups, k, *shape), dtype=dtype, device=device)
            for dtype, shape in payload
        ]

    @property
    def filled(self) -> Tensor:
        """[group, k] bool: entries that hold a candidate."""
        return self.keys != self.empty

    def can_enter(self, group: Tensor, key: Tensor) -> Tensor:
        """[n] bool: candidates that the current lists do not exclude already."""
        return key > self.keys[:, -1][group]

    def update(
        self, group: Tensor, key: Tensor, payload: Callable[[Tensor], Sequence[Tensor]]
    ) -> None:
        """Merge candidates.

        Args:
            group: [n] int64.
            key: [n] of the key dtype.
            payload: called once with the indices [m] of the candidates that can still enter a list;
                returns their payload tensors [m, ...].
        """
        index = self.can_enter(group, key).nonzero().squeeze(1)
        if index.numel() == 0:
            return
        # Two stable sorts order by (group, key descending, arrival).
        index = index[torch.argsort(key[index], descending=True, stable=True)]
        index = index[torch.argsort(group[index], stable=True)]
        rank = rank_in_run(group[index])
        index, rank = index[rank < self.k], rank[rank < self.k]

        affected, row = torch.unique_consecutive(group[index], return_inverse=True)
        values = payload(index)
        width = max([1, *(p[0, 0].numel() for p in self.payload)])
        block = max(1, _MERGE_ELEMENTS // (2 * self.k * width))
        starts = torch.arange(0, affected.numel(), block, device=affected.device)
        cuts = [*torch.searchsorted(row, starts).tolist(), row.numel()]
        for i, first in enumerate(starts.tolist()):
            part = slice(cuts[i], cuts[i + 1])
            self._merge(
                affected[first : first + block],
                row[part] - first,
                rank[part],
                key[index[part]],
                [value[part] for value in values],
            )

    def _merge(
        self, affected: Tensor, row: Tensor, rank: Tensor, key: Tensor, values: Sequence[Tensor]
    ) -> None:
        n = affected.numel()
        candidate_keys = self.keys.new_full((n, self.k), self.empty)
        candidate_keys[row, rank] = key
        # Lists come before candidates, so that a stable sort lets the earlier of equals win.
        both = torch.cat([self.keys[affected], candidate_keys], dim=1)
        sorted_keys, order = torch.sort(both, dim=1, descending=True, stable=True)
        self.keys[affected] = sorted_keys[:, : self.k]
        order = order[:, : self.k]
        for stored, value in zip(self.payload, values, strict=True):
            candidates = stored.new_zeros((n, *stored.shape[1:]))
            candidates[row, rank] = value
            merged = torch.cat([stored[affected], candidates], dim=1)
            picked = order.reshape(n, self.k, *(1 for _ in stored.shape[2:])).expand(
                n, self.k, *stored.shape[2:]
            )
            stored[affected] = torch.gather(merged, 1, picked)


def rank_in_run(values: Tensor) -> Tensor:
    """[n] int64: place of each entry in its run of equal neighbours, from 0."""
    position = torch.arange(values.numel(), device=values.device)
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    first = torch.where(starts, position, 0)
    return position - torch.cummax(first, dim=0).values
