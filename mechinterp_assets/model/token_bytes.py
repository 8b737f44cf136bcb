"""Vocabulary pieces as the bytes of text that they stand for.

Belongs here: one function from a tokenizer's vocabulary to bytes, for every kind of tokenizer, and
the space that some put before a text. Does not belong here: how bytes are shown (token_labels.py).

Bytes are read from the pieces and from what the tokenizer's own decoder does to each, never from
`decode([id])`: that one strips spaces, and a character of several tokens comes out as U+FFFD in
every one of them. Kinds, by the decoder's steps (the format of tokenizer.json):

  ByteLevel     a piece is written in GPT-2's alphabet of 256 printable characters, one per byte
  Metaspace     U+2581 is a space (SentencePiece: BPE and Unigram)
  Replace       one string is another one (SentencePiece as a list of steps)
  ByteFallback  the piece <0xE2> is the byte E2
  WordPiece     ## continues a word; any other piece begins one, which a space precedes
  BPEDecoder    a suffix, </w>, ends a word and is the space behind it
  none          pieces are words, each preceded by a space; bytes of GPT-2 where they are split so

Joined bytes of a text's tokens are the text's UTF-8 after the tokenizer's own normalisation, with
one space before it where the tokenizer puts one there. WordPiece and tokenizers of whole words keep
no white space: joined, each of their words has one space before it.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Regex, decoders

Piece = Callable[[str], bytes]

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_META = "\u2581"
_ANCHOR = "a"


def token_bytes(tokenizer: Any, size: int) -> list[bytes | None]:
    """Bytes of every token id [size]; None for ids that the tokenizer has no piece for.

    tokenizer: of transformers, with a backend of the tokenizers library or without. Special tokens
    stand as their names. size: of the model's vocabulary, which may be padded and may have gaps.
    """
    as_bytes, literal = _rules(tokenizer)
    found: list[bytes | None] = [None] * size
    for piece, token_id in tokenizer.get_vocab().items():
        if 0 <= token_id < size:
            found[token_id] = piece.encode(errors="surrogatepass")
            if token_id not in literal:
                found[token_id] = as_bytes(piece)
    return found


def byte_pieces(tokenizer: Any) -> frozenset[int]:
    """Ids of pieces that stand for one byte each where no other piece fits: <0x00> to <0xFF>."""
    if not _falls_back(tokenizer):
        return frozenset()
    vocabulary = tokenizer.get_vocab()
    return frozenset(i for piece, i in vocabulary.items() if _BYTE_PIECE.fullmatch(piece))


def space_before_text(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a space before every text, which is none of the text's own."""
    ids = [int(i) for i in tokenizer.encode(_ANCHOR, add_special_tokens=False)]
    known = token_bytes(tokenizer, max(ids, default=-1) + 1)
    return b"".join(known[i] or b"" for i in ids).startswith(b" ")


