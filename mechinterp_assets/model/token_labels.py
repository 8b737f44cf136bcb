r"""Labels of tokens: text that shows every byte, another one for every piece.

Belongs here: bytes as a label and back, the labels of a vocabulary, the text of several tokens.
Does not belong here: which bytes a piece stands for (token_bytes.py), what a page makes of a label
(dashboards/tokens.py).

A label is the bytes as text. A byte that is not UTF-8 where it stands, as a part of a character is,
shows as \xe2, and so does the null byte, which many programs take no text with; backslashes right
before such a sign, or before text that looks like one, are written twice. So a label says its bytes
and nothing else: `label_bytes` reads them back. Pieces that stand for the same bytes get labels
that differ: <0x41> is \x41 where A is A.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_SIGN = re.compile(r"(\\+)(?=x[0-9a-f]{2})")
_WRITTEN = re.compile(r"(\\+)x([0-9a-f]{2})")


def bytes_label(content: bytes, *, as_bytes: int = 0) -> str:
    r"""Label of some bytes, the first `as_bytes` of them shown as \x41 even where they are text."""
    if not as_bytes and content.isascii() and not set(content) & {0, ord("\\")}:  # nearly all
        return content.decode()
    shown, rest = content[:as_bytes], content[as_bytes:]
    parts = ["".join(f"\\x{byte:02x}" for byte in shown)]
    text = ""
    for character in rest.decode("utf-8", errors="surrogateescape"):
        if character == "\0" or "\udc80" <= character <= "\udcff":
            # Backslashes before the sign count as its own, unless each is written twice.
            parts += [_escaped(text, before_sign=True), f"\\x{ord(character) & 0xFF:02x}"]
            text = ""
        else:
            text += character
    return "".join([*parts, _escaped(text, before_sign=False)])


def label_bytes(label: str) -> bytes:
    """The bytes that a label of `bytes_label` shows."""
    content, at = b"", 0
    for sign in _WRITTEN.finditer(label):
        slashes = len(sign[1])
        content += label[at : sign.start()].encode(errors="surrogatepass")
        content += b"\\" * (slashes // 2)
        content += bytes([int(sign[2], 16)]) if slashes % 2 else f"x{sign[2]}".encode()
        at = sign.end()
    return content + label[at:].encode(errors="surrogatepass")


def vocabulary_labels(
    known: Sequence[bytes | None], byte_pieces: frozenset[int] = frozenset()
) -> list[str]:
    """Label of every token id, all different; ids without a piece are named <id>.

    Of pieces that stand for the same bytes the first keeps the plain label; of the next ones the
    first byte, the first two, ... are shown as bytes. byte_pieces: shown as bytes in any case.
    """
    taken: set[str] = set()
    labels = [""] * len(known)
    # Plain pieces choose first, so that no <0x41> or <7> takes the name of a piece of that text.
    plain = [i for i, content in enumerate(known) if content is not None and i not in byte_pieces]
    bytes_only = [i for i, content in enumerate(known) if content is not None and i in byte_pieces]
    for token in [*plain, *bytes_only]:
        content = known[token]
        assert content is not None
        shown = len(content) if token in byte_pieces else 0
        label = bytes_label(content, as_bytes=shown)
        while label in taken and shown < len(content):
            shown += 1
            label = bytes_label(content, as_bytes=shown)
        labels[token] = _free(label, token, taken)
        taken.add(labels[token])
    for token in (i for i, content in enumerate(known) if content is None):
        labels[token] = _free(f"<{token}>", token, taken)
        taken.add(labels[token])
    return labels


def joined_label(labels: Iterable[str]) -> str:
    """Label of the text of several tokens; characters that they share are whole again."""
    return bytes_label(b"".join(map(_cached_bytes, labels)))


def joined_text(labels: Iterable[str]) -> str:
    """Text of several tokens; bytes that are no character, at its ends, are U+FFFD."""
    return b"".join(map(_cached_bytes, labels)).decode("utf-8", errors="replace")


# ---- private -------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 17)
def _cached_bytes(label: str) -> bytes:
    return label_bytes(label)


def _escaped(text: str, *, before_sign: bool) -> str:
    text = _SIGN.sub(r"\1\1", text)
    if before_sign:
        kept = text.rstrip("\\")
        text = kept + "\\" * (2 * (len(text) - len(kept)))
    return text


def _free(label: str, token: int, taken: set[str]) -> str:
    """The label, or where others have taken it, the label and the id."""
    tried = label
    while tried in taken:
        tried = f"{tried}⟨{token}⟩"
    return tried
