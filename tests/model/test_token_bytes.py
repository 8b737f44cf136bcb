"""Tokens as bytes: every kind of tokenizer gives back its text, every piece has its own label."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from mechinterp_assets.model.token_bytes import (
    byte_pieces,
    gpt2_alphabet,
    joined_bytes,
    space_before_text,
    special_ids,
    token_bytes,
)
from mechinterp_assets.model.token_labels import (
    bytes_label,
    joined_label,
    joined_text,
    label_bytes,
    vocabulary_labels,
)
from tests.model.small_tokenizers import (
    KINDS,
    TEXTS,
    byte_fallback,
    byte_level,
    with_added,
    wrapped,
)

MADE = {name: wrapped(make()) for name, make in KINDS.items()}
BYTES = {name: token_bytes(t, len(t)) for name, t in MADE.items()}
# What each kind puts before a text that has no space there.
SPACED = {
    *("byte_level, prefix space", "metaspace BPE", "metaspace BPE, first", "unigram"),
    *("byte fallback", "word piece", "word level"),
}
# No white space is kept by these, and what they never saw is <unk>.
OF_WORDS = {"word piece", "word-end BPE", "word level"}
ALL_BYTES = [name for name in KINDS if name.startswith("byte")]
SEEN = sorted(set("".join(TEXTS)))
PARTS = [b"\\", b"x", b"e2", b"41", b"\xe2", b"\x80", b"a"]


def joined(name: str, text: str) -> bytes:
    content = joined_bytes(BYTES[name], MADE[name].encode(text, add_special_tokens=False))
    return content.removeprefix(b" ") if space_before_text(MADE[name]) else content


@pytest.mark.parametrize("name", KINDS)
def test_which_put_a_space_before_a_text(name: str) -> None:
    assert space_before_text(MADE[name]) == (name in SPACED)


@pytest.mark.parametrize("name", ALL_BYTES)
@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_joined_bytes_are_the_text_whatever_it_is(name: str, text: str) -> None:
    if "prefix" in name and text[:1].isspace():  # GPT-2 puts no second space before a space
        return
    assert joined(name, text) == text.encode()


@pytest.mark.parametrize("name", [n for n in KINDS if n not in OF_WORDS])
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from(SEEN), min_size=1))
def test_joined_bytes_are_the_text_in_letters_that_a_tokenizer_knows(name: str, text: str) -> None:
    if space_before_text(MADE[name]) and text[0].isspace():  # schemes differ in this
        return
    assert joined(name, text) == text.encode()


@pytest.mark.parametrize("name", sorted(OF_WORDS))
@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(["the", "cat", "sat", "dog", "went", "gave"]), min_size=1))
def test_joined_words_have_one_space_between_them(name: str, words: list[str]) -> None:
    text = " ".join(words)
    assert joined(name, text).strip() == text.encode()


def test_a_space_that_decode_strips_stays() -> None:
    for name in ("metaspace BPE", "unigram", "byte fallback"):
        tokenizer = MADE[name]
        spaced = tokenizer.convert_tokens_to_ids("▁the")
        assert tokenizer.decode([spaced]) == "the"
        assert BYTES[name][spaced] == b" the"


def test_word_pieces_say_whether_they_begin_a_word() -> None:
    tokenizer = MADE["word piece"]
    begins, continues = (tokenizer.convert_tokens_to_ids(p) for p in ("s", "##s"))
    assert (BYTES["word piece"][begins], BYTES["word piece"][continues]) == (b" s", b"s")


def test_the_decoder_agrees_on_whole_texts() -> None:
    for name in KINDS:
        tokenizer = MADE[name]
        for text in TEXTS[:4]:
            ids = tokenizer.encode(text, add_special_tokens=False)
            theirs = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            ours = joined_bytes(BYTES[name], ids).decode()
            if name == "word piece":  # its decoder guesses where punctuation had no space
                ours, theirs = ours.replace(" ", ""), theirs.replace(" ", "")
            if name == "byte_level, no decoder":  # none: spaces between pieces of the alphabet
                theirs = text
            assert ours.strip() == theirs.strip(), name


def test_the_alphabet_of_bytes_is_that_of_the_library() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(gpt2_alphabet()) == set(ByteLevel.alphabet())
    tokenizer = byte_level()
    parts = tokenizer.pre_tokenizer.pre_tokenize_str("é\x00\xa0")
    assert bytes(gpt2_alphabet()[c] for part, _ in parts for c in part) == "é\x00\xa0".encode()


def test_added_tokens_are_the_text_that_they_match() -> None:
    # é is the sign of a byte in GPT-2's alphabet; in an added token it is a letter.
    tokenizer = wrapped(with_added(byte_level(), "qé", "  ", "<tool>"))
    known = token_bytes(tokenizer, len(tokenizer))
    ids = tokenizer.encode("the qé<tool>  x", add_special_tokens=False)
    added = tokenizer.convert_tokens_to_ids(["qé", "<tool>", "  "])
    assert [i for i in ids if i in added] == added
    assert joined_bytes(known, ids) == "the qé<tool>  x".encode()


def test_added_pieces_that_the_model_makes_follow_its_rules() -> None:
    # Gemma adds runs of its sign for a space, which its model has too.
    tokenizer = wrapped(with_added(byte_fallback(strips=False), "▁▁"))
    known = token_bytes(tokenizer, len(tokenizer))
    ids = tokenizer.encode("a  b", add_special_tokens=False)
    assert joined_bytes(known, ids) == b"a  b"


def test_padding_and_gaps_have_no_bytes() -> None:
    tokenizer = MADE["metaspace BPE"]
    size = len(tokenizer)
    known = token_bytes(tokenizer, size + 7)
    assert known[size:] == [None] * 7
    assert None not in known[:size]
    labels = vocabulary_labels(known)
    assert labels[size:] == [f"<{i}>" for i in range(size, size + 7)]


def test_special_tokens_are_those_that_are_named_or_marked() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<|tool|>"])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    named = {made.convert_tokens_to_ids(t) for t in ("<s>", "</s>", "<unk>", "<|tool|>")}
    assert special_ids(made) == named
    assert named > {int(i) for i in made.all_special_ids}


# ---- without a backend ---------------------------------------------------------------------------


class Tiktoken:
    """A tokenizer without a backend whose pieces are in GPT-2's alphabet."""

    def __init__(self) -> None:
        self._fast = MADE["byte_level"]
        self.byte_decoder = gpt2_alphabet()
        self.all_special_ids = self._fast.all_special_ids

    def get_vocab(self) -> dict[str, int]:
        vocabulary: dict[str, int] = self._fast.get_vocab()
        return vocabulary


