"""The page of a sweep: every point where it belongs, nothing hostile, a thumbnail that fits."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from mechinterp_assets.dashboards import frontier as frontier_page
from mechinterp_assets.dashboards.charts import DATA_URI_LIMIT
from mechinterp_assets.dashboards.frontier import (
    colour_of,
    frontier_figure,
    frontier_thumbnail,
    render_frontier,
)
from mechinterp_assets.sae.sweep import FRONTIER_SCHEMA
from mechinterp_assets.sae.traits import architecture_names
from mechinterp_assets.storage.provenance import Provenance

NAMESPACE = {"svg": "http://www.w3.org/2000/svg"}


def _frontier(points: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows of sae_frontier with the given values, others plausible."""
    common = dict.fromkeys(FRONTIER_SCHEMA, 0.5) | {
        "layer": 0,
        "sparsity_setting": "k",
        "d_sae": 64,
        "n_tokens": 1000,
        "training_tokens": 20_000,
        "seed": 0,
    }
    rows = [{**common, "sae_variant": f"variant {i}", **point} for i, point in enumerate(points)]
    return pl.DataFrame(rows, schema=FRONTIER_SCHEMA)


@pytest.fixture
def frontier() -> pl.DataFrame:
    """Two layers, three architectures; one point without CE recovered, one far below."""
    return _frontier(
        [
            {"layer": layer, "architecture": name, "l0": l0, "ce_recovered": ce}
            for layer in (0, 3)
            for name, l0, ce in (
                ("topk", 4, 0.7),
                ("topk", 16, 0.9),
                ("standard", 8, 0.75),
                ("standard", 30, 0.97),
                ("jumprelu", 10, None),
                ("jumprelu", 12, -0.4),
            )
        ]
    )


def test_every_architecture_has_a_colour() -> None:
    names = architecture_names()
    colours = {colour_of(name) for name in names}
    assert len(colours) == len(names)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_architectures_beyond_the_palette_have_colours_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"architecture {i:02d}" for i in range(16)]
    monkeypatch.setattr(frontier_page, "architecture_names", lambda: names)
    assert len({colour_of(name) for name in names}) == len(names)


def test_points_lie_where_their_numbers_say(frontier: pl.DataFrame) -> None:
    svg = ElementTree.fromstring(str(frontier_figure(frontier)))
    panels = svg.findall("svg:g", NAMESPACE)
    assert len(panels) == 2
    for panel in panels:
        circles = panel.findall("svg:circle", NAMESPACE)
        assert len(circles) == 5  # the NULL is left out
        places = {}
        for circle in circles:
            title = circle.find("svg:title", NAMESPACE)
            assert title is not None
            l0, ce = re.search(r"L0 (\S+), CE recovered (\S+)", str(title.text)).groups()
            places[float(l0), float(ce)] = (
                float(circle.attrib["cx"]),
                float(circle.attrib["cy"]),
                circle.attrib["fill"],
            )
        by_l0 = [places[key][0] for key in sorted(places)]
        assert by_l0 == sorted(by_l0)
        by_ce = [places[key][1] for key in sorted(places, key=lambda key: key[1])]
        assert by_ce == sorted(by_ce, reverse=True)
        # a logarithmic axis: equal ratios, equal distances
        assert places[16, 0.9][0] - places[4, 0.7][0] == pytest.approx(
            2 * (places[8, 0.75][0] - places[4, 0.7][0]), abs=0.3
        )
        assert places[12, -0.4][2] == "none"
        assert places[16, 0.9][2] == colour_of("topk")


def test_the_thumbnail_fits_dagster(frontier: pl.DataFrame) -> None:
    many = _frontier(
        [
            {"architecture": name, "l0": 1.3**i + j, "ce_recovered": i / 20}
            for j, name in enumerate(architecture_names())
            for i in range(20)
        ]
    )
    for frame in (frontier.filter(pl.col("layer") == 0), many, many.head(1)):
        uri = frontier_thumbnail(frame)
        assert uri.startswith("data:image/svg+xml,")
        assert len(uri) < DATA_URI_LIMIT
        assert uri.count("polyline") == frame["architecture"].n_unique()


def test_the_page_is_self_contained_and_escaped(frontier: pl.DataFrame, tmp_path: Path) -> None:
    hostile = frontier.with_columns(sae_variant=pl.lit("<script>alert(1)</script>"))
    path = render_frontier(
        tmp_path,
        hostile,
        model="m",
        provenance=Provenance(study="s", run_id="r", code_version="c"),
    )
    page = path.read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    assert page.count("<tr>") == 1 + len(frontier)
    assert "FROM sae_frontier" in page
    assert "20,000" in page
