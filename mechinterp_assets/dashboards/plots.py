"""Plots with axes as SVG, styled by the page's CSS: intervals, lines, scatter, a map of values.

Belongs here: geometry, ticks and escaping. Nothing here knows what is drawn, and there is no
script: hovering gives a mark's numbers. Values that are None or NaN have no mark. Small charts
without axes are in charts.py.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mechinterp_assets.dashboards.charts import number, signed

N_COLOURS = 8  # classes s0 .. s7 of style.css; further series share the last
_CHARACTER = 6.3  # pixels per character of an 11 px label, on average
_WIDE = {"→": 10.0} | dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 7.6)
_LONGEST_NAME = 40  # characters of a row's name that are drawn


@dataclass(frozen=True)
class Mark:
    """A value, perhaps with the ends of its interval, and its hover text.

    A value that is None or NaN is not drawn; nor is an interval of which an end is.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    title: str = ""

    @property
    def drawn(self) -> bool:
        """Whether there is a value."""
        return _finite(self.value)

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval, if it has both ends."""
        if self.low is None or self.high is None or not (_finite(self.low) and _finite(self.high)):
            return None
        return self.low, self.high


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot or a line; without both coordinates it is not drawn."""

    x: float | None
    y: float | None
    title: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def drawn(self) -> bool:
        """Whether it has both coordinates."""
        return _finite(self.x) and _finite(self.y)


@dataclass(frozen=True)
class Bar:
    """A vertical bar from zero, its hover text and CSS class; None and NaN are not drawn."""

    value: float | None
    title: str = ""
    kind: str = "s0"


def colour(place: int) -> str:
    """CSS class of the series at this place, from 0."""
    return f"s{min(place, N_COLOURS - 1)}"


def interval_plot(
    rows: Sequence[tuple[str, Sequence[Mark]]],
    *,
    label: str,
    axis: str,
    bars: bool = False,
    lines: Mapping[float, str] | None = None,
    classes: Sequence[str] | None = None,
    around: float = 0.0,
    within: tuple[float, float] | None = None,
    width: int = 420,
) -> Markup:
    """Rows from top to bottom, in each a mark per series with a whisker, along one value axis.

    Args:
        rows: name of each row and its marks, one per series, in the order of the colours.
        label: text alternative of the whole plot.
        axis: name of the value axis.
        bars: bars from zero, one below the other, instead of dots.
        lines: further values marked by a line over the whole height, with what they mean.
        classes: CSS class of each series, by default its colour; `hollow` leaves dots unfilled.
        around: value that the axis includes and where bars start.
        within: where the axis ends at most; what lies beyond is drawn up to there.
        width: of the value axis, in pixels.

    Raises:
        ValueError: rows have different numbers of marks.
    """
    if len({len(marks) for _, marks in rows}) > 1:
        raise ValueError(f"rows have different numbers of marks: {[len(m) for _, m in rows]}")
    lines = lines or {}
    n_series = max((len(marks) for _, marks in rows), default=0)
    step = 9 if bars else 6
    each = max(18, step * n_series + 8)
    left = 10 + round(max((_text_width(name) for name, _ in rows), default=0))
    marks = [mark for _, row in rows for mark in row if mark.drawn]
    values = [mark.value for mark in marks if mark.value is not None]
    values += [around, *lines, *(end for mark in marks for end in mark.ends or ())]
    if within is not None:
        values = [min(max(value, within[0]), within[1]) for value in values]
    scale = _Scale.over(values, left + 6, left + 6 + width)
    body = each * len(rows)
    parts = [_vertical_grid(scale, body)]
    for value, meaning in lines.items():
        parts.append(
            f'<path class="limit" d="M{scale.at(value):.1f} 0V{body}"><title>'
            f"{html.escape(f'{meaning}: {number(value)}')}</title></path>"
        )
    zero = scale.at(around)
    parts.append(f'<path class="axis" d="M{zero:.1f} 0V{body}"/>')
    for i, (name, row) in enumerate(rows):
        middle = each * (i + 0.5)
        parts.append(
            f'<text x="{left}" y="{middle + 4:.1f}" class="end"><title>{html.escape(name)}</title>'
            f"{html.escape(_cut(name))}</text>"
        )
        if i:
            parts.append(f'<path class="rule" d="M{left + 6} {each * i}H{left + 6 + width}"/>')
        for j, mark in enumerate(row):
            y = middle + step * (j - (len(row) - 1) / 2)
            kind = classes[j] if classes is not None else colour(j)
            parts.append(_mark(mark, scale, zero, y, kind, bars))
    return _svg(
        "intervals-plot",
        label,
        left + width + 20,
        body + 36,
        "".join(parts) + _bottom(scale, body, axis),
    )


