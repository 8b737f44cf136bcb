"""An SAE against every activation of a model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.sites import (
    activation_rows,
    fvu_by_hook,
    out_hook,
    residual_hook,
    z_hook,
)


@pytest.fixture(scope="module")
def token_ids(organism: LanguageModel) -> Tensor:
    ids = torch.randint(1, 4000, (7, 20), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = organism.bos_token_id
    return ids


@pytest.mark.parametrize("name", [z_hook, out_hook, residual_hook])
def test_activations_are_those_of_the_bridge(
    organism: LanguageModel, token_ids: Tensor, name: Callable[[int], str]
) -> None:
    hook = name(3)
    _, cache = organism.raw.run_with_cache(token_ids)
    expected = cache[hook].flatten(2)[valid_positions(token_ids, organism.bos_token_id)]
    found = activation_rows(organism, token_ids, hook, batch=3)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_hook_that_fits_comes_first(organism: LanguageModel, token_ids: Tensor) -> None:
    """An SAE that gives back the main directions of one activation, of 15 of its width."""
    rows = activation_rows(organism, token_ids, out_hook(1))
    mean = rows.mean(0)
    main = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:60]
    W_dec = torch.cat([main, -main])
    sae = StandardSAE(W_dec.T.contiguous(), torch.zeros(120), W_dec, mean)
    found = fvu_by_hook(organism, sae, token_ids)
    assert len(found) == 3 * organism.config.n_layers
    assert next(iter(found)) == out_hook(1)
    assert list(found.values()) == sorted(found.values())
    narrow = StandardSAE(W_dec.T[:20].contiguous(), torch.zeros(120), W_dec[:, :20], mean[:20])
    assert fvu_by_hook(organism, narrow, token_ids) == {}
