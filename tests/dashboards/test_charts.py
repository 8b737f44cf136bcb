"""Charts: geometry, text alternatives, and the length limit of metadata pictures."""

import math
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.dashboards.charts import (
    bar_chart,
    number,
    signed,
    signed_bars,
    tiny_bar_chart,
    tiny_line_chart,
)

SVG = "{http://www.w3.org/2000/svg}"


def parsed(uri: str) -> ElementTree.Element:
    start = "data:image/svg+xml,"
    assert uri.startswith(start)
    return ElementTree.fromstring(unquote(uri.removeprefix(start)))


def bars(uri: str) -> list[tuple[int, int]]:
    """(left, signed height) of each bar."""
    path = parsed(uri)[0].attrib["d"]
    return [(int(x), -int(v)) for x, v in re.findall(r"M(\d+) \d+v(-?\d+)", path)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.0, "0"),
        (1.23456, "1.23"),
        (-0.5, "−0.5"),
        (1234.5, "1234"),
        (123456.0, "1.23e5"),
        (0.000123, "1.23e−4"),
        (99999.0, "99999"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_signed_numbers() -> None:
    assert [signed(x) for x in (1.5, -1.5, 0.0)] == ["+1.5", "−1.5", "0"]


def test_tiny_bars_are_proportional_and_hang_below_zero() -> None:
    found = bars(tiny_bar_chart([1.0, 2.0, None, -3.0, 0.0]))
    assert found == [(0, 12), (12, 24), (36, -36)]


def test_tiny_labels_are_escaped_text() -> None:
    svg = parsed(tiny_bar_chart([1.0, 2.0], ["<a>", "b&c"]))
    assert [e.text for e in svg.iter(f"{SVG}tspan")] == ["<a>", "b&c"]


def test_tiny_labels_thin_out_before_they_vanish() -> None:
    def labels(n: int) -> list[str | None]:
        svg = parsed(tiny_bar_chart([1.0] * n, [f"label {i}" for i in range(n)]))
        return [e.text for e in svg.iter(f"{SVG}tspan")]

    assert labels(6) == [f"label {i}" for i in range(6)]
    assert labels(14) == [f"label {i}" for i in range(0, 14, 2)]
    assert labels(24) == [f"label {i}" for i in range(0, 24, 4)]
    assert labels(60) == []


def test_more_values_than_fit_share_bars() -> None:
    found = bars(tiny_bar_chart([1.0] * 250 + [3.0] * 250))
    assert len(found) < 100
    assert found[0][1] * 3 == found[-1][1] == 60


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9), st.just(math.nan)), max_size=300),
    st.text(max_size=12),
)
def test_a_tiny_chart_is_valid_svg_below_the_limit(values: list[float | None], label: str) -> None:
    label = re.sub(r"[^\x20-\uD7FF\uE000-\uFFFD]", "", label)  # what XML can hold
    for uri in (tiny_bar_chart(values), tiny_bar_chart(values, [label] * len(values))):
        assert len(uri) < 1000
        assert not set(uri) & set(' <>()[]"&')
        parsed(uri)


def test_24_values_keep_a_bar_each() -> None:
    values = [math.sin(i) for i in range(24)]
    shown = [v for v in values if round(30 * abs(v)) > 0]
    assert len(bars(tiny_bar_chart(values))) == len(shown)


def test_tiny_chart_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 values"):
        tiny_bar_chart([1, 2], ["a"])
    with pytest.raises(ValueError, match="infinite"):
        tiny_bar_chart([math.inf])


def lines(uri: str) -> list[list[int]]:
    return [
        [int(y) for y in element.attrib["points"].split(",")[1::2]]
        for element in parsed(uri).iter(f"{SVG}polyline")
    ]


def test_tiny_lines_stand_on_zero_and_share_a_scale() -> None:
    uri = tiny_line_chart({"<a>": [0.0, 0.5, 1.0], "b": [0.25, -0.5, 0.0]})
    assert lines(uri) == [[40, 20, 0], [30, 60, 40]]
    assert [e.text for e in parsed(uri).iter(f"{SVG}tspan")] == ["<a>", "b"]


def test_tiny_lines_that_do_not_fit_are_left_out() -> None:
    many = {f"{i}.10": [0.1 * i * x for x in range(9)] for i in range(9)}
    uri = tiny_line_chart(many)
    assert len(uri) < 1000
    assert len(lines(uri)) >= 4
    assert lines(tiny_line_chart({"a": [1.0, 2.0] * 200})) == []
    assert lines(tiny_line_chart({})) == []


def test_tiny_lines_refuse_what_they_cannot_draw() -> None:
    with pytest.raises(ValueError, match=r"different numbers of values: \{'a': 1, 'b': 2\}"):
        tiny_line_chart({"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(ValueError, match="finite"):
        tiny_line_chart({"a": [math.nan]})


def test_bar_chart_heights_and_titles() -> None:
    svg = ElementTree.fromstring(
        bar_chart([0, 5, 10], label='a "b" <c>', titles=["x", "<y>", "z"], height=100)
    )
    assert svg.attrib["aria-label"] == 'a "b" <c>'
    heights = [float(r.attrib["height"]) for r in svg.iter("rect")]
    assert heights == [0, 50, 100]
    assert [t.text for t in svg.iter("title")] == ["x", "<y>", "z"]
    log = ElementTree.fromstring(
        bar_chart([0, 9, 99], label="", titles=["", "", ""], height=100, log=True)
    )
    assert [float(r.attrib["height"]) for r in log.iter("rect")] == [0, 50, 100]


def test_signed_bars_meet_at_zero() -> None:
    svg = ElementTree.fromstring(signed_bars([1.0, -1.0, 0.5], label="l", step=10, height=40))
    axis, up, down = (path.attrib["d"] for path in svg.iter("path"))
    assert axis == "M0 20H30"
    assert up == "M0 20v-20h8v20zM20 20v-10h8v10z"
    assert down == "M10 20v20h8v-20z"


def test_charts_of_nothing_are_valid() -> None:
    for svg in (bar_chart([], label="", titles=[]), signed_bars([], label="", step=5)):
        ElementTree.fromstring(svg)