def line_plot(
    lines: Sequence[tuple[str, Sequence[Point]]],
    *,
    label: str,
    x_axis: str,
    y_axis: str,
    log_x: bool = False,
    levels: Iterable[float] = (),
    classes: Sequence[str] | None = None,
    width: int = 460,
    height: int = 240,
) -> Markup:
    """Lines through points, in order of x, with whiskers where a point has an interval.

    A point that cannot be drawn interrupts its line.

    Args:
        lines: name and points of each line.
        label: text alternative of the whole plot.
        x_axis: name of the horizontal axis.
        y_axis: name of the vertical axis.
        log_x: logarithmic horizontal axis; points with x <= 0 are not drawn.
        levels: heights marked by a dashed line, which the axis includes.
        classes: CSS class of each line, by default its colour.
        width: of the plot without its margins, in pixels.
        height: of the plot without its margins, in pixels.
    """

    def known(point: Point) -> bool:
        return point.drawn and (not log_x or (point.x or 0.0) > 0)

    drawn = [(name, [p if known(p) else None for p in points]) for name, points in lines]
    points = [point for _, line in drawn for point in line if point is not None]
    heights = [point.y for point in points]
    heights += [end for p in points for end in (p.low, p.high) if _finite(end)]
    left, top = 52, 8
    across = _Scale.over([p.x for p in points], left, left + width, log=log_x, pad=0.0)
    up = _Scale.over([*heights, *levels], top + height, top)
    parts = [_frame(across, up, left, top, width, height, x_axis, y_axis)]
    parts += [f'<path class="limit" d="M{left} {up.at(level):.1f}h{width}"/>' for level in levels]
    for i, (name, line) in enumerate(drawn):
        kind = classes[i] if classes is not None else colour(i)
        path, pen, dots = "", "M", []
        for point in line:
            if point is None:
                pen = "M"
                continue
            x, y = across.at(point.x or 0.0), up.at(point.y or 0.0)
            path += f"{pen}{x:.1f} {y:.1f}"
            pen = "L"
            if _finite(point.low) and _finite(point.high):
                path_of = f"M{x:.1f} {up.at(point.low or 0.0):.1f}V{up.at(point.high or 0.0):.1f}"
                dots.append(f'<path class="whisker" d="{path_of}"/>')
            title = point.title or f"{number(point.x)}: {number(point.y)}"
            dots.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>'
                f"{html.escape(f'{name}, {title}')}</title></circle>"
            )
        parts.append(f'<g class="{kind}"><path class="line" d="{path}"/>{"".join(dots)}</g>')
    return _svg("line-plot", label, left + width + 16, top + height + 38, "".join(parts))


def bar_plot(
    bars: Sequence[Bar],
    *,
    label: str,
    x_axis: str,
    y_axis: str,
    include: Iterable[float] = (),
    width: int = 460,
    height: int = 150,
) -> Markup:
    """Vertical bars from zero, numbered from 0 from left to right.

    Args:
        bars: from left to right.
        label: text alternative of the whole plot.
        x_axis: what the numbers of the bars are.
        y_axis: name of the vertical axis.
        include: heights that the axis includes beside those of the bars, so that plots compare.
        width: of the plot without its margins, in pixels.
        height: of the plot without its margins, in pixels.
    """
    left, top = 58, 8
    across = _Scale(-0.5, max(len(bars), 1) - 0.5, left, left + width, whole=True)
    up = _Scale.over([0.0, *include, *(bar.value for bar in bars)], top + height, top)
    zero, wide = up.at(0.0), 0.8 * width / max(len(bars), 1)
    parts = [_frame(across, up, left, top, width, height, x_axis, y_axis)]
    parts.append(f'<path class="axis" d="M{left} {zero:.1f}h{width}"/>')
    for i, bar in enumerate(bars):
        if bar.value is None or not _finite(bar.value):
            continue
        y = up.at(bar.value)
        parts.append(
            f'<g class="{bar.kind}"><title>{html.escape(bar.title)}</title><rect '
            f'x="{across.at(i) - wide / 2:.1f}" y="{min(y, zero):.1f}" width="{wide:.1f}" '
            f'height="{max(0.5, abs(y - zero)):.1f}"/></g>'
        )
    return _svg("bar-plot", label, left + width + 16, top + height + 38, "".join(parts))


