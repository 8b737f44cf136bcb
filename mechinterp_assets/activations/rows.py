"""The order in which training sees rows: deterministic, shuffled, resumable.

Belongs here: the protocols that sae.train reads from (RowStream: one layer; LayerRows: several in
one order), the stream over an activation cache, and the stream over a tensor in memory. Does not
belong here: how shards are stored (cache.py), rows without a cache (forward_rows.py).
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mechinterp_assets.activations.cache import ActivationReader

StreamState = dict[str, int | str]


class RowStream(Protocol):
    """An endless, repeatable sequence of activation rows."""

    @property
    def d_in(self) -> int:
        """Width of a row."""

    @property
    def n_rows(self) -> int:
        """Rows in one pass over the data."""

    def next(self, n: int) -> Tensor:
        """The next n rows [n, d_in] float32."""

    def sample(self, n: int, seed: int) -> Tensor:
        """n random rows [n, d_in] float32 (all if fewer); the position stays where it is."""

    def state_dict(self) -> StreamState:
        """The exact position, small and JSON-compatible."""

    def load_state_dict(self, state: StreamState) -> None:
        """Continue from a saved position. Raises ValueError if it belongs to other data."""


class LayerRows(Protocol):
    """An endless, repeatable sequence of activation rows of several layers at the same tokens."""

    @property
    def d_in(self) -> int:
        """Width of a row."""

    @property
    def n_rows(self) -> int:
        """Rows of a layer in one pass over the data."""

    def next(self, n: int) -> Mapping[int, Tensor]:
        """The next n rows of every layer {layer: [n, d_in] float32}; not to be written to."""

    def sample(self, layer: int, n: int, seed: int) -> Tensor:
        """n random rows of a layer [n, d_in] float32 (all if fewer); the position stays."""

    def state_dict(self) -> StreamState:
        """The exact position, small and JSON-compatible."""

    def load_state_dict(self, state: StreamState) -> None:
        """Continue from a saved position. Raises ValueError if it belongs to other data."""


class OneLayer:
    """A RowStream as the LayerRows of one layer."""

    def __init__(self, rows: RowStream, layer: int = 0) -> None:
        self._rows, self._layer = rows, layer

    @property
    def d_in(self) -> int:
        """Width of a row."""
        return self._rows.d_in

    @property
    def n_rows(self) -> int:
        """Rows in one pass over the data."""
        return self._rows.n_rows

    def next(self, n: int) -> dict[int, Tensor]:
        """The next n rows {layer: [n, d_in] float32}."""
        return {self._layer: self._rows.next(n)}

    def sample(self, layer: int, n: int, seed: int) -> Tensor:
        """n random rows [n, d_in] float32 (all if fewer)."""
        assert layer == self._layer
        return self._rows.sample(n, seed)

    def state_dict(self) -> StreamState:
        """The exact position."""
        return self._rows.state_dict()

    def load_state_dict(self, state: StreamState) -> None:
        """Continue from a saved position. Raises ValueError if it belongs to other data."""
        self._rows.load_state_dict(state)


def derived_seed(*parts: int) -> int:
    """One generator seed from several integers; different parts give independent streams."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


