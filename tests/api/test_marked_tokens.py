"""Text with weights: what is drawn on which token, and that no token is more than text."""

import re
from html.parser import HTMLParser

import pytest

from mechinterp_assets.api.marked_tokens import marked_html, marked_text
from tests.dashboards.hostile_layer import HOSTILE


class Tags(HTMLParser):
    """What a browser would make of markup: elements with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def test_colour_is_the_share_of_the_largest_weight() -> None:
    html = marked_html(["a", " b", " c"], [0, 1, 4], 4, marked=0)
    shades = re.findall(r"rgba\(217,119,6,([0-9.]+)\)", html)
    assert shades == ["0.16", "0.65"]
    assert [tag for tag, _ in parsed(html).elements] == ["span"] * 3  # the frame, two colours
    assert parsed(html).text == "a b c"


def test_plain_text_says_token_and_weight() -> None:
    assert (
        marked_text(["When", " Mary", " gave"], [0, 2.5, 0], marked=2) == "When {Mary|2.5} **gave**"
    )


@pytest.mark.parametrize("token", HOSTILE)
def test_a_token_is_text_and_one_line_whatever_it_says(token: str) -> None:
    html = marked_html(["x", token, token], [0, 1, 0], 1, marked=1)
    found = parsed(html)
    assert {tag for tag, _ in found.elements} <= {"span", "bdi"}
    assert all(set(attributes) <= {"style", "title"} for _, attributes in found.elements)
    for text in (found.text, marked_text(["x", token], [0, 1], marked=1)):
        assert text.isprintable()  # no line end, no control, no override of direction