def scatter_plot(
    series: Sequence[tuple[str, Sequence[Point]]],
    *,
    label: str,
    x_axis: str,
    y_axis: str,
    diagonal: bool = False,
    cross: tuple[float, float] | None = None,
    width: int = 320,
    height: int = 260,
    radius: float = 3.5,
) -> Markup:
    """Points in two dimensions, a colour per series, later series above earlier ones.

    Args:
        series: name and points of each series.
        label: text alternative of the whole plot.
        x_axis: name of the horizontal axis.
        y_axis: name of the vertical axis.
        diagonal: draw where both are equal; both axes then have the same ends.
        cross: a place marked by a dashed line across and one upwards, which the axes include.
        width: of the plot without its margins, in pixels.
        height: of the plot without its margins, in pixels.
        radius: of a point, in pixels.
    """
    points = [point for _, own in series for point in own if point.drawn]
    xs = [point.x for point in points] + ([cross[0]] if cross else [])
    ys = [point.y for point in points] + ([cross[1]] if cross else [])
    if diagonal:
        xs = ys = [*xs, *ys, 0.0]
    left, top = 58, 8
    across = _Scale.over(xs, left, left + width)
    up = _Scale.over(ys, top + height, top)
    parts = [_frame(across, up, left, top, width, height, x_axis, y_axis)]
    if diagonal:
        low, high = across.low, across.high
        parts.append(
            f'<path class="limit" d="M{across.at(low):.1f} {up.at(low):.1f}'
            f'L{across.at(high):.1f} {up.at(high):.1f}"/>'
        )
    if cross:
        parts.append(
            f'<path class="limit" d="M{across.at(cross[0]):.1f} {top}v{height}'
            f'M{left} {up.at(cross[1]):.1f}h{width}"/>'
        )
    for i, (_, own) in enumerate(series):
        dots = "".join(
            f'<circle cx="{across.at(p.x or 0.0):.1f}" cy="{up.at(p.y or 0.0):.1f}" r="{radius:g}">'
            f"<title>{html.escape(p.title)}</title></circle>"
            for p in own
            if p.drawn
        )
        parts.append(f'<g class="{colour(i)}">{dots}</g>')
    return _svg("scatter-plot", label, left + width + 16, top + height + 38, "".join(parts))


def value_map(
    values: Sequence[Sequence[float | None]],
    *,
    label: str,
    rows: Sequence[str],
    columns: Sequence[str],
    titles: Sequence[Sequence[str]],
    full: float = 1.0,
    wide: int = 46,
) -> Markup:
    """Cells with their value written in them, shaded by sign and size.

    Args:
        values: [row][column]; None and NaN give an empty cell.
        label: text alternative of the whole plot.
        rows: name of each row, on the left.
        columns: name of each column, below, read upwards.
        titles: [row][column], hover texts.
        full: the absolute value from which on the shade is strongest.
        wide: pixels from one column to the next.

    Raises:
        ValueError: the numbers of values, names and titles differ.
    """
    shape = (len(rows), {len(columns)} if rows else set())
    for part in (values, titles):
        if (len(part), {len(row) for row in part}) != shape:
            raise ValueError(f"values and titles must be {len(rows)} rows of {len(columns)}")
    tall = 24
    left = 10 + round(max((_text_width(name) for name in rows), default=0))
    below = 14 + round(max((_text_width(name) for name in columns), default=0))
    parts = []
    for i, (name, row) in enumerate(zip(rows, values, strict=True)):
        parts.append(
            f'<text x="{left - 4}" y="{tall * i + 16}" class="end"><title>{html.escape(name)}'
            f"</title>{html.escape(_cut(name))}</text>"
        )
        for j, value in enumerate(row):
            x, y = left + wide * j, tall * i
            if value is None or not _finite(value):
                parts.append(
                    f'<rect class="field" x="{x}" y="{y}" width="{wide - 2}" height="{tall - 2}"/>'
                )
                continue
            kind = _shade(value, full) or "field"
            on = " on" if kind[-1] in "45" else ""
            parts.append(
                f'<g><title>{html.escape(titles[i][j])}</title><rect class="{kind}" x="{x}" '
                f'y="{y}" width="{wide - 2}" height="{tall - 2}"/><text x="{x + wide / 2 - 1:g}" '
                f'y="{y + 15}" class="middle{on}">{number(round(value, 2))}'
                "</text></g>"
            )
    bottom = tall * len(rows)
    for j, name in enumerate(columns):
        parts.append(
            f'<text transform="translate({left + wide * j + wide / 2 + 3:g} {bottom + 6}) '
            f'rotate(-90)" class="end"><title>{html.escape(name)}</title>'
            f"{html.escape(_cut(name))}</text>"
        )
    return _svg("value-map", label, left + wide * len(columns), bottom + below, "".join(parts))


