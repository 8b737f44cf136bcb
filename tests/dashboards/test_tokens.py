"""Tokens on a page: everything is visible, nothing is markup, nothing reorders its surroundings."""

import html
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp_assets.dashboards.tokens import (
    MAX_CHARACTERS,
    TokenTexts,
    running_text,
    token_label,
)

INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


@pytest.mark.parametrize(
    ("token", "label"),
    [
        (" the", "␣the"),
        ("the ", "the␣"),
        ("\n\n", "⏎⏎"),
        ("\t", "⇥"),
        ("\r\n", "␍⏎"),
        ("", "∅"),
        ("\u00a0", "⟨U+00A0⟩"),
        ("\u202eevil", "⟨U+202E⟩evil"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u0301a", "◌\u0301a"),
        ("<b>", "<b>"),
        ("x" * 60, "x" * 48 + "…"),
    ],
)
def test_labels_draw_what_cannot_be_seen(token: str, label: str) -> None:
    assert token_label(token) == label


def test_running_text_is_escaped_and_keeps_one_leading_space_apart() -> None:
    assert running_text(" <i>&\"'") == (" ", "&lt;i&gt;&amp;&quot;&#x27;")
    assert running_text("  two") == ("", "␣␣two")
    assert running_text(" ") == ("", "␣")
    assert running_text("\n") == ("", "⏎")


def test_right_to_left_text_is_isolated() -> None:
    assert running_text(" שלום") == (" ", "<bdi>שלום</bdi>")
    assert running_text("abc") == ("", "abc")


@given(st.text(st.characters(), max_size=80))
def test_no_label_hides_or_controls_anything(token: str) -> None:
    label = token_label(token)
    assert label
    assert len(label) <= 10 * MAX_CHARACTERS
    assert not any(unicodedata.category(character) in INVISIBLE for character in label)
    assert not unicodedata.combining(label[0])
    label.encode()


@given(st.text(st.characters(), max_size=40))
def test_running_text_shows_the_label_and_nothing_else(token: str) -> None:
    space, text = running_text(token)
    inner = text.removeprefix("<bdi>").removesuffix("</bdi>")
    assert not set(inner) & set("<>\"'")
    assert html.unescape(inner) == token_label(token[len(space) :])


def test_a_vocabulary_keeps_its_order() -> None:
    texts = TokenTexts(["a", " b"])
    assert (texts.labels, texts.running) == (["a", "␣b"], [("", "a"), (" ", "b")])
