"""Small random models that the default plans were not made for, as folders.

Belongs here: the models and their tokenizers. Does not belong here: studies of them and what these
must make (test_default_plans.py).
"""

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from mechinterp_assets.model.shape import read_shape
from mechinterp_assets.organism import ORGANISM_FOLDER

BOS = "<|endoftext|>"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def byte_tokenizer(folder: Path) -> int:
    """A tokenizer that reads every byte as a token, so that every name is split; its size."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS)
    fast.save_pretrained(folder)
    return len(fast)


def organism_tokenizer(folder: Path) -> int:
    """The embedded model's tokenizer, for which names are single tokens; its size."""
    for name in TOKENIZER_FILES:
        if (ORGANISM_FOLDER / name).is_file():
            shutil.copy(ORGANISM_FOLDER / name, folder / name)
    return read_shape(ORGANISM_FOLDER).d_vocab


def grouped(
    folder: Path, d_vocab: int, *, n_kv_heads: int, spread: float = 0.02, bos: int = 0
) -> None:
    """Llama: rotary positions, four heads that share keys and values, no biases anywhere."""
    torch.manual_seed(4)
    config = LlamaConfig(
        **SIZES,
        vocab_size=d_vocab,
        num_key_value_heads=n_kv_heads,
        initializer_range=spread,
        bos_token_id=bos,
        eos_token_id=bos,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def side_by_side(folder: Path, d_vocab: int) -> None:
    """GPT-NeoX: attention and MLP read the same residual stream."""
    torch.manual_seed(5)
    config = GPTNeoXConfig(
        **SIZES,
        vocab_size=d_vocab,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
