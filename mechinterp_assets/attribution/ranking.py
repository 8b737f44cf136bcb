"""Running top-k of many groups at once, for streams.

Belongs here: the merge of candidates into ranked lists. What is ranked (activations of features,
hashes of examples) is the caller's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class GroupedTopK:
    """The k largest keys of each of `n_groups` groups, with what belongs to them.

    Keys are compared exactly. Of equal keys the one that arrived first ranks higher, within an
    update and between updates, so the result does not depend on how the stream is cut.

    Attributes:
        keys: [group, k], descending; `empty` where fewer than k candidates arrived.
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
        """Empty lists.

        Args:
            n_groups: number of groups.
            k: length of each list.
            key_dtype: of the keys.
            payload: dtype and shape of each thing that belongs to one entry.
            device: where the lists live.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; a ranking needs k >= 1")
        info = torch.finfo(key_dtype) if key_dtype.is_floating_point else torch.iinfo(key_dtype)
        self.k = k
        self.empty = -torch.inf if key_dtype.is_floating_point else info.min
        self.keys = torch.full((n_groups, k), self.empty, dtype=key_dtype, device=device)
        # Payloads stay where they were first written; only their slot numbers are sorted.
        self._slots = torch.arange(k, device=device).repeat(n_groups, 1)
        self._payload = [
            torch.zeros((n_groups, k, *shape), dtype=dtype, device=device)
            for dtype, shape in payload
        ]

    @property
    def filled(self) -> Tensor:
        """[group, k] bool: entries that hold a candidate."""
        return self.keys != self.empty

    def entries(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """Payload tensors [n, ...] of the entries chosen by a mask [group, k], in its order."""
        group, rank = chosen.nonzero(as_tuple=True)
        slot = self._slots[group, rank]
        return tuple(payload[group, slot] for payload in self._payload)

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
            payload: called at most once, with the indices [m] of the candidates that entered a
                list; returns their payload tensors [m, ...].
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
        candidate_keys = self.keys.new_full((len(affected), self.k), self.empty)
        candidate_keys[row, rank] = key[index]
        candidate = torch.zeros_like(candidate_keys, dtype=torch.int64)
        candidate[row, rank] = index
        # Lists come before candidates, so that a stable sort lets the earlier of equals win.
        keys = torch.cat([self.keys[affected], candidate_keys], dim=1)
        keys, order = torch.sort(keys, dim=1, descending=True, stable=True)
        self.keys[affected] = keys[:, : self.k]

        # An entering candidate takes over the slot of an entry that fell out. Both masks have
        # equally many entries in each row.
        old_slots = torch.cat([self._slots[affected], torch.zeros_like(candidate)], dim=1)
        slots = old_slots.gather(1, order)
        kept, dropped = order[:, : self.k], order[:, self.k :]
        entering = kept >= self.k
        free = slots[:, self.k :][dropped < self.k]
        slots = slots[:, : self.k]
        slots[entering] = free
        self._slots[affected] = slots
        where = affected.repeat_interleave(entering.sum(dim=1))
        entered = candidate.gather(1, (kept - self.k).clamp(min=0))[entering]
        for stored, value in zip(self._payload, payload(entered), strict=True):
            stored[where, free] = value


def rank_in_run(values: Tensor) -> Tensor:
    """[n] int64: place of each entry in its run of equal neighbours, from 0."""
    position = torch.arange(values.numel(), device=values.device)
    first = torch.where(starts_of_runs(values), position, 0)
    return position - torch.cummax(first, dim=0).values


def starts_of_runs(values: Tensor) -> Tensor:
    """[n] bool: entries that differ from the one before, and the first."""
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    return starts
