"""Pages in headless Chromium: nothing hostile runs, nothing overflows, scripts do their work.

Needs Chromium, node and the node package playwright-core (in a folder named by NODE_PATH).
"""

from pathlib import Path
from typing import Any

import hostile_layer
import polars as pl
import pytest
from hostile_layer import LAYER, TOKENS

from mechinterp_assets.dashboards.context import LayerContext
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.dashboards.site import render_layer, render_study
from mechinterp_assets.dashboards.tokens import TokenTexts
from tests.chromium import driven, find_chromium

DRIVER = Path(__file__).with_name("browser.cjs")
FOLDER = f"L{LAYER:02d}"


@pytest.fixture(scope="module")
def frames() -> LayerFrames:
    return hostile_layer.frames(hostile_layer.sequences())


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, frames: LayerFrames) -> dict[str, Any]:
    chromium = find_chromium()
    site = tmp_path_factory.mktemp("site")
    provenance = hostile_layer.provenance()
    context = LayerContext(LAYER, "<model>", provenance, TokenTexts(TOKENS))
    render_layer(frames, site / FOLDER, context, sequences=hostile_layer.sequences())
    layers = pl.concat(
        [frames.statistics.with_columns(layer=pl.lit(n, pl.Int32)) for n in (LAYER, LAYER + 1)]
    )
    render_study(site, model="m", provenance=provenance, statistics=layers)
    pages = sorted(int(path.stem) for path in (site / FOLDER / "features").iterdir())
    return driven(DRIVER, chromium, str(site), FOLDER, ",".join(map(str, pages)))


def test_no_hostile_text_runs_or_loads_anything(seen: dict[str, Any]) -> None:
    assert seen["dialogs"] == []
    assert seen["errors"] == []
    assert seen["requests"] == []


def test_no_page_is_wider_than_its_window(seen: dict[str, Any]) -> None:
    for width, found in seen["widths"].items():
        assert len(found) == 15
        assert max(found) <= int(width), (width, found)


def test_the_index_sorts_and_searches(seen: dict[str, Any], frames: LayerFrames) -> None:
    active = frames.statistics.filter(pl.col("n_active") > 0)
    assert seen["all"] == f"{len(active)} of {len(frames.statistics)} features"
    assert seen["withSilent"] == f"{len(frames.statistics)} of {len(frames.statistics)} features"
    densities = [float(text) for text in seen["densities"]]
    assert densities == sorted(densities, reverse=True)
    assert sorted(seen["byDensity"]) == sorted(str(f) for f in active["feature"])
    assert [float(x) for x in densities] == [
        pytest.approx(
            frames.statistics.filter(pl.col("feature") == int(f))["density"].item(), rel=6e-3
        )
        for f in seen["byDensity"]
    ]
    assert seen["byDensityUp"][0] == seen["byDensity"][-1]
    assert 0 < len(seen["found"]) < len(active)
    assert seen["none"].startswith("0 of")
    assert seen["opened"].endswith(f"/features/{seen['byDensityUp'][0]}.html")


def test_colours_copies_and_links_of_a_feature_page(seen: dict[str, Any]) -> None:
    assert seen["both"] != "none"
    assert seen["activationOnly"] == "none"
    assert seen["selected"].split() == seen["sql"].split()
    assert seen["head"].endswith(f"/{FOLDER}/index.html#head-0")
    assert seen["target"] == "head-0"


def test_the_study_sorts_its_layers_and_leads_to_a_feature(seen: dict[str, Any]) -> None:
    assert seen["layers"] == [f"Layer {LAYER + 1}", f"Layer {LAYER}"]
    assert seen["refused"].startswith("Give a layer")
