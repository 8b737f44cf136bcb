"""What the comparisons with sae-lens share. They run where `make peers` installs it."""

import random
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from mechinterp_assets.corpora.readers import Document
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.corpora.structured import document
from mechinterp_assets.corpora.tokenize import token_matrix, tokenize_corpus
from mechinterp_assets.model.language_model import LanguageModel


class _Absent(pytest.Module):
    """A test file that is skipped unread, since what it imports is not installed."""

    def collect(self) -> NoReturn:
        pytest.skip("sae-lens is not installed here: make test-peers", allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """Read the files of this folder only where they can be imported."""
    if find_spec("sae_lens") is None:
        return _Absent.from_parent(parent, path=module_path)
    return None


@pytest.fixture(scope="session")
def peer_token_ids(organism: LanguageModel) -> Tensor:
    """24 sequences of 64 tokens of generated text, some with BOS between documents [24, 64]."""
    rng = random.Random(0)
    documents = [Document(str(i), document(rng)) for i in range(60)]
    corpus = tokenize_corpus(
        documents,
        organism.tokenizer,
        CorpusSettings(
            format="structured",
            documents=60,
            context_size=64,
            max_tokens=40 * 64,
            held_out_fraction=0.2,
        ),
        organism.bos_token_id,
    )
    ids = torch.from_numpy(token_matrix(corpus.sequences))[:24]
    assert ids.shape == (24, 64)
    assert (ids[:, 1:] == organism.bos_token_id).any()
    return ids
