"""Pages of training and of comparisons, from a lake with planted rows and hostile text."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from filled_rows import filled_rows
from hostile_layer import ATTACK

from mechinterp_assets.dashboards.live.study_pages import LiveStudyPages
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance


def write(lake: Lake, table: str, partition: str, rows: list[dict[str, Any]]) -> None:
    provenance = Provenance(study=partition.partition(".L")[0], run_id="run", code_version="0")
    lake.write(table, partition, filled_rows(table, rows), provenance)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("lake"))
    for study, layers, k in (("a", 2, 16), ("b", 1, 32)):
        write(
            made, "language_model", study, [{"weights_source": f"{study}{ATTACK}", "n_layers": 4}]
        )
        for layer in range(layers):
            site = f"{study}.L{layer:02d}"
            sae = {"layer": layer, "architecture": "topk", "d_sae": 64, "k": k, "seed": 1}
            write(made, "attention_sae", site, [sae])
            log = [
                {
                    "layer": layer,
                    "step": step,
                    "training_tokens": 100 * step,
                    "batch_explained_variance": 1 - 1 / step,
                    "l0": k - 1e-6 * (step % 2),
                    "training_loss": math.nan if step == 3 else 9.0 / step,
                }
                for step in range(1, 200)
            ]
            write(made, "sae_training_log", site, log)
    pair = {
        "layer": 0,
        "other_study": "b",
        "other_layer": 0,
        "other_sae": "0123456789abcdef",
        "compared": "study",
        "space": "z",
        "matching_method": "hungarian",
    }
    matched = [
        {**pair, "feature": f, "matched_feature": 63 - f, "matched_cosine": f / 64, "n_active": 5}
        for f in range(64)
    ]
    write(made, "sae_matching", "a.L00", matched)
    return made


def test_training_draws_a_line_per_layer_thinned_and_without_nan(lake: Lake) -> None:
    page = LiveStudyPages(lake).training("a")
    assert page is not None
    assert ATTACK not in page
    pictures = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert len(pictures) == 4
    for picture in pictures:
        assert picture.count('class="line"') == 2
        assert picture.count("<circle") <= 2 * 60
        assert "nan" not in picture
    # The mean L0 of a TopK SAE is its k; what arithmetic leaves is not drawn as a fall.
    heights = set(re.findall(r'cy="([\d.]+)"', pictures[1]))
    assert len(heights) == 1
    assert "19,900" in page
    assert LiveStudyPages(lake).training("nobody") is None


def test_two_studies_are_put_side_by_side(lake: Lake) -> None:
    page = LiveStudyPages(lake).comparison("a", "b")
    assert page is not None
    assert "<title>a beside b</title>" in page
    assert ATTACK not in page
    assert "weights source" in page  # differs
    saes = page.split("SAEs by layer")[1]
    assert '<a href="../../../compare/a.L00/b.L00/">0</a>' in saes
    assert 'href="../../../compare/b/a/"' in page
    assert LiveStudyPages(lake).comparison("a", "nobody") is None
    assert LiveStudyPages(lake).comparison("a", "b.L00") is None


def test_two_saes_are_put_side_by_side(lake: Lake) -> None:
    page = LiveStudyPages(lake).comparison("a.L00", "b.L00")
    assert page is not None
    differs, same = page.split("columns in which they are the same")
    row = re.search(r'data-term="attention_sae.k">k</th>(.*?)</tr>', differs, re.DOTALL)
    assert row is not None
    assert re.findall(r"<td[^>]*>([^<]*)</td>", row[1]) == ["16", "32", "+16"]
    assert 'data-term="attention_sae.d_sae"' in same
    # The least alike first, each linked in its own SAE.
    first = page.split("the least alike first")[1].split("<tbody>")[1].split("</tr>")[0]
    assert 'href="../../../a.L00/features/0.html">0<' in first
    assert 'href="../../../b.L00/features/63.html">63<' in first
    assert page.count('class="line"') == 8


def test_the_list_names_what_can_be_compared(lake: Lake, tmp_path: Path) -> None:
    page = LiveStudyPages(lake).comparisons()
    assert page is not None
    assert page.count("<option>a</option>") == 2  # either side
    assert 'href="a.L00/b.L00/"' in page
    assert LiveStudyPages(Lake(tmp_path)).comparisons() is None
    assert LiveStudyPages(lake).folders("a") == {"a.training"}
    assert LiveStudyPages(lake).folders("nobody") == set()
