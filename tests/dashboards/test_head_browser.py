"""Pages of heads in headless Chromium: nothing hostile runs, nothing overflows, the index works."""

from pathlib import Path
from typing import Any

import hostile_heads
import hostile_layer
import pytest
from hostile_heads import HEADS, SAE_LAYER
from test_head_pages import context

from mechinterp_assets.dashboards.head_site import HeadRenderer, render_heads
from mechinterp_assets.dashboards.places import head_page
from tests.chromium import driven, find_chromium

DRIVER = Path(__file__).with_name("heads_browser.cjs")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    chromium = find_chromium()
    folder = tmp_path_factory.mktemp("heads")
    sequences = hostile_layer.sequences()
    frames = hostile_heads.frames(sequences)
    render_heads(HeadRenderer(context(hostile_layer.provenance()), frames, sequences), folder)
    pages = ["index.html", *(head_page(SAE_LAYER, head) for head in range(12)), head_page(0, 0)]
    return driven(DRIVER, chromium, str(folder), ",".join(pages))


def test_no_hostile_text_runs_or_loads_anything(seen: dict[str, Any]) -> None:
    assert seen["dialogs"] == []
    assert seen["errors"] == []
    assert seen["requests"] == []


def test_no_page_is_wider_than_its_window(seen: dict[str, Any]) -> None:
    for width, found in seen["widths"].items():
        assert len(found) == 14
        assert max(found) <= int(width), (width, found)


def test_the_index_sorts_and_searches(seen: dict[str, Any]) -> None:
    up, down = (
        [float(text.replace("−", "-")) for text in seen[name]]
        for name in ("effectsUp", "effectsDown")
    )
    assert len(up) == len(HEADS)
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    # By layer and head, not as the decimal numbers that their names look like.
    assert seen["heads"] == [f"L{layer}H{head}" for layer, head in HEADS]
    assert seen["found"]
    assert all("induction" in roles for roles in seen["found"])
    assert seen["count"] == f"{len(seen['found'])} of {len(HEADS)} heads"
    assert seen["none"].startswith("0 of")
    assert seen["opened"].endswith(head_page(0, 1))
