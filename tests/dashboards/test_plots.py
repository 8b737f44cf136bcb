"""Plots with axes: values to coordinates, gaps, empty and single rows, escaped text."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.dashboards.plots import (
    Bar,
    Mark,
    Point,
    bar_plot,
    cell_map,
    interval_plot,
    line_plot,
    scatter_plot,
    value_map,
)

HOSTILE = "<script>alert('&')</script>"
NAN = math.nan


def parsed(plot: str) -> ElementTree.Element:
    return ElementTree.fromstring(plot)


def circles(plot: str) -> list[tuple[float, float]]:
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in parsed(plot).iter("circle")]


def ticks(plot: str) -> list[tuple[float, float]]:
    """Place and value of the numbers below the plot."""
    found = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="middle">([−\d.e]+)<', plot)
    return [(float(x), float(value.replace("−", "-"))) for x, value in found]


def test_dots_stand_where_the_axis_says() -> None:
    values = [-1.0, 0.5, 2.0]
    plot = interval_plot(
        [(str(v), [Mark(v, v - 0.25, v + 0.25, "m")]) for v in values], label="l", axis="a"
    )
    (x0, v0), *_, (x1, v1) = ticks(plot)
    per_unit = (x1 - x0) / (v1 - v0)
    for (x, _), value in zip(circles(plot), values, strict=True):
        assert x == pytest.approx(x0 + per_unit * (value - v0), abs=0.2)
    whiskers = re.findall(r'class="whisker" d="M([\d.]+) [\d.]+H([\d.]+)"', plot)
    assert [float(b) - float(a) for a, b in whiskers] == pytest.approx([per_unit / 2] * 3, abs=0.2)
    assert "m: +0.5 (0.25 to 0.75)" in plot


def test_bars_start_at_zero_and_are_in_proportion() -> None:
    plot = interval_plot(
        [("a", [Mark(1.0), Mark(-2.0)]), ("b", [Mark(0.5), Mark(None)])],
        label="l",
        axis="a",
        bars=True,
    )
    bars = [(float(r.attrib["x"]), float(r.attrib["width"])) for r in parsed(plot).iter("rect")]
    (a, wide), (b, widest), (c, narrow) = bars
    assert a == c == pytest.approx(b + widest, abs=0.2)
    assert wide == pytest.approx(2 * narrow, abs=0.2)
    assert widest == pytest.approx(2 * wide, abs=0.2)


def test_what_has_no_value_has_no_mark() -> None:
    rows = [("a", [Mark(None, 0, 1), Mark(NAN)]), ("b", [Mark(1.0, NAN, 2.0), Mark(2.0, None, 3)])]
    plot = interval_plot(rows, label="l", axis="a")
    assert len(circles(plot)) == 2
    assert "whisker" not in plot
    assert "nan" not in plot
    line = line_plot(
        [("l", [Point(1, 1), Point(2, NAN), Point(3, 2), Point(4, None), Point(5, 1)])],
        label="l",
        x_axis="x",
        y_axis="y",
    )
    assert len(circles(line)) == 3
    path = re.search(r'class="line" d="([^"]*)"', line)
    assert path is not None
    assert path[1].count("M") == 3  # two gaps
    assert path[1].count("L") == 0


@pytest.mark.parametrize(
    "plot",
    [
        interval_plot([], label="l", axis="a"),
        interval_plot([("a", [])], label="l", axis="a"),
        interval_plot([("a", [Mark(0.0)])], label="l", axis="a", bars=True),
        interval_plot([("a", [Mark(None)])], label="l", axis="a"),
        line_plot([], label="l", x_axis="x", y_axis="y", log_x=True),
        line_plot([("l", [])], label="l", x_axis="x", y_axis="y"),
        line_plot([("l", [Point(3, 3)])], label="l", x_axis="x", y_axis="y", log_x=True),
        scatter_plot([], label="l", x_axis="x", y_axis="y", diagonal=True),
        scatter_plot([("s", [Point(1, 1)])], label="l", x_axis="x", y_axis="y"),
        scatter_plot([("s", [Point(None, 1)])], label="l", x_axis="x", y_axis="y", cross=(1, 1)),
        value_map([], label="l", rows=[], columns=[], titles=[]),
        value_map([[NAN]], label="l", rows=["a"], columns=["b"], titles=[[""]]),
    ],
)
def test_plots_of_nothing_or_one_thing_are_whole(plot: str) -> None:
    svg = parsed(plot)
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == "l"
    assert float(svg.attrib["width"]) > 0
    assert not re.search(r"nan|inf", plot)


def test_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    points = [Point(x, 1.0) for x in (0.0, 0.001, 0.01, 0.1, 1.0)]
    plot = line_plot([("l", points)], label="l", x_axis="x", y_axis="y", log_x=True)
    xs = [x for x, _ in circles(plot)]
    assert len(xs) == 4  # zero has no place
    steps = [b - a for a, b in pairwise(xs)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)


def test_ticks_have_the_decimals_of_their_step() -> None:
    plot = interval_plot([("a", [Mark(0.9991, 0.9990, 0.9999)])], label="l", axis="a", around=1.0)
    values = [value for _, value in ticks(plot)]
    assert len(values) == len(set(values)) > 3
    wide = interval_plot([("a", [Mark(250000.0)])], label="l", axis="a")
    assert [value for _, value in ticks(wide)][-1] == 250000


def test_what_lies_beyond_the_ends_is_drawn_up_to_there() -> None:
    marks = [Mark(0.5, -30.0, 40.0, "m")]
    plot = interval_plot([("a", marks)], label="l", axis="a", within=(-1.0, 2.0))
    assert [value for _, value in ticks(plot)] == [-1.0, 0.0, 1.0, 2.0]
    assert "m: +0.5 (−30 to 40)" in plot
    found = re.search(r'class="whisker" d="M([\d.]+) [\d.]+H([\d.]+)"', plot)
    assert found is not None
    places = [x for x, _ in ticks(plot)]
    assert places[0] - 20 < float(found[1]) <= places[0] < places[-1] <= float(found[2])


def test_points_on_the_diagonal_are_drawn_on_it() -> None:
    plot = scatter_plot(
        [("s", [Point(-1, -1), Point(2, 2)])], label="l", x_axis="x", y_axis="y", diagonal=True
    )
    ends = re.search(r'class="limit" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', plot)
    assert ends is not None
    x0, y0, x1, y1 = map(float, ends.groups())
    for x, y in circles(plot):
        assert (y - y0) / (y1 - y0) == pytest.approx((x - x0) / (x1 - x0), abs=0.002)


def test_maps_shade_by_sign_and_size_and_leave_gaps() -> None:
    plot = value_map(
        [[1.0, -0.5], [0.0, None]],
        label="l",
        rows=["a", "b"],
        columns=["c", "d"],
        titles=[["t0", "t1"], ["t2", "t3"]],
    )
    assert [r.attrib["class"] for r in parsed(plot).iter("rect")] == ["p5", "n2", "field", "field"]
    assert ">−0.5<" in plot
    assert "t3" not in plot


def test_text_is_escaped_and_long_names_cut() -> None:
    long = HOSTILE * 3
    marks = [Mark(1.0, title=HOSTILE)]
    plots = [
        interval_plot([(long, marks)], label=HOSTILE, axis=HOSTILE, lines={1.0: HOSTILE}),
        line_plot([(HOSTILE, [Point(1, 1)])], label=HOSTILE, x_axis=HOSTILE, y_axis=HOSTILE),
        scatter_plot(
            [(HOSTILE, [Point(1, 1, HOSTILE)])], label=HOSTILE, x_axis=HOSTILE, y_axis=HOSTILE
        ),
        value_map([[1.0]], label=HOSTILE, rows=[long], columns=[long], titles=[[HOSTILE]]),
    ]
    for plot in plots:
        assert "<script" not in plot
        assert parsed(plot).attrib["aria-label"] == HOSTILE
    assert "…" in plots[0]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers of marks"):
        interval_plot([("a", [Mark(1.0)]), ("b", [])], label="l", axis="a")
    with pytest.raises(ValueError, match="2 rows of 1"):
        value_map([[1.0]], label="l", rows=["a", "b"], columns=["c"], titles=[[""]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e12, 1e12) | st.none(), max_size=12))
def test_any_values_stay_within_the_picture(values: list[float | None]) -> None:
    plot = interval_plot([("r", [Mark(v, v, v)]) for v in values], label="l", axis="a")
    width, height = (float(parsed(plot).attrib[name]) for name in ("width", "height"))
    for x, y in circles(plot):
        assert 0 <= x <= width
        assert 0 <= y <= height


def test_vertical_bars_stand_on_zero_and_share_an_axis() -> None:
    bars = [Bar(2.0, HOSTILE), Bar(None), Bar(NAN), Bar(-1.0, "below", "rest")]
    plot = bar_plot(bars, label=HOSTILE, x_axis="k", y_axis="v", include=[-4.0])
    assert HOSTILE not in plot
    boxes = [
        tuple(float(r.attrib[name]) for name in ("x", "y", "height"))
        for r in parsed(plot).iter("rect")
    ]
    (x0, y0, h0), (x3, y3, h3) = boxes
    assert h0 == pytest.approx(2 * h3, abs=0.2)
    assert y0 + h0 == pytest.approx(y3, abs=0.1)  # both stand on the axis
    assert [value for _, value in ticks(plot) if value in range(4)] == [0.0, 1.0, 2.0, 3.0]
    # Four units below zero are as far as the axis reaches, with a little space.
    assert 150 + 8 - y3 == pytest.approx(4.24 * h3, abs=0.3)
    assert x3 - x0 == pytest.approx(3 * 460 / 4, abs=0.2)


def test_small_cells_keep_groups_apart_and_count() -> None:
    values = [[1.0, None, -0.001], [NAN, -1.0, 0.5]]
    plot = cell_map(
        values,
        label="l",
        rows=["a", HOSTILE],
        titles=["first", HOSTILE],
        groups=[("two", 2), ("one", 1)],
        full=1.0,
    )
    assert HOSTILE not in plot
    drawn = [
        {path.attrib["class"]: path.attrib["d"].count("M") for path in group.iter("path")}
        for group in parsed(plot).iter("g")
    ]
    assert drawn == [{"p5": 1, "n1": 1}, {"n5": 1, "p2": 1}]
    with pytest.raises(ValueError, match="2 rows of 4"):
        cell_map(values, label="l", rows=["a", "b"], titles=["", ""], groups=[("x", 4)], full=1.0)
    with pytest.raises(ValueError, match="1 titles for 2 rows"):
        cell_map(values, label="l", rows=["a", "b"], titles=[""], groups=[("x", 3)], full=1.0)