class CachedRows:
    """Valid rows of an activation cache, shuffled in two stages.

    Each pass draws a new permutation of blocks (block_sequences consecutive sequences, read
    sequentially), fills a preallocated buffer with as many blocks as fit in buffer_rows, and hands
    out the buffer's rows in random order. The order depends on (seed, pass, buffer) alone, so the
    position is three integers and resuming needs no generator state.
    """

    def __init__(
        self,
        reader: ActivationReader,
        *,
        seed: int,
        buffer_rows: int = 131_072,
        block_sequences: int = 16,
        device: str | torch.device = "cpu",
    ) -> None:
        counts = reader.valid.sum(1)
        spans = [(s, int(counts[s.start : s.stop].sum())) for s in reader.spans(block_sequences)]
        spans = [(span, n) for span, n in spans if n]
        if not spans:
            raise ValueError(f"{reader.folder} has no valid position to train on")
        self._reader, self._seed = reader, seed
        self._blocks = spans
        per_buffer = max(1, buffer_rows // max(n for _, n in spans))
        self._per_buffer = min(per_buffer, len(spans))
        size = sum(sorted((n for _, n in spans), reverse=True)[: self._per_buffer])
        self._buffer = torch.empty(size, reader.d_z, device=device)
        self._order = torch.empty(0, dtype=torch.int64)
        self._loaded: tuple[int, int] | None = None
        self._pass, self._group, self._offset = 0, 0, 0
        self._identity = (
            f"{reader.content_hash}/{self.n_rows}/{seed}/{block_sequences}/{self._per_buffer}"
        )

    @property
    def d_in(self) -> int:
        """Width of a row."""
        return self._reader.d_z

    @property
    def n_rows(self) -> int:
        """Valid positions in one pass."""
        return sum(n for _, n in self._blocks)

    def next(self, n: int) -> Tensor:
        """The next n rows [n, d_in] float32, on the stream's device."""
        rows = torch.empty(n, self.d_in, device=self._buffer.device)
        filled = 0
        while filled < n:
            self._load()
            take = min(n - filled, len(self._order) - self._offset)
            index = self._order[self._offset : self._offset + take]
            torch.index_select(self._buffer, 0, index, out=rows[filled : filled + take])
            filled += take
            self._offset += take
            if self._offset == len(self._order):
                self._group, self._offset = self._group + 1, 0
                if self._group * self._per_buffer >= len(self._blocks):
                    self._pass, self._group = self._pass + 1, 0
        return rows

    def _load(self) -> None:
        if self._loaded == (self._pass, self._group):
            return
        rng = np.random.default_rng([self._seed, self._pass])
        order = rng.permutation(len(self._blocks))
        chosen = order[self._group * self._per_buffer : (self._group + 1) * self._per_buffer]
        filled = 0
        for block in chosen:
            span, n = self._blocks[block]
            valid = self._reader.valid[span.start : span.stop]
            self._buffer[filled : filled + n].copy_(self._reader.stored_z(span)[valid])
            filled += n
        generator = torch.Generator().manual_seed(
            derived_seed(self._seed, self._pass, self._group + 1)
        )
        self._order = torch.randperm(filled, generator=generator).to(self._buffer.device)
        self._loaded = (self._pass, self._group)

    def sample(self, n: int, seed: int) -> Tensor:
        """n valid rows drawn uniformly [n, d_in] float32, on the stream's device."""
        return self._reader.sample_rows(n, seed).to(self._buffer.device)

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


class TensorRows:
    """Rows of a tensor in memory [n_rows, d_in], in a new random order each pass."""

    def __init__(self, rows: Tensor, *, seed: int) -> None:
        if rows.ndim != 2 or len(rows) == 0:
            raise ValueError(f"rows must be [n_rows, d_in] and not empty, got {tuple(rows.shape)}")
        self._rows, self._seed = rows, seed
        self._position = 0
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))
        self._identity = f"tensor/{tuple(rows.shape)}/{float(rows.double().sum())!r}/{seed}"

    @property
    def d_in(self) -> int:
        """Width of a row."""
        return self._rows.shape[1]

    @property
    def n_rows(self) -> int:
        """Rows in one pass."""
        return self._rows.shape[0]

    def next(self, n: int) -> Tensor:
        """The next n rows [n, d_in] float32."""
        parts: list[Tensor] = []
        while n:
            number, offset = divmod(self._position, self.n_rows)
            if self._order[0] != number:
                generator = torch.Generator().manual_seed(derived_seed(self._seed, number))
                self._order = (number, torch.randperm(self.n_rows, generator=generator))
            take = min(n, self.n_rows - offset)
            parts.append(self._rows[self._order[1][offset : offset + take]].float())
            self._position += take
            n -= take
        return torch.cat(parts)

    def sample(self, n: int, seed: int) -> Tensor:
        """n rows drawn uniformly without replacement [n, d_in] float32 (all if fewer)."""
        generator = torch.Generator().manual_seed(seed)
        return self._rows[torch.randperm(self.n_rows, generator=generator)[:n]].float()

    def state_dict(self) -> StreamState:
        """The exact position."""
        return {"identity": self._identity, "position": self._position}

    def load_state_dict(self, state: StreamState) -> None:
        """Continue from a saved position. Raises ValueError if it belongs to other data."""
        check_identity(self._identity, state)
        self._position = int(state["position"])


def check_identity(expected: str, state: StreamState) -> None:
    """Raise ValueError unless a saved position belongs to the stream named `expected`."""
    if state.get("identity") != expected:
        raise ValueError(
            "the saved position belongs to other data or another order "
            f"({state.get('identity')!r}, this stream is {expected!r}); start training afresh or "
            "restore that data"
        )