def cell_map(
    values: Sequence[Sequence[float | None]],
    *,
    label: str,
    rows: Sequence[str],
    titles: Sequence[str],
    groups: Sequence[tuple[str, int]],
    full: float,
    wide: float | None = None,
) -> Markup:
    """Small cells without text, shaded by sign and size, their columns in named groups.

    Args:
        values: [row][column]; None and NaN give an empty cell.
        label: text alternative of the whole plot.
        rows: name of each row, on the left.
        titles: hover text of each row.
        groups: name below, and number of columns, of each group from left to right.
        full: the absolute value from which on the shade is strongest; the lightest is for all
            that is there, however small.
        wide: pixels of a column; by default what makes all of them fit, at most 9.

    Raises:
        ValueError: the numbers of values, names, titles and columns differ.
    """
    n_columns = sum(size for _, size in groups)
    if (len(values), {len(row) for row in values} or {n_columns}) != (len(rows), {n_columns}):
        raise ValueError(f"values must be {len(rows)} rows of {n_columns}")
    if len(titles) != len(rows):
        raise ValueError(f"{len(titles)} titles for {len(rows)} rows")
    wide = wide or min(9.0, max(1.5, 480 / max(n_columns, 1)))
    tall, gap = 13, 14
    left = 10 + round(max((_text_width(name) for name in rows), default=0))
    starts = [
        left + wide * sum(size for _, size in groups[:i]) + gap * i for i in range(len(groups))
    ]
    places = [
        x + wide * j for x, (_, size) in zip(starts, groups, strict=True) for j in range(size)
    ]
    bottom = tall * len(rows)
    # A path per shade and row: thousands of cells stay a small page.
    parts = [
        f'<rect class="field" x="{x:.1f}" y="0" width="{wide * size:.1f}" height="{bottom}"/>'
        for x, (_, size) in zip(starts, groups, strict=True)
    ]
    for i, (name, row, title) in enumerate(zip(rows, values, titles, strict=True)):
        shades: dict[str, list[str]] = {}
        for x, value in zip(places, row, strict=True):
            if value is not None and _finite(value):
                kind = _shade(value, full) or ("p1" if value >= 0 else "n1")
                shades.setdefault(kind, []).append(
                    f"M{x:.1f} {tall * i}h{wide:.1f}v{tall - 1}h-{wide:.1f}z"
                )
        cells = "".join(f'<path class="{kind}" d="{"".join(d)}"/>' for kind, d in shades.items())
        parts.append(
            f'<g><title>{html.escape(title)}</title><text x="{left - 4}" y="{tall * i + 10}" '
            f'class="end">{html.escape(_cut(name))}</text>{cells}</g>'
        )
    parts += [
        f'<text x="{x:.1f}" y="{bottom + 15}">{html.escape(name)}</text>'
        for x, (name, _) in zip(starts, groups, strict=True)
    ]
    names = max((x + _text_width(n) for x, (n, _) in zip(starts, groups, strict=True)), default=0)
    width = max(names, max(places, default=left) + wide) + 8
    return _svg("cell-map", label, width, bottom + 22, "".join(parts))


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """Values to pixels along one axis, linear or logarithmic; `whole`: ticks at whole numbers."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False
    whole: bool = False

    @classmethod
    def over(
        cls,
        values: Iterable[float | None],
        first: float,
        last: float,
        *,
        log: bool = False,
        pad: float = 0.04,
    ) -> "_Scale":
        """Around the values that are finite, with a little space at both ends."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        if log:
            known = [value for value in known if value > 0]
            low, high = min(known, default=0.1), max(known, default=1.0)
            if low == high:
                low, high = low / 2, high * 2
            return cls(low / 1.15, high * 1.15, first, last, log)
        low, high = min(known, default=0.0), max(known, default=1.0)
        size = max(abs(low), abs(high))
        if high - low <= max(1e-12 * size, 1e-300):  # all but equal: no ticks would tell them apart
            size = size if size > 1e-300 else 1.0
            low, high = low - size / 2, high + size / 2
        space = pad * (high - low)
        return cls(low - space, high + space, first, last)

    def at(self, value: float) -> float:
        """Pixel of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)

    def within(self, value: float) -> float:
        """Pixel of a value, that of the nearest end for one beyond."""
        return self.at(min(max(value, self.low), self.high))

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Round values within, at most `most` of them or so, and their texts."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            every = max(1, math.ceil((last - first) / most))
            digits = (1, 2, 5) if last - first <= most / 2 else (1,)
            found = [d * 10.0**i for i in range(first, last + 1, every) for d in digits]
            return [(value, number(value)) for value in found if self.low <= value <= self.high]
        rough = (self.high - self.low) / most
        rough = max(rough, 1.0) if self.whole else rough
        exponent = math.floor(math.log10(rough))
        steps = ((m, m * 10.0**exponent) for m in (1, 2, 5, 10))
        factor, step = next(pair for pair in steps if pair[1] >= rough * (1 - 1e-9))
        decimals = -exponent - (factor == 10)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [i * step + 0.0 for i in range(first, last + 1)]
        return [(value, _tick_text(value, decimals)) for value in values]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _shade(value: float, full: float) -> str:
    """CSS class of a value's sign and size, p1 to p5 or n1 to n5; empty for next to none."""
    if not _finite(value):
        return ""
    step = min(5, max(0, math.ceil(5 * abs(value) / full - 0.5)))
    return f"{'p' if value > 0 else 'n'}{step}" if step else ""


