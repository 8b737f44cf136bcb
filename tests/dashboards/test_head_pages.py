"""Pages of heads: what they show, that nothing on them is injected, that links and SQL work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from html import escape, unescape
from pathlib import Path

import duckdb
import hostile_heads
import hostile_layer
import polars as pl
import pytest
from hostile_heads import HEADS, SAE_LAYER
from hostile_layer import ATTACK, TOKENS
from test_site import Page, assert_nothing_injected

from mechinterp_assets.dashboards.attention_text import attention_in_words, attention_text
from mechinterp_assets.dashboards.charts import number, place_among
from mechinterp_assets.dashboards.head_frames import HeadFrames
from mechinterp_assets.dashboards.head_site import HeadContext, HeadRenderer, render_heads
from mechinterp_assets.dashboards.places import head_page
from mechinterp_assets.dashboards.tokens import TokenTexts, token_label
from mechinterp_assets.storage.declarations import SQL_FOLDER, table_spec
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.table_spec import plain_table

LINKED = 12  # features below this have a page


def context(provenance: Provenance) -> HeadContext:
    return HeadContext(
        model="<model>",
        provenance=provenance,
        texts=TokenTexts(TOKENS),
        feature_link=lambda layer, f: f"../L{layer:02d}/{f}.html" if f < LINKED else None,
        layer_hrefs={SAE_LAYER: "../layer.html"},
        study_href="../index.html",
    )


@pytest.fixture(scope="module")
def frames() -> HeadFrames:
    return hostile_heads.frames(hostile_layer.sequences())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, frames: HeadFrames) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    renderer = HeadRenderer(context(hostile_layer.provenance()), frames, hostile_layer.sequences())
    rendered = render_heads(renderer, folder)
    written = list(folder.glob("*.html"))
    assert rendered.n_pages == len(written) == len(HEADS) + 1
    assert rendered.bytes == sum(path.stat().st_size for path in written)
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    shown = ["index.html", *(head_page(SAE_LAYER, h) for h in range(3)), head_page(11, 11)]
    return {name: Page(site / name) for name in shown}


FIRST = head_page(SAE_LAYER, 0)


def test_no_page_contains_anything_but_its_own_markup(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert_nothing_injected(page)
        assert not re.search(r"url\(|@import|fetch\(|https?:", page.path.read_text())
    assert ATTACK in pages[FIRST].text  # escaped, so it can be read
    assert ATTACK in pages["index.html"].text


def test_links_lead_to_pages_and_tables_have_headers(site: Path, pages: dict[str, Page]) -> None:
    for page in pages.values():
        for href in page.hrefs():
            if not href.startswith(("../", "#")):
                assert (site / href).is_file(), href
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids))
        for tag, attributes in page.elements:
            if label := attributes.get("aria-labelledby"):
                assert label in ids
            if tag == "svg":
                assert attributes["role"] == "img"
                assert attributes["aria-label"]
        tables = sum(tag == "table" for tag, _ in page.elements)
        assert sum(tag == "thead" for tag, _ in page.elements) == tables
    hrefs = pages["index.html"].hrefs()
    assert [h for h in hrefs if h.startswith("L")] == [head_page(*at) for at in HEADS]
    steps = {a["rel"]: a["href"] for _, a in pages[FIRST].elements if "rel" in a}
    assert steps == {"prev": head_page(SAE_LAYER - 1, 11), "next": head_page(SAE_LAYER, 1)}
    assert "next" not in {a.get("rel") for _, a in pages[head_page(11, 11)].elements}


def test_scores_have_null_threshold_and_a_place_among_all_heads(
    pages: dict[str, Page], frames: HeadFrames
) -> None:
    block = pages[FIRST].path.read_text().split('<h2 id="scores">')[1].split("</section>")[0]
    rows = frames.scores.filter((pl.col("layer") == SAE_LAYER) & (pl.col("head") == 0))
    for row in rows.iter_rows(named=True):
        cells = f"<td>{number(row['value'])}</td><td>0.01 ± 0.02</td>"
        limit = "" if row["threshold"] is None else "0.5"
        assert f"{cells}<td>{limit}</td>" in block
        assert (f"<b>{escape(row['score'])}</b>" in block) == row["passes"]
    roles = re.findall(r'<b class="tag">(.*?)</b>', pages[FIRST].path.read_text())
    assert sorted(map(unescape, roles)) == sorted(rows.filter("passes")["score"].to_list())


def test_the_strip_marks_the_value_the_chance_and_the_threshold() -> None:
    strip = place_among([0.0, 1.0, 2.0], 2.0, label="a", null=(0.5, 0.1), threshold=1.0, width=104)
    assert 'class="own" d="M102' in strip
    assert 'class="limit" d="M52' in strip
    assert re.search(r'class="band" d="M12\.0 0V18H42V', strip)
    assert strip.count("v5") == 3
    assert "M2.0 0" not in place_among([], 0.0, label="a")  # nothing but the mark


def test_examples_box_the_destination_and_shade_by_attention() -> None:
    texts = TokenTexts([f" w{i}" for i in range(60)])
    ids = hostile_layer.np.arange(50)
    attention = [0.0] * 41
    attention[2], attention[35], attention[40], attention[0] = 0.5, 0.3, 0.005, 0.195
    text = attention_text(ids, 40, attention, texts)
    marks = dict(re.findall(r'title="(\d+)(?:: [^"]*)?">(w\d+)<', text))
    assert marks == {"0": "w0", "2": "w2", "35": "w35", "40": "w40"}
    assert '<b class=a5 title="2: 0.5">w2</b>' in text
    assert '<b class=d title="40">w40</b>' in text
    assert "w19" not in text  # between the far source and the window
    assert "w45" not in text
    words = attention_in_words(ids, 40, attention, texts)
    assert re.sub("<.*?>", "", words) == "␣w40 attends to ␣w2 38 back (0.5), ␣w35 5 back (0.3)"
    rest = re.sub("<.*?>", "", attention_in_words(ids, 1, [1.0, 0.0], texts))
    assert rest == "␣w1 attends to ␣w0 position 0 (1)"


def test_features_are_linked_where_they_have_a_page(
    pages: dict[str, Page], frames: HeadFrames
) -> None:
    assert frames.features is not None
    page = pages[FIRST]
    rows = frames.features.filter(pl.col("head") == 0)
    for row in rows.iter_rows(named=True):
        linked = row["feature"] < LINKED and row["is_alive"]
        assert (f"../L{SAE_LAYER:02d}/{row['feature']}.html" in page.hrefs()) == linked
        for token in row["frequent_tokens"]:
            assert token_label(token) in page.text
    assert page.text.count("never fired") == 1
    block = page.path.read_text().split('<h2 id="proxy">')[1].split("</section>")[0]
    assert block.count("<td>3 of 9</td><td>8.5 ± 0.5</td>") == 3
    assert "../layer.html" in page.hrefs()
    assert "polysemantic" in page.text


def test_edges_go_both_ways_and_the_rest_is_folded(
    pages: dict[str, Page], frames: HeadFrames
) -> None:
    assert frames.edges is not None
    block = pages[FIRST].path.read_text().split('<h2 id="edges">')[1].split("</section>")[0]
    own = frames.edges.filter(pl.col("downstream_head") == 0)
    assert block.count('<tr><th scope="row">') == own.height
    assert f"{own.height - 12} more" in block
    assert "Writes to: no head" in block
    assert "END → IO in 7 prompts of ioi" in re.sub("<.*?>", "", block)
    # How much of what is read heads wrote at all: of each pair, and on each edge.
    assert "(attention 0.5, heads wrote 0.62, of the source 0.18)" in block
    assert block.count("<td>0.345</td>") == own["mean_head_share"].is_not_null().sum()
    writer = HeadRenderer(context(hostile_layer.provenance()), frames, hostile_layer.sequences())
    text = writer.page(0, 0)
    assert text is not None
    assert f'href="{head_page(SAE_LAYER, 0)}"' in text.split("Writes to")[1]


def test_effects_that_exclude_zero_are_bold(pages: dict[str, Page], frames: HeadFrames) -> None:
    assert frames.effects is not None
    block = pages[FIRST].path.read_text().split('<h2 id="effects">')[1].split("</section>")[0]
    rows = frames.effects.filter((pl.col("layer") == SAE_LAYER) & (pl.col("head") == 0))
    bold = rows.filter(pl.col("ci_low") * pl.col("ci_high") > 0).height
    assert block.count("<td><b>") == bold
    assert block.count('<th scope="row">') == rows.height == 4
    tasks = pages[FIRST].path.read_text().split('<h2 id="tasks">')[1].split("</section>")[0]
    assert 'mean leave one out ablation</th><th scope="col">zero ablation' in tasks
    assert tasks.count("+0.25") == 3
    assert tasks.count("<b>+0.25</b>") == 2
    assert tasks.count(">–<") == 1  # one task was not ablated by the mean
    assert tasks.count("reference: own cell") == 1
    assert block.count("reference: counterfactual cell") == 2


def test_pages_without_optional_frames_leave_their_blocks_out(frames: HeadFrames) -> None:
    optional = [f.name for f in fields(HeadFrames) if f.default is None]
    assert len(optional) == 10
    bare = HeadFrames(**{**vars(frames), **dict.fromkeys(optional)})
    empty = pl.DataFrame(schema={"sequence": pl.Int64, "token_ids": pl.List(pl.Int32)})
    renderer = HeadRenderer(context(hostile_layer.provenance()), bare, empty)
    page = renderer.page(SAE_LAYER, 0)
    assert page is not None
    for words in ("Attention examples", "Features", "Traced circuit", "ablated", "Kinds"):
        assert words not in page
    assert "Scores" in page
    assert "zero ablation" not in renderer.index()


def test_an_unknown_head_has_no_page_and_missing_columns_are_refused(frames: HeadFrames) -> None:
    renderer = HeadRenderer(context(hostile_layer.provenance()), frames, hostile_layer.sequences())
    assert renderer.page(12, 0) is None
    assert renderer.page(0, 12) is None
    with pytest.raises(ValueError, match=r"frame scores lacks \['null_sd'\]"):
        HeadFrames(scores=frames.scores.drop("null_sd"))
    with pytest.raises(ValueError, match="sequences of examples have no token ids"):
        HeadRenderer(context(hostile_layer.provenance()), frames, hostile_layer.sequences().head(2))


# ---- SQL -----------------------------------------------------------------------------------------


TABLES = {
    "examples": "head_attention_examples",
    "features": "head_features",
    "proxy": "head_polysemanticity_proxy",
    "labels": "head_labels",
    "edges": "trace_graph",
    "nodes": "trace_nodes",
    "effects": "intervention_summary",
    "task_effects": "task_head_effects",
}


@pytest.fixture(scope="module")
def database(frames: HeadFrames) -> Iterator[duckdb.DuckDBPyConnection]:
    stored = {table: getattr(frames, name) for name, table in TABLES.items()}
    stored["head_scores"] = frames.scores.drop("passes")
    stored["ioi_head_scores"] = frames.scores.drop("passes").clear()
    with duckdb.connect() as con:
        for name, frame in stored.items():
            con.execute(plain_table(table_spec(name)))
            con.register("rows", frame.with_columns(study=pl.lit(hostile_layer.provenance().study)))
            con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM rows")
            for column in ("run_id", "code_version", "model_version", "corpus_version"):
                con.execute(f"ALTER TABLE {name} ADD COLUMN {column} VARCHAR")
            con.execute(f"ALTER TABLE {name} ADD COLUMN formula_version INTEGER")
        for view in ("head_score_tests", "head_role_conditions", "head_roles"):
            con.execute((SQL_FOLDER / "views" / f"{view}.sql").read_text())
        yield con


def test_the_sql_on_every_page_runs(
    pages: dict[str, Page], database: duckdb.DuckDBPyConnection, frames: HeadFrames
) -> None:
    counts = {}
    for name in ("index.html", FIRST):
        statements = pages[name].inside("pre")
        assert len(statements) == (3 if name == "index.html" else 11)
        for statement in statements:
            assert "$" not in statement
            counts[name, statement.split("FROM ")[1].split("\n")[0]] = (
                database.sql(statement).pl().height
            )
    assert all(counts.values()), counts
    assert counts[FIRST, "head_features"] == pages[FIRST].path.read_text().count("data-feature") + (
        frames.features.filter(
            (pl.col("head") == 0) & ((pl.col("feature") >= LINKED) | ~pl.col("is_alive"))
        ).height
        if frames.features is not None
        else 0
    )
    assert counts["index.html", "head_score_tests"] == 2 * len(HEADS)
