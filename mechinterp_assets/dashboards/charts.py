"""Small charts as SVG: for pages (styled by the page's CSS) and as data URIs (self-contained).

Belongs here: geometry and escaping. Nothing here knows what is drawn.
"""

import html
import math
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import quote

from markupsafe import Markup

DATA_URI_LIMIT = 1000  # longest metadata picture that Dagster's UI shows inline
# Seen on light and on dark backgrounds.
_LINE_COLOURS = ("#47d", "#d62", "#393", "#a5b", "#888")


def percent(share: float | None) -> str:
    """A share in percent, three significant digits; a dash for None."""
    return "–" if share is None else f"{100 * share:.3g}%"


def number(value: float | None) -> str:
    """Three significant digits; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    value += 0.0  # no minus sign in front of zero
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    else:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")


def amount(value: object) -> str:
    """A whole number with its thousands apart, another as `number`; a dash for what is none."""
    if isinstance(value, int):
        return f"{value:,}"
    return number(value if isinstance(value, float) else None)


def signed(value: float) -> str:
    """As `number`, with a plus sign where positive."""
    return ("+" if value > 0 else "") + number(value)


def bar_chart(
    values: Sequence[float],
    *,
    label: str,
    titles: Sequence[str],
    height: int = 90,
    bar_width: int = 20,
    log: bool = False,
) -> Markup:
    """Vertical bars from zero, of values >= 0; heights by log10(1 + value) on request.

    Args:
        values: one bar each.
        label: text alternative of the whole chart.
        titles: hover text of each bar.
        height: of the tallest bar, in pixels.
        bar_width: pixels per bar, gap included.
        log: logarithmic heights, for counts over many magnitudes.
    """
    sizes = [math.log10(1 + value) if log else value for value in values]
    largest = max(sizes, default=0) or 1
    bars = []
    for i, (value, size, title) in enumerate(zip(values, sizes, titles, strict=True)):
        drawn = max(1.0, height * size / largest) if value else 0.0
        bars.append(
            f'<rect x="{i * bar_width + 1}" y="{height - drawn:.1f}" width="{bar_width - 2}" '
            f'height="{drawn:.1f}"><title>{html.escape(title)}</title></rect>'
        )
    width = max(1, len(values)) * bar_width
    return Markup(
        f'<svg class="bars" role="img" aria-label="{html.escape(label)}" '
        f'viewBox="0 0 {width} {height + 1}" width="{width}" height="{height + 1}">'
        f'{"".join(bars)}<path class="axis" d="M0 {height + 0.5}H{width}"/></svg>'
    )


def signed_bars(values: Sequence[float], *, label: str, step: int, height: int = 26) -> Markup:
    """Tiny signed bars around a zero line, positive up and negative down.

    Args:
        values: one bar each.
        label: text alternative of the whole chart.
        step: pixels per bar, gap included.
        height: of the chart, in pixels, from the lowest to the highest value (or zero).
    """
    top, bottom = max(0.0, *values, 0.0), min(0.0, *values, 0.0)
    scale = height / ((top - bottom) or 1.0)
    zero = round(top * scale)
    up: list[str] = []
    down: list[str] = []
    for i, value in enumerate(values):
        size = round(value * scale)
        if size:
            bar = f"M{i * step} {zero}v{-size}h{step - 2}v{size}z"
            (up if size > 0 else down).append(bar)
    width = max(1, len(values)) * step
    return Markup(
        f'<svg role="img" aria-label="{html.escape(label)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><path class="axis" d="M0 {zero}H{width}"/>'
        f'<path class="pos" d="{"".join(up)}"/><path class="neg" d="{"".join(down)}"/></svg>'
    )


def marked_histogram(
    counts: Sequence[int], marked: int | None, *, label: str, step: int = 4, height: int = 24
) -> Markup:
    """Small vertical bars in one path, heights by log10(1 + count), one of them marked.

    Args:
        counts: one bar each, >= 0.
        marked: index of the bar drawn in the accent colour; None for no such bar.
        label: text alternative of the whole chart.
        step: pixels per bar, gap included.
        height: of the tallest bar, in pixels.
    """
    sizes = [math.log10(1 + count) for count in counts]
    largest = max(sizes, default=0) or 1
    paths = {"rest": "", "mark": ""}
    for i, size in enumerate(sizes):
        if size:
            drawn = max(2, round(height * size / largest))
            bar = f"M{i * step} {height}v{-drawn}h{step - 1}v{drawn}z"
            paths["mark" if i == marked else "rest"] += bar
    width = max(1, len(counts)) * step
    return Markup(
        f'<svg role="img" aria-label="{html.escape(label)}" width="{width}" height="{height + 1}" '
        f'viewBox="0 0 {width} {height + 1}"><path class="rest" d="{paths["rest"]}"/>'
        f'<path class="act" d="{paths["mark"]}"/><path class="axis" d="M0 {height + 0.5}H{width}"/>'
        "</svg>"
    )


def place_among(
    values: Sequence[float],
    marked: float,
    *,
    label: str,
    null: tuple[float, float] | None = None,
    threshold: float | None = None,
    width: int = 150,
    height: int = 18,
) -> Markup:
    """A strip with a tick per value, one value marked; where chance and a threshold lie.

    Args:
        values: all values, drawn as thin ticks.
        marked: the value drawn as a thick tick in the accent colour.
        label: text alternative of the whole chart.
        null: mean and standard deviation; a band of three standard deviations around the mean.
        threshold: drawn as a line over the whole height.
        width: of the strip, in pixels.
        height: of the strip, in pixels.
    """
    finite = [value for value in values if math.isfinite(value)]
    ends = [*finite, marked, 0.0, *([] if threshold is None else [threshold])]
    low, high = min(ends), max(ends)
    scale = (width - 4) / ((high - low) or 1.0)

    def at(value: float) -> float:
        return round(2 + (min(max(value, low), high) - low) * scale, 1)

    band = ""
    if null is not None and all(math.isfinite(part) for part in null):
        first, last = at(null[0] - 3 * null[1]), at(null[0] + 3 * null[1])
        band = f'<path class="band" d="M{first} 0V{height}H{max(last, first + 1):g}V0z"/>'
    places = sorted({at(value) for value in finite})  # equal ticks are drawn once
    ticks = "".join(f"M{x} {height - 9}v5" for x in places)
    line = "" if threshold is None else f'<path class="limit" d="M{at(threshold)} 0v{height}"/>'
    return Markup(
        f'<svg class="among" role="img" aria-label="{html.escape(label)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">{band}'
        f'<path class="axis" d="M0 {height - 3.5}H{width}"/><path class="tick" d="{ticks}"/>{line}'
        f'<path class="own" d="M{at(marked)} 2v{height - 5}"/></svg>'
    )


def heat_map(
    values: Sequence[Sequence[float]],
    *,
    label: str,
    rows: Sequence[str],
    totals: Sequence[str],
    columns: Sequence[str],
    titles: Sequence[str],
    gaps: Collection[int] = (),
    turned: bool = True,
) -> Markup:
    """Cells coloured by sign and size, strongest = the largest absolute value of all.

    Cells below 8% of it are left blank, so that the picture stays small and shows what matters.

    Args:
        values: [row][column], signed.
        label: text alternative of the whole chart.
        rows: name of each row, drawn on the left.
        totals: what stands on the right of each row.
        columns: name of each column, drawn below.
        titles: hover text of each column; a cell's is its row, this, and its value.
        gaps: columns that have a gap in front, since some were left out.
        turned: draw the columns' names downwards; otherwise they must be of one or two characters.
    """
    cell, left, right = 13, 34, 52
    place = [left + cell * i + 6 * sum(gap <= i for gap in gaps) for i in range(len(columns))]
    body = cell * len(rows)
    tallest = max((len(name) for name in columns), default=0)
    below = 8 + round(6.1 * tallest) if turned else 12
    width, height = (place[-1] + cell if place else left) + right, body + below
    largest = max((abs(value) for row in values for value in row), default=0.0) or 1.0
    parts = []
    for i, (name, row, total) in enumerate(zip(rows, values, totals, strict=True)):
        parts.append(
            f'<text x="0" y="{cell * i + 10}">{html.escape(name)}</text>'
            f'<text x="{width - right + 6}" y="{cell * i + 10}">{html.escape(total)}</text>'
        )
        for j, value in enumerate(row):
            size = abs(value) / largest
            if size >= 0.08:
                level = f"{'p' if value > 0 else 'n'}{math.ceil(5 * size)}"
                title = html.escape(f"{name} {titles[j]}: {signed(value)}")
                parts.append(
                    f'<rect class={level} x="{place[j]}" y="{cell * i}" width="12" height="12">'
                    f"<title>{title}</title></rect>"
                )
    end = place[-1] + cell if place else left
    frame = f'<path class="field" d="M{left - 2} -1V{body}H{end + 1}V-1z"/>'
    names = "".join(
        (
            f'<text transform="translate({x + 10} {body + 4}) rotate(90)" class="up">'
            if turned
            else f'<text x="{x + 6}" y="{body + 11}" class="below">'
        )
        + f"<title>{html.escape(title)}</title>{html.escape(name)}</text>"
        for x, name, title in zip(place, columns, titles, strict=True)
    )
    return Markup(
        f'<svg class="heat" role="img" aria-label="{html.escape(label)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">{frame}{"".join(parts)}{names}</svg>'
    )


def tiny_bar_chart(values: Sequence[float | None], labels: Sequence[str] | None = None) -> str:
    """Bar chart as a data:image/svg+xml URI of fewer than 1,000 characters.

    For Dagster metadata. Bars stand on zero, negative ones hang below it; None and NaN leave a gap.
    With more values than fit, neighbours share a bar (their mean). Where the labels do not fit,
    every second, fourth or eighth is drawn, or none.

    Args:
        values: one bar each.
        labels: one per value, drawn below the bars.

    Raises:
        ValueError: labels and values differ in number, or a value is infinite.
    """
    if labels is not None and len(labels) != len(values):
        raise ValueError(f"{len(labels)} labels for {len(values)} values; give one each or none")
    numbers = [math.nan if value is None else float(value) for value in values]
    if any(math.isinf(value) for value in numbers):
        raise ValueError("a value is infinite; a bar chart needs finite values (None for a gap)")
    for every in (1, 2, 4, 8, None) if labels else (None,):
        texts = {i: labels[i] for i in range(0, len(values), every)} if labels and every else {}
        uri = _data_uri(_tiny_svg(numbers, texts))
        if len(uri) < DATA_URI_LIMIT:
            return uri
    size = 2
    while True:
        groups = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        uri = _data_uri(_tiny_svg([_mean(group) for group in groups], {}))
        if len(uri) < DATA_URI_LIMIT:
            return uri
        size += 1


def tiny_line_chart(lines: Mapping[str, Sequence[float]]) -> str:
    """Lines in one frame from zero to the largest value, as a data URI of fewer than 1,000 bytes.

    For Dagster metadata. Each line's name stands on the right in its colour; where not all lines
    fit, the first ones are drawn.

    Args:
        lines: name -> values, one for each step; all of the same number of steps.

    Raises:
        ValueError: lines differ in length, or a value is not finite.
    """
    if len({len(values) for values in lines.values()}) > 1:
        sizes = {name: len(values) for name, values in lines.items()}
        raise ValueError(f"lines have different numbers of values: {sizes}")
    if not all(math.isfinite(value) for values in lines.values() for value in values):
        raise ValueError("a value is NaN or infinite; a line chart needs finite values")
    for n in range(min(len(lines), len(_LINE_COLOURS)), 0, -1):
        uri = _data_uri(_line_svg(dict(list(lines.items())[:n])))
        if len(uri) < DATA_URI_LIMIT:
            return uri
    return _data_uri(_line_svg({}))


# ---- private -------------------------------------------------------------------------------------


def _mean(values: Sequence[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan


def _tiny_svg(values: Sequence[float], labels: Mapping[int, str]) -> str:
    """All bars are one path of integers; blue stands on light and dark backgrounds alike."""
    step, height = 12, 60
    present = [value for value in values if not math.isnan(value)]
    top, bottom = max([0.0, *present]), min([0.0, *present])
    span = (top - bottom) or 1.0
    zero = round(height * top / span)
    path = []
    for i, value in enumerate(values):
        size = 0 if math.isnan(value) else round(height * value / span)
        if size:
            path.append(f"M{i * step} {zero}v{-size}h9v{size}")
    width = max(1, len(values)) * step
    total = height + (12 if labels else 0)
    texts = ""
    if labels:
        drawn = "".join(
            f"<tspan x='{i * step}'>{html.escape(label)}</tspan>" for i, label in labels.items()
        )
        texts = f"<text y='{total - 2}' font-size='8' fill='#888'>{drawn}</text>"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{total}'>"
        f"<path fill='#47d' d='{''.join(path)}'/><path stroke='#888' d='M0 {zero}h{width}'/>"
        f"{texts}</svg>"
    )


def _line_svg(lines: Mapping[str, Sequence[float]]) -> str:
    height, row = 60, 11
    values = [value for line in lines.values() for value in line]
    top, bottom = max([0.0, *values]), min([0.0, *values])
    span = (top - bottom) or 1.0
    steps = max((len(line) for line in lines.values()), default=0)
    width = 12 * max(1, steps - 1)
    drawn, names = "", ""
    for i, ((name, line), colour) in enumerate(zip(lines.items(), _LINE_COLOURS, strict=False)):
        points = ",".join(
            f"{12 * x},{round(height * (top - value) / span)}" for x, value in enumerate(line)
        )
        drawn += f"<polyline stroke='{colour}' points='{points}'/>"
        names += f"<tspan x='{width + 4}' y='{row * i + 8}' fill='{colour}'>"
        names += f"{html.escape(name)}</tspan>"
    zero = round(height * top / span)
    longest = max((len(name) for name in lines), default=0)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width + 6 + 6 * longest}' "
        f"height='{height + 1}' fill='none'>{drawn}<path stroke='#888' d='M0 {zero}h{width}'/>"
        f"<text font-size='9'>{names}</text></svg>"
    )


def _data_uri(svg: str) -> str:
    # Markdown ends a link target at a space, a bracket or an entity: those are encoded as well.
    return "data:image/svg+xml," + quote(svg, safe="=:/',;-.")