def _tick_text(value: float, decimals: int) -> str:
    """As many decimals as the step between ticks has, so that no two look the same."""
    if not -5 <= decimals <= 7:
        return number(value)
    return f"{value:.{max(0, decimals)}f}".replace("-", "−")


def _text_width(name: str) -> float:
    """Pixels of a row's name as drawn, about."""
    return sum(_WIDE.get(character, _CHARACTER) for character in _cut(name))


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _svg(kind: str, label: str, width: float, height: float, content: str) -> Markup:
    return Markup(
        f'<svg class="plot {kind}" role="img" aria-label="{html.escape(label)}" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">{content}</svg>'
    )


def _mark(mark: Mark, scale: _Scale, zero: float, y: float, kind: str, bars: bool) -> str:
    if mark.value is None or not mark.drawn:
        return ""
    x = scale.within(mark.value)
    ends = mark.ends
    whisker = ""
    if ends is not None:
        low, high = scale.within(ends[0]), scale.within(ends[1])
        whisker = f'<path class="whisker" d="M{low:.1f} {y:.1f}H{high:.1f}"/>'
    if bars:
        drawn = (
            f'<rect x="{min(x, zero):.1f}" y="{y - 3.5:.1f}" width="{max(1.0, abs(x - zero)):.1f}" '
            'height="7"/>'
        )
        shape = drawn + whisker
    else:
        shape = whisker + f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    between = "" if ends is None else f" ({number(ends[0])} to {number(ends[1])})"
    title = f"{mark.title}: {signed(mark.value)}{between}" if mark.title else signed(mark.value)
    return f'<g class="{kind}"><title>{html.escape(title)}</title>{shape}</g>'


def _vertical_grid(scale: _Scale, body: float) -> str:
    return "".join(
        f'<path class="grid" d="M{scale.at(tick):.1f} 0V{body}"/>' for tick, _ in scale.ticks(6)
    )


def _bottom(scale: _Scale, body: float, axis: str) -> str:
    texts = "".join(
        f'<text x="{scale.at(tick):.1f}" y="{body + 14}" class="middle">{text}</text>'
        for tick, text in scale.ticks(6)
    )
    middle = (scale.first + scale.last) / 2
    return (
        f'{texts}<text x="{middle:.1f}" y="{body + 31}" class="middle name">{html.escape(axis)}'
        "</text>"
    )


def _frame(
    across: _Scale,
    up: _Scale,
    left: int,
    top: int,
    width: int,
    height: int,
    x_axis: str,
    y_axis: str,
) -> str:
    foot = top + height
    parts = [
        f'<path class="grid" d="M{left} {up.at(tick):.1f}h{width}"/><text x="{left - 6}" '
        f'y="{up.at(tick) + 4:.1f}" class="end">{text}</text>'
        for tick, text in up.ticks(6)
    ]
    parts += [
        f'<path class="grid" d="M{across.at(tick):.1f} {top}v{height}"/>'
        f'<text x="{across.at(tick):.1f}" y="{foot + 15}" class="middle">{text}</text>'
        for tick, text in across.ticks(6)
    ]
    parts.append(
        f'<path class="axis" d="M{left} {top}V{foot}h{width}"/>'
        f'<text x="{left + width / 2:.0f}" y="{foot + 33}" class="middle name">'
        f'{html.escape(x_axis)}</text><text transform="translate(12 {top + height / 2:.0f}) '
        f'rotate(-90)" class="middle name">{html.escape(y_axis)}</text>'
    )
    return "".join(parts)
