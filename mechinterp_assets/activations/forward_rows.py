"""Rows of many layers from one shared forward pass, for budgets larger than a disk holds.

Belongs here: harvesting z into a buffer and handing its rows out in one random order shared by all
layers. Does not belong here: the order over a stored cache (rows.py), what learns from the rows.

How it goes. Each pass over the token ids draws a new permutation of the sequences and cuts it into
groups. A group's z is harvested, batch by batch, into a buffer allocated once, [layer, row, d_z];
then its valid rows are handed out in random order until none is left. Permutation and order depend
on (seed, pass, group) alone and a group is always cut into the same batches, so the position is
three integers, and after resuming the buffer is harvested again, equal bit for bit.

On a GPU everything stays there: what a step takes is indexing, and the host waits for nothing.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.harvest import capture_z, check_token_ids, layers_or_all
from mechinterp_assets.activations.outliers import row_norms
from mechinterp_assets.activations.rows import StreamState, check_identity, derived_seed
from mechinterp_assets.model.language_model import LanguageModel

BUFFER_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def buffer_bytes(n_layers: int, d_z: int, buffer_rows: int, dtype: torch.dtype) -> int:
    """Bytes of the buffer of ForwardRows."""
    return n_layers * d_z * buffer_rows * dtype.itemsize


class ForwardRows:
    """z_cat rows of `layers` at the valid positions of token_ids, without any cache.

    token_ids [sequence, position]: the sequences to learn from (the train split).
    buffer_rows: rows per layer that the buffer holds, rounded down to whole sequences, at least
    one; more of them mix better. batch_size: sequences a forward pass. dtype: of the buffer.
    norm_limits {layer: largest ||z_cat||}: a position at which any layer's is longer is passed
    over, as all layers see the same ones (activations/norm_limits.py).
    Raises ModelError for token ids or layers that do not fit the model, ValueError where no
    position is valid.
    """

    def __init__(
        self,
        model: LanguageModel,
        token_ids: Tensor,
        layers: Sequence[int] | None = None,
        *,
        seed: int,
        buffer_rows: int = 131_072,
        batch_size: int = 64,
        dtype: torch.dtype = torch.bfloat16,
        norm_limits: Mapping[int, float] | None = None,
    ) -> None:
        check_token_ids(model, token_ids)
        self._model, self._seed, self._batch_size = model, seed, batch_size
        self.layers = layers_or_all(model, layers)
        self._ids = token_ids.to(torch.int32)
        self._valid = valid_positions(self._ids, model.left_out_ids)
        self._limits = norm_limits or {}
        self.n_outliers = 0
        if not self._valid.any():
            raise ValueError("the token ids have no valid position to train on; all are BOS")
        n, context = self._ids.shape
        # Groups of nearly one size: a last one of a few sequences would be a poor sample.
        groups = math.ceil(n / max(1, buffer_rows // context))
        self._per_buffer = math.ceil(n / groups)
        self._buffer = torch.empty(
            len(self.layers),
            self._per_buffer * context,
            model.config.d_z,
            dtype=dtype,
            device=model.device,
        )
        self._order = torch.empty(0, dtype=torch.int64)
        self._loaded: tuple[int, int] | None = None
        self._pass, self._group, self._offset = 0, 0, 0
        content = hashlib.sha256(self._ids.numpy().tobytes()).hexdigest()[:16]
        self._identity = (
            f"forward/{model.weights_hash}/{content}/{tuple(self._ids.shape)}/{seed}/"
            f"{self._per_buffer}/{batch_size}/{dtype}"
        )
        # Runs without these keep the identity of before, and their checkpoints.
        if len(model.left_out_ids) > 1 or self._limits:
            limits = [self._limits.get(layer) for layer in self.layers]
            self._identity += f"/{model.left_out_ids}/{limits}"

    @property
    def identity(self) -> str:
        """Text that says which rows these are, and in which order."""
        return self._identity

    @property
    def d_in(self) -> int:
        """Width of a row."""
        return self._model.config.d_z

    @property
    def n_rows(self) -> int:
        """Valid positions in one pass, what norm_limits leave out among them."""
        return int(self._valid.sum())

    def next(self, n: int) -> dict[int, Tensor]:
        """The next n rows of every layer {layer: [n, d_in] float32}, at the same positions."""
        parts = []
        while n:
            self._load()
            take = min(n, len(self._order) - self._offset)
            parts.append(self._gather(self._order[self._offset : self._offset + take]))
            n -= take
            self._offset += take
            if self._offset == len(self._order):
                self._group, self._offset = self._group + 1, 0
                if self._group * self._per_buffer >= len(self._ids):
                    self._pass, self._group = self._pass + 1, 0
        if len(parts) == 1:
            return parts[0]
        return {layer: torch.cat([part[layer] for part in parts]) for layer in self.layers}

    def sample(self, layer: int, n: int, seed: int) -> Tensor:
        """n rows of a layer drawn from the current buffer [n, d_in] float32 (all if fewer).

        The position stays where it is. The buffer's sequences are a random choice, so its rows
        serve as a sample and cost no forward pass of their own.
        """
        self._load()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(self._order), generator=generator)[:n]
        index = self._order[_sent(drawn, self._buffer.device)]
        return self._buffer[self.layers.index(layer)].index_select(0, index).float()

    def state_dict(self) -> StreamState:
        """The exact position."""
        return {
            "identity": self._identity,
            "pass": self._pass,
            "group": self._group,
            "offset": self._offset,
        }

    def load_state_dict(self, state: StreamState) -> None:
        """Continue from a saved position. Raises ValueError if it belongs to other data."""
        check_identity(self._identity, state)
        self._pass, self._group = int(state["pass"]), int(state["group"])
        self._offset = int(state["offset"])

    # ---- private ---------------------------------------------------------------------------------

    def _gather(self, index: Tensor) -> dict[int, Tensor]:
        return {
            layer: rows.index_select(0, index).float()
            for layer, rows in zip(self.layers, self._buffer, strict=True)
        }

    def _load(self) -> None:
        """Harvest the current group, unless the buffer holds it; a group of BOS alone is passed."""
        while self._loaded != (self._pass, self._group):
            rng = np.random.default_rng([self._seed, self._pass])
            order = rng.permutation(len(self._ids))
            start = self._group * self._per_buffer
            chosen = torch.from_numpy(order[start : start + self._per_buffer])
            rows = self._valid[chosen].flatten().nonzero().squeeze(1)
            if len(rows) == 0:
                self._group = self._group + 1
                if self._group * self._per_buffer >= len(self._ids):
                    self._pass, self._group = self._pass + 1, 0
                continue
            generator = torch.Generator().manual_seed(
                derived_seed(self._seed, self._pass, self._group + 1)
            )
            shuffled = rows[torch.randperm(len(rows), generator=generator)]
            self._harvest(_sent(self._ids[chosen].long(), self._buffer.device))
            self._order = self._short_enough(_sent(shuffled, self._buffer.device))
            if len(self._order) == 0:
                raise ValueError(
                    "every position of a group has z longer than activations.exclude_norm_above "
                    "allows; raise it"
                )
            self._loaded = (self._pass, self._group)

    def _short_enough(self, order: Tensor) -> Tensor:
        """The rows of `order` at which no layer's z is longer than its limit."""
        if not self._limits:
            return order
        kept = torch.ones(len(order), dtype=torch.bool, device=order.device)
        for buffer, layer in zip(self._buffer, self.layers, strict=True):
            if (limit := self._limits.get(layer)) is not None:
                kept &= row_norms(buffer)[order] <= limit
        self.n_outliers += len(order) - int(kept.sum())
        return order[kept]

    def _harvest(self, ids: Tensor) -> None:
        # Rows of invalid positions are written as well, and never handed out: leaving them out
        # would take a gather per batch to save one row in `context`.
        context = ids.shape[1]
        for first in range(0, len(ids), self._batch_size):
            batch = ids[first : first + self._batch_size]
            z = capture_z(self._model, batch, self.layers)
            here = slice(first * context, first * context + batch.numel())
            for buffer, layer in zip(self._buffer, self.layers, strict=True):
                buffer[here].copy_(z[layer].flatten(0, 1))


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`; to a GPU without waiting for the work queued there."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
