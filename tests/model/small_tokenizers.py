"""Small tokenizers of every kind, trained or built here."""

from collections.abc import Callable
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "the cat sat on the mat, and the dog sat on the log.",
    "Mary and John went to the store; John gave a ring to Mary.",
    'naïve café “quoted” — 日本語 text\n\twith tabs, 12 345 and 🎉 "!"',
    "When hello world, hello there, other words: words, worlds and wordings.",
] * 4
SPECIAL = ["<s>", "</s>", "<unk>"]


def byte_level(*, prefix_space: bool = False) -> Tokenizer:
    """GPT-2's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )


def byte_level_without_decoder() -> Tokenizer:
    """GPT-2's kind from a file that names no decoder."""
    tokenizer = byte_level()
    tokenizer.decoder = None
    return tokenizer


def metaspace_bpe(*, scheme: str = "always") -> Tokenizer:
    """SentencePiece's BPE; `scheme` says where a space is put before a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return _trained(
        tokenizer,
        trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False),
    )


def unigram() -> Tokenizer:
    """SentencePiece's Unigram."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _trained(
        tokenizer,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        ),
    )


def byte_fallback(*, strips: bool = True) -> Tokenizer:
    """Llama's kind: a space is put before a text and stripped by the decoder, or neither."""
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.;:0123456789\n▁"
    words = ["▁t", "he", "▁the", "ca", "cat", "▁▁", "é"]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *letters, *words])}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("c", "a"), ("ca", "t"), ("▁", "▁")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    prepend = [normalizers.Prepend("▁")] if strips else []
    tokenizer.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*steps, *([decoders.Strip(" ", 1, 0)] if strips else [])]
    )
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _trained(
        tokenizer,
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False),
    )


def word_end_bpe() -> Tokenizer:
    """The first GPT's kind: </w> ends a word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder()
    return _trained(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=200,
            special_tokens=SPECIAL,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )


def word_level() -> Tokenizer:
    """Whole words, no decoder."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _trained(
        tokenizer, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    )


def replacing() -> Tokenizer:
    """Spaces are written as another sign, which the decoder finds by an expression."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "·")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(Regex("·"), " "), decoders.Fuse()])
    return _trained(
        tokenizer,
        trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False),
    )


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "byte_level, prefix space": lambda: byte_level(prefix_space=True),
    "byte_level, no decoder": byte_level_without_decoder,
    "metaspace BPE": metaspace_bpe,
    "metaspace BPE, first": lambda: metaspace_bpe(scheme="first"),
    "metaspace BPE, never": lambda: metaspace_bpe(scheme="never"),
    "unigram": unigram,
    "byte fallback": byte_fallback,
    "byte fallback, not stripping": lambda: byte_fallback(strips=False),
    "word piece": word_piece,
    "word-end BPE": word_end_bpe,
    "word level": word_level,
    "replacing": replacing,
}


def wrapped(tokenizer: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    """As transformers has it, BOS <s>, EOS </s>."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | settings),
    )


def adding_bos(tokenizer: Tokenizer) -> Tokenizer:
    """The same, which puts <s> before every text that it encodes with special tokens."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def with_added(tokenizer: Tokenizer, *texts: str) -> Tokenizer:
    """The same with tokens that are no special ones."""
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in texts])
    return tokenizer


def _trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer
