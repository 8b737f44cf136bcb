"""What sequences begin with: the tokenizer's BOS, the config's, an EOS, a named token, or text."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from mechinterp_assets.heads.datasets import ordinary_token_ids, random_tokens
from mechinterp_assets.model.bos import Bos, resolved_bos
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError
from tests.model.small_tokenizers import adding_bos, byte_fallback, byte_level, wrapped

D_VOCAB = 500


def resolved(setting: str, config: dict[str, Any], **named: str | None) -> Bos:
    tokenizer = wrapped(byte_level(), **named)
    return resolved_bos(setting, tokenizer, SimpleNamespace(**config), D_VOCAB, "a model")


def test_the_tokenizers_own_comes_first() -> None:
    config = {"bos_token_id": 7, "eos_token_id": 8}
    assert resolved("tokenizer", config) == Bos(0, "<s>", prepended=True)


def test_the_configs_comes_before_any_eos() -> None:
    """Qwen2's tokenizer names an EOS alone, its config a BOS."""
    config = {"bos_token_id": 7, "eos_token_id": 8}
    assert resolved("tokenizer", config, bos_token=None).token_id == 7


def test_an_eos_stands_in_where_neither_names_a_bos() -> None:
    config = {"bos_token_id": None, "eos_token_id": [9, 10]}
    assert resolved("tokenizer", config, bos_token=None) == Bos(1, "</s>", prepended=True)
    assert resolved("tokenizer", config, bos_token=None, eos_token=None).token_id == 9
    with pytest.raises(ModelError, match=r"neither a BOS nor an EOS .*name a token in model\.bos"):
        resolved("tokenizer", {"eos_token_id": []}, bos_token=None, eos_token=None)


def test_none_keeps_the_id_and_puts_it_nowhere() -> None:
    assert resolved("none", {}) == Bos(0, "<s>", prepended=False)


def test_a_token_may_be_named() -> None:
    assert resolved("</s>", {}) == Bos(1, "</s>", prepended=True)
    with pytest.raises(ModelError, match=r"model\.bos: '<bos>' is no token .*special ones: </s>"):
        resolved("<bos>", {})


def test_an_id_beyond_the_embedding_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"has id 500, but the model embeds the ids 0\.\.499 alone"
    ):
        resolved("tokenizer", {"bos_token_id": 500}, bos_token=None)


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_there_is_one_bos_where_a_tokenizer_adds_its_own(
    organism: LanguageModel, make: Any
) -> None:
    tokenizer = wrapped(adding_bos(make()))
    assert tokenizer.encode("the cat")[0] == tokenizer.bos_token_id
    model = LanguageModel(
        "a model", organism.hf, tokenizer, device=torch.device("cpu"), dtype=torch.float32
    )
    assert model.bos_token_id not in model.encode("the cat")


@pytest.mark.parametrize(
    ("bos", "token_id", "first"),
    [("tokenizer", 1, 1), ("<|endoftext|>", 0, 0), ("none", 1, None)],
)
def test_smollm2(smollm2_folder: Path, bos: str, token_id: int, first: int | None) -> None:
    """Its own BOS begins a turn of a chat."""
    from transformers import AutoConfig, AutoTokenizer

    found = resolved_bos(
        bos,
        AutoTokenizer.from_pretrained(smollm2_folder),
        AutoConfig.from_pretrained(smollm2_folder),
        49152,
        "SmolLM2",
    )
    assert found.token_id == token_id
    assert (found.token_id if found.prepended else None) == first


def test_random_tokens_come_from_ids_that_the_tokenizer_has(organism: LanguageModel) -> None:
    """Of a vocabulary with gaps in a padded embedding: no gap, no padding, nothing special."""
    words = {"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 7, "c": 9, "d": 10, "e": 4000}
    model = LanguageModel(
        "a model",
        organism.hf,
        wrapped(Tokenizer(WordLevel(words, unk_token="<unk>"))),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    assert model.ordinary_ids == [3, 7, 9, 10, 4000]
    assert ordinary_token_ids(model).tolist() == model.ordinary_ids
    drawn = random_tokens(model, n_sequences=20, length=5, seed=0).token_ids
    assert set(drawn[:, 1:].flatten().tolist()) <= set(model.ordinary_ids)
    labels = model.token_strings()
    assert (labels[3], labels[4], labels[4000], labels[4095]) == ("a", "<4>", "e", "<4095>")
    assert len(set(labels)) == organism.config.d_vocab
