"""Data with a known sparse dictionary."""

import pytest
import torch
from sae_reference import Planted


@pytest.fixture(scope="session")
def planted() -> Planted:
    """20,000 rows, each a positive sum of about 4 of 48 directions in 24 dimensions."""
    generator = torch.Generator().manual_seed(0)
    n, d_sae, d_in, active = 20_000, 48, 24, 3
    dictionary = torch.randn(d_sae, d_in, generator=generator)
    dictionary /= dictionary.norm(dim=1, keepdim=True)
    mean = torch.randn(d_in, generator=generator)
    on = torch.rand(n, d_sae, generator=generator) < active / d_sae
    codes = on * (1 + torch.rand(n, d_sae, generator=generator))
    return Planted(codes @ dictionary + mean, dictionary, mean)
