"""Random models with SAEs on two of three layers, and an explorer of each."""

import pytest
import torch

from mechinterp_assets.attribution.residual_saes import ResidualSaes
from mechinterp_assets.explore.exploration import Exploration, Explorer
from mechinterp_assets.model.language_model import LanguageModel
from tests.attribution.random_models import (
    random_gpt2,
    random_llama,
    random_neox,
    random_sae,
    saes_of,
)

MAKE = {"gpt2": random_gpt2, "llama": random_llama, "neox": random_neox}
IDS = (7, 3, 9, 3, 12, 30, 9, 5)


@pytest.fixture(scope="session", params=list(MAKE))
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    """LayerNorm with learned positions; RMSNorm, rotary positions and grouped queries; attention
    and MLP in parallel.
    """
    return MAKE[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def explorer(model: LanguageModel) -> Explorer:
    """Layer 1 has no SAE: its attention output is split by head."""
    saes = saes_of(model)
    return Explorer(model, {0: saes[0], 2: saes[2]})


@pytest.fixture(scope="session")
def explored(explorer: Explorer) -> Exploration:
    """IDS behind BOS."""
    return explorer.explore([explorer.model.bos_token_id, *IDS])


@pytest.fixture(scope="session")
def explored_by_residual(model: LanguageModel) -> Exploration:
    """The same prompt with SAEs on the stream before layers 1 and 2, one of which has none on z."""
    saes, width = saes_of(model), model.config.d_model
    residual = ResidualSaes({layer: random_sae(width, "topk", 20 + layer) for layer in (1, 2)})
    explorer = Explorer(model, {0: saes[0], 2: saes[2]}, residual=residual)
    return explorer.explore([model.bos_token_id, *IDS])


@pytest.fixture(scope="session")
def logits(explored: Exploration) -> torch.Tensor:
    """Logits [position, d_vocab] of the Hugging Face model, which explorers do not run."""
    with torch.no_grad():
        found: torch.Tensor = explored.model.hf(explored.token_ids[None]).logits[0]
    return found