def joined_bytes(known: Sequence[bytes | None], ids: Iterable[int]) -> bytes:
    """The bytes of a token sequence; ids without a piece add none."""
    return b"".join(known[i] or b"" for i in ids)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that stand for no text: the named ones (BOS, EOS, ...) and those that are
    marked as special where they were added."""
    named = {int(i) for i in tokenizer.all_special_ids}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(named | {int(i) for i, token in added.items() if token.special})


# ---- private -------------------------------------------------------------------------------------


def _rules(tokenizer: Any) -> tuple[Piece, frozenset[int]]:
    """What a piece stands for, and the ids of the pieces that are literal text."""
    special = special_ids(tokenizer)
    description = _description(tokenizer)
    if description is None:
        added = getattr(tokenizer, "added_tokens_decoder", {})
        return _without_backend(tokenizer), special | frozenset(int(i) for i in added)
    # A token that was added is matched in the text as it is written, unless the model has the piece
    # too and makes it by its own rules.
    model = description["model"].get("vocab") or {}
    own = model.keys() if isinstance(model, dict) else {piece for piece, _ in model}
    added_ids = {t["id"] for t in description["added_tokens"] if t["content"] not in own}
    return _of_steps(description), special | added_ids


def _description(tokenizer: Any) -> dict[str, Any] | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    described: dict[str, Any] = json.loads(backend.to_str())
    return described


def _falls_back(tokenizer: Any) -> bool:
    description = _description(tokenizer)
    if description is None:
        return all(f"<0x{byte:02X}>" in tokenizer.get_vocab() for byte in range(256))
    kinds = {step["type"] for step in _flat(description["decoder"], "decoders")}
    return "ByteFallback" in kinds or bool(description["model"].get("byte_fallback"))


def _flat(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a decoder or pre-tokenizer, sequences of sequences unfolded."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [one for part in step[key] for one in _flat(part, key)]
    return [step]


def _of_steps(description: dict[str, Any]) -> Piece:
    steps = _flat(description["decoder"], "decoders")
    before = {s["type"] for s in _flat(description["pre_tokenizer"], "pretokenizers")}
    if not steps:
        if "ByteLevel" in before:
            steps = [{"type": "ByteLevel"}]
        elif "Metaspace" in before:
            steps = [{"type": "Metaspace", "replacement": _META}]
        elif description["model"]["type"] == "WordPiece":
            prefix = description["model"]["continuing_subword_prefix"]
            steps = [{"type": "WordPiece", "prefix": prefix}]
        elif before:  # words that were split at what the vocabulary does not hold
            return lambda piece: b" " + piece.encode(errors="surrogatepass")
    text_steps = [made for step in steps if (made := _text_step(step)) is not None]
    to_bytes = _byte_level if any(s["type"] == "ByteLevel" for s in steps) else _utf8
    falls_back = any(s["type"] == "ByteFallback" for s in steps) or bool(
        description["model"].get("byte_fallback")
    )

    def of(piece: str) -> bytes:
        if falls_back and (byte := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        for step in text_steps:
            piece = step(piece)
        return to_bytes(piece)

    return of


def _text_step(step: dict[str, Any]) -> Callable[[str], str] | None:
    """What a decoder's step does to one piece that has others before and behind it."""
    kind = step["type"]
    if kind == "Metaspace":
        replacement = step["replacement"]
        return lambda piece: piece.replace(replacement, " ")
    if kind == "Replace":
        pattern, content = step["pattern"], step["content"]
        if "String" in pattern:
            return lambda piece: piece.replace(pattern["String"], content)
        replace = decoders.Replace(Regex(pattern["Regex"]), content)
        return lambda piece: str(replace.decode([piece]))
    if kind == "WordPiece":
        prefix = step["prefix"]
        return lambda piece: piece[len(prefix) :] if piece.startswith(prefix) else f" {piece}"
    if kind == "BPEDecoder":
        suffix = step["suffix"]
        return lambda piece: f"{piece.removesuffix(suffix)} " if piece.endswith(suffix) else piece
    return None  # Strip and Fuse concern a whole text, ByteLevel and ByteFallback are not of text


def _without_backend(tokenizer: Any) -> Piece:
    """The rule of a tokenizer that is written in Python or in SentencePiece."""
    if isinstance(getattr(tokenizer, "byte_decoder", None), dict):
        return _byte_level
    if getattr(tokenizer, "_utf_vocab_size", None) == 256:  # ByT5: one character per byte
        return lambda piece: bytes([ord(piece)]) if len(piece) == 1 else _utf8(piece)
    falls_back = _falls_back(tokenizer)
    sentencepiece = any(hasattr(tokenizer, name) for name in ("sp_model", "spm"))
    behind = _behind_a_piece(tokenizer)

    def of(piece: str) -> bytes:
        if falls_back and (byte := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        return _utf8(piece.replace(_META, " ") if sentencepiece else behind(piece))

    return of


def _behind_a_piece(tokenizer: Any) -> Callable[[str], str]:
    """What the tokenizer writes for a piece that comes after another one."""
    anchor = next(iter(tokenizer.tokenize(_ANCHOR)), None)

    def behind(piece: str) -> str:
        if anchor is None:
            return piece
        first = str(tokenizer.convert_tokens_to_string([anchor]))
        both = str(tokenizer.convert_tokens_to_string([anchor, piece]))
        return both.removeprefix(first) if both.startswith(first) else piece

    return behind


def _utf8(piece: str) -> bytes:
    return piece.encode(errors="surrogatepass")


def _byte_level(piece: str) -> bytes:
    """Bytes of a piece in GPT-2's alphabet; one that has another character stands for itself."""
    alphabet = gpt2_alphabet()
    try:
        return bytes(alphabet[character] for character in piece)
    except KeyError:
        return _utf8(piece)


@lru_cache(maxsize=1)
def gpt2_alphabet() -> dict[str, int]:
    """Character -> byte: printable Latin-1 stands for itself, the other bytes, in order, for the
    characters from U+0100 on (Radford et al. 2019, byte-level BPE)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + n): byte for n, byte in enumerate(others)
    }
