"""Running statistics of z per head, in float64.

Belongs here: sums over valid positions and the frame activation_statistics made from them.
"""

import polars as pl
import torch
from torch import Tensor


class ZStatistics:
    """Mean, norm and rms of each head's z over the rows it was given."""

    def __init__(self, n_heads: int, d_head: int) -> None:
        self.n_heads, self.d_head = n_heads, d_head
        self.n = 0
        self._sum = torch.zeros(n_heads, d_head, dtype=torch.float64)
        self._sum_norm = torch.zeros(n_heads, dtype=torch.float64)
        self._sum_squares = torch.zeros(n_heads, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add rows [n, n_heads * d_head]."""
        z = rows.view(len(rows), self.n_heads, self.d_head).double()
        squares = z.square().sum(-1)
        self.n += len(rows)
        self._sum += z.sum(0).cpu()
        self._sum_norm += squares.sqrt().sum(0).cpu()
        self._sum_squares += squares.sum(0).cpu()

    @property
    def mean_z(self) -> Tensor:
        """Mean z [head, d_head] float64."""
        return self._sum / self.n

    @property
    def mean_norm(self) -> Tensor:
        """Mean of ||z_head|| over positions [head] float64."""
        return self._sum_norm / self.n

    @property
    def rms(self) -> Tensor:
        """Root of the mean square over positions and dimensions [head] float64."""
        return (self._sum_squares / (self.n * self.d_head)).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """The statistics as tensors to store."""
        return {
            "mean_z": self.mean_z,
            "mean_norm": self.mean_norm,
            "rms": self.rms,
            "n_tokens": torch.tensor(self.n),
        }

    def frame(self) -> pl.DataFrame:
        """Table activation_statistics without study and layer: one row per head."""
        return pl.DataFrame(
            {
                "head": range(self.n_heads),
                "n_tokens": [self.n] * self.n_heads,
                "mean_z": self.mean_z.tolist(),
                "mean_norm": self.mean_norm.tolist(),
                "rms": self.rms.tolist(),
            },
            schema={
                "head": pl.Int32,
                "n_tokens": pl.Int64,
                "mean_z": pl.List(pl.Float32),
                "mean_norm": pl.Float64,
                "rms": pl.Float64,
            },
        )


def mean_z_of(statistics: pl.DataFrame, layer: int) -> Tensor:
    """Mean z_cat of a layer [n_heads * d_head] from rows of the table activation_statistics."""
    rows = statistics.filter(pl.col("layer") == layer).sort("head")
    if rows.is_empty():
        raise ValueError(
            f"activation_statistics has no rows of layer {layer}; materialize it first"
        )
    return torch.tensor([value for head in rows["mean_z"].to_list() for value in head])
