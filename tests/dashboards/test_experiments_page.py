"""The page of experiments: pictures from SQL, hostile text, studies with little or nothing."""

import re
from pathlib import Path

import duckdb
import invented_experiments
import pytest
from hostile_layer import ATTACK
from invented_experiments import BARE, STUDY
from test_site import Page, assert_nothing_injected

from mechinterp_assets.dashboards import experiments_page
from mechinterp_assets.dashboards.experiments_page import ExperimentsPage, render_experiments
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.sql_text import quote_text


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return invented_experiments.lake(tmp_path_factory.mktemp("lake"))


def rendered(lake: Lake, study: str) -> ExperimentsPage:
    with lake.connect() as con:
        return render_experiments(
            lambda text: con.sql(text).pl(),
            provenance=invented_experiments.provenance(study),
            model="<model>",
            study_href="../odd/index.html",
        )


@pytest.fixture(scope="module")
def made(lake: Lake) -> ExperimentsPage:
    return rendered(lake, STUDY)


@pytest.fixture(scope="module")
def page(made: ExperimentsPage, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(made.html)
    return Page(path)


def block(html: str, name: str) -> str:
    found = [
        part for part in html.split('<details class="experiment"') if f"<code>{name}</code>" in part
    ]
    assert len(found) == 1, name
    return found[0]


def test_nothing_is_injected_and_nothing_requested(page: Page, made: ExperimentsPage) -> None:
    assert_nothing_injected(page)
    assert not re.search(r"url\(|@import|fetch\(|https?:", made.html)
    assert ATTACK in page.text


def test_every_kind_has_its_pictures(made: ExperimentsPage) -> None:
    pictures = {
        "noising": "Activations of another prompt, by variant",
        "splicing": "SAEs in place of z",
        "features": "Features ablated",
        "edges": "Edges ablated, boosted, and random slices",
        "together": "Edits made together against the sum of each alone",
        "other": "Effects",
    }
    for name, title in pictures.items():
        assert f"<h3>{title}</h3>" in block(made.html, name)
        assert "<svg " in block(made.html, name)
    moved = block(made.html, "fc24_magnitudes")
    assert "How far edits move the residual stream" in moved
    assert "cosine" in moved
    assert "Edges ablated" not in moved
    assert "no rows in intervention_summary" in block(made.html, "lost")
    planned = made.html.split('id="plan"')[1]
    assert "<b>interventions.published.unrun</b> <small>task" in planned
    assert "left out: nothing to run" in planned
    assert "changed: heads of a group" in planned
    assert "(2: edge 1; …)" in planned
    assert made.n_experiments == len(pictures) + 2
    assert made.n_pictures == made.html.count("<svg ")
    assert set(made.thumbnails) == set(pictures)  # the others have no bars
    assert all(uri.startswith("data:image/svg+xml,") for uri in made.thumbnails.values())


def test_pictures_show_the_rows(made: ExperimentsPage) -> None:
    noising = block(made.html, "noising")
    assert noising.count("<title>zero ablation at the role: +0.9 (0.8 to 1)</title>") == 1
    assert noising.count("<title>zero ablation at all positions: +0.2 (0.1 to 0.3)</title>") == 1
    edges = block(made.html, "edges")
    assert edges.count("<title>ablate: −0.3 (−0.4 to −0.2)</title>") == 2
    together = block(made.html, "together")
    assert "−0.7 together, −0.6 summed" in together
    # Each edge alone in the colour of edges, then the set in that of sets; two prompts each.
    members = together.split("<h3>Edges alone and together</h3>")[1]
    drawn = re.findall(r'<g class="(s\d)"><title>2 prompts: ([−+\d.]+) \(', members)
    assert drawn == [("s0", "−0.3"), ("s0", "−0.3"), ("s1", "−0.7")]
    assert (
        "2 edges together, destination, change the logit difference by −0.7, each alone by −0.3."
        in members
    )
    assert "NaN" not in made.html.split("<script>")[0]
    # One circle for the feature with a value, none for NaN.
    assert block(made.html, "features").split("</svg>")[0].count("<circle") == 2


def test_faithfulness_far_outside_is_drawn_at_the_edge_and_told(made: ExperimentsPage) -> None:
    curves = made.html.split("Faithfulness over circuit size: ioi")[1]
    assert "10 edges (0.1): 40" in curves
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', curves.split("</svg>")[0])]
    assert min(heights) >= 0


def test_pairs_of_query_and_key(made: ExperimentsPage) -> None:
    pairs = made.html.split("What the query and the key of movers meet in")[1]
    assert pairs.split("</svg>")[0].count("<rect") == 2  # the first ranks alone
    assert " x L1F0</title>" in pairs
    variance = made.html.split("Variance of attention scores explained by pairs")[1]
    assert variance.split("</svg>")[0].count("<circle") == 2
    assert "1 pairs: −7 held out" in variance


def test_sql_of_every_block_can_be_pasted(lake: Lake, page: Page) -> None:
    statements = page.inside("pre")
    assert len(statements) >= 12
    with lake.connect() as con:
        for statement in statements:
            assert "$" not in statement
            con.sql(statement).fetchall()


def test_statements_keep_hostile_names_as_text() -> None:
    filled = filled_statements("s", task="it's", experiment="$study '; DROP TABLE x; --")
    text = filled["experiment_edges"]
    assert quote_text("it's") in text
    assert quote_text("$study '; DROP TABLE x; --") in text
    assert len(duckdb.extract_statements(text)) == 1


def test_page_of_a_study_without_experiments(lake: Lake, tmp_path: Path) -> None:
    for of in (lake, Lake(tmp_path / "empty")):
        bare = rendered(of, BARE)
        assert "No published experiment has been run in this study." in bare.html
        assert (bare.n_experiments, bare.n_pictures, bare.thumbnails) == (0, 0, {})
        assert "Provenance" in bare.html


def test_long_tables_are_cut_and_say_so(
    lake: Lake, made: ExperimentsPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the SQL gives all" not in made.html
    monkeypatch.setattr(experiments_page, "MAX_TABLE_ROWS", 1)
    assert "(1 of 4 rows; the SQL gives all)" in block(rendered(lake, STUDY).html, "edges")
