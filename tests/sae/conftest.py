"""Data with a known sparse dictionary."""

from collections.abc import Iterator

import pytest
import torch
from sae_reference import Planted


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are so small that threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def planted() -> Planted:
    """20,000 rows, each a positive sum of exactly 3 of 48 directions in 24 dimensions."""
    generator = torch.Generator().manual_seed(0)
    n, d_sae, d_in, active = 20_000, 48, 24, 3
    dictionary = torch.randn(d_sae, d_in, generator=generator)
    dictionary /= dictionary.norm(dim=1, keepdim=True)
    mean = torch.randn(d_in, generator=generator)
    chosen = torch.rand(n, d_sae, generator=generator).topk(active, dim=1).indices
    on = torch.zeros(n, d_sae).scatter_(1, chosen, 1.0)
    codes = on * (1 + torch.rand(n, d_sae, generator=generator))
    return Planted(codes @ dictionary + mean, dictionary, mean)
