"""Random models that several files of attribution tests share."""

import pytest

from mechinterp_assets.model.language_model import LanguageModel
from tests.attribution.random_models import random_gpt2, random_llama, random_neox


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """LayerNorm and learned positions."""
    return random_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """RMSNorm, rotary positions and grouped queries."""
    return random_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def neox(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Attention and MLP in parallel, partly rotary positions."""
    return random_neox(tmp_path_factory.mktemp("neox"))