class SentencePiece:
    """A tokenizer without a backend, around a SentencePiece model."""

    sp_model = object()

    def __init__(self, name: str) -> None:
        self._fast: Any = MADE[name]
        self.all_special_ids = self._fast.all_special_ids

    def __getattr__(self, name: str) -> Any:
        if name in {"get_vocab", "encode", "tokenize"}:
            return getattr(self._fast, name)
        raise AttributeError(name)


class Words:
    """A tokenizer without a backend that joins its pieces with spaces."""

    all_special_ids = (0,)

    def get_vocab(self) -> dict[str, int]:
        return {"<s>": 0, "the": 1, "cat": 2, "@@s": 3}

    def tokenize(self, text: str) -> list[str]:
        return text.split()

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return " ".join(tokens).replace(" @@", "")


def test_tokenizers_without_a_backend() -> None:
    assert token_bytes(Tiktoken(), 300) == BYTES["byte_level"][:300]
    for name in ("unigram", "byte fallback", "metaspace BPE"):
        assert token_bytes(SentencePiece(name), len(MADE[name])) == BYTES[name]
    assert token_bytes(Words(), 5) == [b"<s>", b" the", b" cat", b"s", None]
    byt5 = ByT5Tokenizer()
    text = "naïve 日本"
    known = token_bytes(byt5, len(byt5))
    assert joined_bytes(known, byt5.encode(text, add_special_tokens=False)) == text.encode()


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_every_piece_has_its_own_label_which_says_its_bytes(name: str) -> None:
    labels = vocabulary_labels(BYTES[name], byte_pieces(MADE[name]))
    assert len(set(labels)) == len(labels)
    assert [label_bytes(label) for label in labels] == BYTES[name]
    ids = MADE[name].encode(TEXTS[2], add_special_tokens=False)
    assert joined_label(labels[i] for i in ids) == joined_bytes(BYTES[name], ids).decode()


def test_byte_pieces_and_equal_pieces_have_labels_of_their_own() -> None:
    tokenizer = MADE["byte fallback"]
    labels = vocabulary_labels(BYTES["byte fallback"], byte_pieces(tokenizer))
    of = {piece: labels[i] for piece, i in tokenizer.get_vocab().items()}
    assert (of["A"], of["<0x41>"], of["<0xE2>"], of["▁the"]) == ("A", r"\x41", r"\xe2", " the")
    known: list[bytes | None] = [b"  ", b"  ", b"  ", b"  ", b"", None, b"", b"<5>"]
    assert vocabulary_labels(known) == [
        *("  ", r"\x20 ", r"\x20\x20", r"\x20\x20⟨3⟩"),
        *("", "<5>⟨5⟩", "⟨6⟩", "<5>"),
    ]


def test_parts_of_characters_show_as_bytes_and_join_to_the_character() -> None:
    assert bytes_label("…".encode()[:2]) == r"\xe2\x80"
    assert joined_label([r" \xe2\x80", r"\x9cquoted"]) == " “quoted"
    assert joined_label([r"\xe2\x80", "a"]) == r"\xe2\x80a"
    assert joined_text([r"\xe2\x80", "a"]) == "\ufffda"
    assert joined_label(["\\", "x41"]) == r"\\x41"  # text that looks like a byte


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=12),
        st.lists(st.sampled_from([b"\\", b"x", b"e2", b"41", b"\xe2", b"\x80", b"a"])).map(
            b"".join
        ),
    ),
    data=st.data(),
)
def test_a_label_says_its_bytes(content: bytes, data: st.DataObject) -> None:
    shown = data.draw(st.integers(0, len(content)))
    assert label_bytes(bytes_label(content, as_bytes=shown)) == content


# ---- tokenizers of real models -------------------------------------------------------------------


def _holds_on_texts(tokenizer: Any) -> None:
    known = token_bytes(tokenizer, len(tokenizer))
    labels = vocabulary_labels(known, byte_pieces(tokenizer))
    assert len(set(labels)) == len(labels)
    assert [label_bytes(label) for label in labels] == known
    for text in (*TEXTS[:4], "\x00\ud7ff ﷽ 👩‍👩‍👧 \\xe2\\x80 \r\n   trailing  "):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert joined_bytes(known, ids) == text.encode()


def test_gpt2(shared: Path) -> None:
    file = shared / "gpt2_tokenizer" / "tokenizer.json"
    if not file.is_file():
        pytest.skip(f"no tokenizer at {file}")
    _holds_on_texts(PreTrainedTokenizerFast(tokenizer_file=str(file)))


def test_smollm2(smollm2_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    _holds_on_texts(tokenizer)
    decoded = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    assert len(set(decoded)) == len(decoded) - 309  # what labels were before
    assert len(special_ids(tokenizer)) == 17
