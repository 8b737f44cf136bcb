"""The static site: what pages show, that nothing on them is injected, that links and SQL work."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import hostile_layer
import polars as pl
import pytest
from hostile_layer import ATTACK, HOSTILE, LAYER, N_HEADS, TOKENS

from mechinterp_assets.dashboards.charts import number
from mechinterp_assets.dashboards.context import LayerContext
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.dashboards.rendering import TEMPLATES
from mechinterp_assets.dashboards.site import render_layer, render_study
from mechinterp_assets.dashboards.tokens import TokenTexts, token_label
from mechinterp_assets.storage.declarations import SQL_FOLDER, table_spec
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.table_spec import plain_table, polars_schema

VOID = {"meta", "input", "br", "img", "link"}
TAG_NAMES = """
html head meta title style body a header nav ol li main h1 h2 small dl dt dd div section p b bdi
fieldset legend label input u i sub ul text table caption thead tbody tr th td figure figcaption
details summary pre span form output button noscript script svg rect path
h3 g circle code
"""
ATTRIBUTE_NAMES = """
lang charset name content http-equiv class href id aria-label aria-current aria-labelledby aria-live
title dir type value checked style scope role tabindex rel placeholder autocomplete spellcheck
data-key viewbox width height x y d data-pages data-feature data-layer data-order aria-sort open
transform cx cy r aria-hidden data-glossary data-term data-rows data-served
"""
TAGS = set(TAG_NAMES.split())
ATTRIBUTES = set(ATTRIBUTE_NAMES.split())


class Page(HTMLParser):
    """Elements of a page; unclosed or crossing elements are errors."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.path = path
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.comments: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def inside(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]

    @property
    def text(self) -> str:
        return "".join(text for where, text in self.texts if where not in ("script", "style"))

    def hrefs(self) -> list[str]:
        """Addresses of links, without those that scripts take out of pages that are no server's."""
        links = [a for tag, a in self.elements if tag == "a" and "data-served" not in a]
        return [a["href"] or "" for a in links if "href" in a]


def assert_nothing_injected(page: Page) -> None:
    assert {tag for tag, _ in page.elements} <= TAGS
    assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
    assert page.comments == []
    scripts = page.inside("script")
    files = [
        "\n".join((TEMPLATES / name).read_text().strip() for name in names)
        for names in (
            ("copy.js", "marks.js"),
            *(
                ("copy.js", "marks.js", "tables.js", f"{page}.js")
                for page in ("experiments", "heads")
            ),
            *(("copy.js", "marks.js", f"{page}.js") for page in ("feature", "layer", "study")),
        )
    ]
    for script in scripts:
        assert script in files or json.loads(script)
    for tag, attributes in page.elements:
        if tag == "rect" and "class" in attributes:
            assert re.fullmatch(r"[pn][1-5]|field|s[01]", attributes["class"] or "")
        if tag == "script":
            assert set(attributes) <= {"type", "id"}
        if "style" in attributes:
            assert re.fullmatch(r"width:\d+px", attributes["style"] or "")
        if tag == "a" and "href" in attributes:
            assert re.fullmatch(r"#[\w-]+|[\w./-]*\.html(#head-\d+)?", attributes["href"] or "")


def context(provenance: Provenance) -> LayerContext:
    return LayerContext(
        layer=LAYER,
        model="<model>",
        provenance=provenance,
        texts=TokenTexts(TOKENS),
        details={"architecture": "standard <b>"},
    )


@pytest.fixture(scope="module")
def provenance() -> Provenance:
    return hostile_layer.provenance()


@pytest.fixture(scope="module")
def sequences() -> pl.DataFrame:
    return hostile_layer.sequences()


@pytest.fixture(scope="module")
def frames(sequences: pl.DataFrame) -> LayerFrames:
    return hostile_layer.frames(sequences)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    frames: LayerFrames,
    sequences: pl.DataFrame,
    provenance: Provenance,
) -> Path:
    root = tmp_path_factory.mktemp("dashboards")
    rendered = render_layer(
        frames,
        root / f"L{LAYER:02d}",
        context(provenance),
        sequences=sequences,
        evaluation={"l0": 3.25, "ce_recovered": 0.5, "unknown": 1},
    )
    layers = frames.statistics.with_columns(layer=pl.lit(LAYER, pl.Int32))
    render_study(
        root,
        model="<model>",
        provenance=provenance,
        statistics=layers,
        evaluation=pl.DataFrame({"layer": [LAYER], "l0": [3.25]}),
        description="<script>alert(8)</script>",
    )
    written = list((root / f"L{LAYER:02d}").rglob("*.html"))
    assert rendered.n_pages == len(written)
    assert rendered.bytes == sum(path.stat().st_size for path in written)
    assert rendered.n_features == rendered.n_pages - 1
    return root


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {str(p.relative_to(site)): Page(p) for p in sorted(site.rglob("*.html"))}


def feature_page(pages: dict[str, Page], feature: int) -> Page:
    return pages[f"L{LAYER:02d}/features/{feature}.html"]


# ---- safety --------------------------------------------------------------------------------------


def test_no_page_contains_anything_but_its_own_markup(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert_nothing_injected(page)


@pytest.mark.parametrize("token", [token for token in HOSTILE[:6] if not token.startswith("'")])
def test_the_check_notices_markup(tmp_path: Path, token: str) -> None:
    """The check itself is tested: the same tokens unescaped do not pass it."""
    path = tmp_path / "page.html"
    path.write_text(f'<html><body><b title="{token}">{token}</b></body></html>')
    with pytest.raises((AssertionError, json.JSONDecodeError)):
        assert_nothing_injected(Page(path))


def test_hostile_tokens_are_readable(pages: dict[str, Page]) -> None:
    shown = "".join(page.text for page in pages.values())
    for token in HOSTILE:
        assert token_label(token) in shown, token


def test_the_policy_allows_exactly_the_script_of_the_page(pages: dict[str, Page]) -> None:
    for page in pages.values():
        policy = next(
            a["content"] or ""
            for tag, a in page.elements
            if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
        code = [s for s in page.inside("script") if not s.startswith("{")]
        hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in code]
        assert re.findall(r"sha256-([^']+)", policy) == hashes
        assert "http" not in policy


def test_pages_load_nothing(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert not {"img", "link", "iframe"} & {tag for tag, _ in page.elements}
        assert not re.search(r"url\(|@import|fetch\(", page.path.read_text())


# ---- structure -----------------------------------------------------------------------------------


def test_links_lead_to_pages_and_ids_are_unique(site: Path, pages: dict[str, Page]) -> None:
    for page in pages.values():
        for href in page.hrefs():
            file, _, anchor = href.partition("#")
            target = (page.path.parent / file).resolve() if file else page.path
            assert target.is_file(), (page.path, href)
            if anchor:
                assert f'id="{anchor}"' in target.read_text(), (page.path, href)
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids))
        for _, attributes in page.elements:
            if label := attributes.get("aria-labelledby"):
                assert label in ids


def test_features_are_chained_in_order(pages: dict[str, Page], frames: LayerFrames) -> None:
    fired = frames.statistics.filter(pl.col("n_active") > 0)["feature"].to_list()
    at, seen = fired[0], [fired[0]]
    while True:
        following = [
            a["href"] for _, a in feature_page(pages, at).elements if a.get("rel") == "next"
        ]
        if not following:
            break
        at = int((following[0] or "").removesuffix(".html"))
        seen.append(at)
    assert seen == fired
    assert 5 not in seen


def test_tables_have_headers_and_charts_have_words(pages: dict[str, Page]) -> None:
    for page in pages.values():
        for tag, attributes in page.elements:
            if tag == "svg":
                assert attributes["role"] == "img"
                assert attributes["aria-label"]
        tables = sum(tag == "table" for tag, _ in page.elements)
        assert sum(tag == "thead" for tag, _ in page.elements) == tables


# ---- content -------------------------------------------------------------------------------------


def test_examples_show_activation_and_attribution_at_the_right_tokens(
    pages: dict[str, Page], frames: LayerFrames, sequences: pl.DataFrame
) -> None:
    ids = dict(sequences.iter_rows())
    for feature in (0, 6):
        marked = re.findall(
            r'<b class=("[^"]*"|\w+) title="(\d+)(?:: ([^"]*))?">(.*?)</b>',
            feature_page(pages, feature).path.read_text().split('<ol class="examples">')[1],
        )
        examples = frames.top_examples.filter(pl.col("feature") == feature).sort("rank")
        boxes = [mark for mark in marked if re.search(r"\bd\b", mark[0])][: len(examples)]
        for row, (classes, position, title, text) in zip(
            examples.iter_rows(named=True), boxes, strict=True
        ):
            assert int(position) == row["position"]
            assert re.search(r"\ba[1-9]\b", classes)
            assert float(title.split(",")[0]) == pytest.approx(row["activation"], rel=5e-3)
            token = TOKENS[ids[row["sequence"]][row["position"]]]
            visible = html.unescape(re.sub(r"</?bdi>", "", text))
            assert visible.removeprefix("␣") == token_label(token).removeprefix("␣")


def test_strong_sources_are_marked_with_their_sign(
    pages: dict[str, Page], frames: LayerFrames
) -> None:
    row = frames.dfa.filter(pl.col("feature") == 0, pl.col("rank") == 0).row(0, named=True)
    dfa = row["dfa_by_source"]
    strongest = max(range(len(dfa)), key=lambda s: abs(dfa[s]))
    after = feature_page(pages, 0).path.read_text().split('<ol class="examples">')[1]
    first = after.split("</li>")[0]
    found = re.findall(r'class=(?:"([^"]*)"|(\w+)) title="(\d+): ([^"]*)"', first)
    marks = {int(p): (a or b, title) for a, b, p, title in found}
    classes, title = marks[strongest]
    assert ("p5" if dfa[strongest] > 0 else "n5") in classes
    value = float(title.split("DFA ")[1].replace("−", "-"))
    assert value == pytest.approx(dfa[strongest], rel=5e-3)
    for position, (classes, _) in marks.items():
        if found_sign := re.search(r"\b([pn])[1-5]\b", classes):
            assert (found_sign[1] == "p") == (dfa[position] > 0)


def test_a_dead_decoder_row_says_so(pages: dict[str, Page]) -> None:
    assert "The decoder row is zero." in feature_page(pages, 3).text
    assert "The decoder row is zero." not in feature_page(pages, 0).text


def test_a_feature_that_never_fired_can_have_a_page(
    tmp_path: Path, frames: LayerFrames, sequences: pl.DataFrame, provenance: Provenance
) -> None:
    rendered = render_layer(
        frames,
        tmp_path / "out",
        context(provenance),
        sequences=sequences,
        features=[5],
    )
    page = Page(tmp_path / "out" / "features" / "5.html")
    assert rendered.n_features == 1
    assert "never fired" in page.text
    assert_nothing_injected(page)


def test_pages_without_attribution_leave_it_out(
    tmp_path: Path, frames: LayerFrames, sequences: pl.DataFrame, provenance: Provenance
) -> None:
    bare = LayerFrames(**{**vars(frames), "dfa": frames.dfa.clear()})
    render_layer(
        bare,
        tmp_path,
        context(provenance),
        sequences=sequences,
        features=[0],
    )
    page = Page(tmp_path / "features" / "0.html")
    assert "reads through" not in page.text
    assert "Source distance" not in page.text


def test_pages_without_optional_frames_leave_their_blocks_out(
    tmp_path: Path, frames: LayerFrames, sequences: pl.DataFrame, provenance: Provenance
) -> None:
    optional = [f.name for f in fields(LayerFrames) if f.default is None]
    assert len(optional) >= 10
    bare = LayerFrames(**{**vars(frames), **dict.fromkeys(optional)})
    render_layer(bare, tmp_path, context(provenance), sequences=sequences, features=[0])
    page, index = Page(tmp_path / "features" / "0.html"), Page(tmp_path / "index.html")
    for words in (
        "Meaning",
        "N-grams",
        "Neighbours",
        "DFA by head and source",
        "IOI",
    ):
        assert words not in page.text
    assert "roles" not in index.text
    assert "the strongest, then others drawn at random" in page.text
    assert_nothing_injected(page)
    assert_nothing_injected(index)


def test_the_matrix_is_drawn_with_its_sums(pages: dict[str, Page], frames: LayerFrames) -> None:
    text = feature_page(pages, 6).path.read_text()
    assert frames.dfa_matrix is not None
    pictures = re.findall(r'<svg class="heat".*?</svg>', text, flags=re.DOTALL)
    assert len(pictures) == 2
    for rank, picture in enumerate(pictures):
        rows = frames.dfa_matrix.filter(pl.col("feature") == 6, pl.col("rank") == rank)
        matrix = rows.sort("head")["dfa_by_source"].to_list()
        cells = re.findall(r"<rect class=([pn])(\d).*?<title>(.*?)</title>", picture)
        largest = max(abs(value) for row in matrix for value in row)
        drawn = sum(abs(value) >= 0.08 * largest for row in matrix for value in row)
        assert len(cells) == drawn
        for sign, level, title in cells:
            head, position, value = re.fullmatch(
                rf"L{LAYER}H(\d+) reads .* at (\d+), (?:\d+ back|itself): (\S+)",
                html.unescape(title),
                flags=re.DOTALL,
            ).groups()
            expected = matrix[int(head)][int(position)]
            assert float(value.replace("−", "-")) == pytest.approx(expected, rel=6e-3)
            assert (sign == "p") == (expected > 0)
            assert int(level) == math.ceil(5 * abs(expected) / largest)
        totals = re.findall(r'<text x="[1-9]\d*" y="\d+">(.*?)</text>', picture)
        found = [float(total.replace("−", "-")) for total in totals]
        assert found == pytest.approx([sum(row) for row in matrix], rel=6e-3)


def test_neighbours_are_linked_where_they_have_a_page(
    pages: dict[str, Page], frames: LayerFrames
) -> None:
    assert frames.neighbours is not None
    hrefs = feature_page(pages, 0).hrefs()
    wanted = frames.neighbours.filter(pl.col("feature") == 0)["neighbour"].to_list()
    assert 5 in wanted  # it never fired
    for neighbour in wanted:
        assert (f"{neighbour}.html" in hrefs) == (neighbour != 5)


def test_interval_examples_are_coloured_by_the_activations_around_them(
    pages: dict[str, Page], frames: LayerFrames
) -> None:
    assert frames.activations is not None
    text = feature_page(pages, 6).path.read_text().split('<h2 id="intervals">')[1]
    assert text.count('<small class="top">') > 0
    titles = re.findall(r'<b class=(?:"[^"]*"|\w+) title="(\d+): ([^"]*)">', text)
    known = frames.activations.filter(pl.col("feature") == 6).select("position", "activation")
    values: dict[int, list[float]] = {}
    for position, activation in known.iter_rows():
        values.setdefault(position, []).append(activation)
    boxes = text.count(' d" title=')
    assert len(titles) > boxes > 0  # neighbours of the example are coloured too
    for position, title in titles:
        shown = float(title.split(",")[0])
        assert any(abs(shown - value) <= 6e-3 * value for value in values[int(position)])


def test_meaning_shows_labels_families_and_proxies(pages: dict[str, Page]) -> None:
    text = feature_page(pages, 1).text
    assert "Families: inductionsuccessor" in text
    assert "induction per occurrence" in text
    assert "50%" in text  # specificity 5 of 10
    assert "75%" in text  # by activation 9 of 12
    labelled = feature_page(pages, 6).text
    assert "an <i>induction</i> feature" in labelled
    index = pages[f"L{LAYER:02d}/index.html"]
    data = json.loads(next(s for s in index.inside("script") if s.startswith("{")))
    assert data["meaning"][6] == "an <i>induction</i> feature; induction"
    # Proxies that hold at half of the feature's active tokens are found by the search.
    assert data["meaning"][7] == f"induction; {ATTACK} 50%"


def test_proxies_are_drawn_and_disagreements_can_be_read(pages: dict[str, Page]) -> None:
    page = feature_page(pages, 0)
    assert "(0.5, 1]: 6, 16.7% where the proxy is true" in page.text  # 1 of 6 tokens
    assert "(0.5, 1]: 4, 50% where the proxy is true" in page.text  # 2 of 4 of the activation
    assert "proxy true, feature silent: 2 of 1,234" in page.text
    assert "feature active, proxy not true: 2 of 1,234" in page.text
    assert "3:6" in page.text
    # A feature without examples has plots, one without either has neither.
    assert "where the proxy is true" in feature_page(pages, 2).text
    assert "1,234" not in feature_page(pages, 2).text
    assert "where the proxy is true" not in feature_page(pages, 1).text


def test_plots_of_proxies_say_which_is_which(pages: dict[str, Page]) -> None:
    text = feature_page(pages, 0).text
    assert "Specificity: active tokens by activation, 0 to 1" in text
    assert "Expected value: the same weighted by activation" in text


def test_heads_lead_to_the_index(pages: dict[str, Page]) -> None:
    assert f"../index.html#head-{N_HEADS - 1}" in feature_page(pages, 0).hrefs()
    index = pages[f"L{LAYER:02d}/index.html"].text
    assert "writes to L3H1 (END → IO, destination, 12 prompts)" in index
    assert "reads from L1H1 (END → S2, source, 40 prompts)" in index


def test_the_index_lists_every_feature_and_links_those_with_a_page(
    pages: dict[str, Page], frames: LayerFrames
) -> None:
    page = pages[f"L{LAYER:02d}/index.html"]
    data = json.loads(next(s for s in page.inside("script") if s.startswith("{")))
    table = frames.statistics.sort("feature")
    assert data["feature"] == table["feature"].to_list()
    assert data["linked"] == [int(n > 0) for n in table["n_active"].to_list()]
    assert data["density"] == pytest.approx(table["density"].to_list(), rel=5e-3)
    shares = frames.head_attribution.pivot("head", index="feature", values="attribution")
    for feature, *attribution in shares.iter_rows():
        if feature == 3:
            assert data["head"][3] is None
            assert data["promotes"][3] is None
            continue
        assert len(attribution) == N_HEADS
        assert data["share"][feature] == pytest.approx(max(attribution), rel=5e-3)
        assert attribution[data["head"][feature]] == max(attribution)
    top = frames.logit_effects.filter(pl.col("extreme") == "top", pl.col("rank") == 0)
    for feature, token in top.select("feature", "token_id").iter_rows():
        assert data["promotes"][feature] == token_label(TOKENS[token])
    assert "3.25" in page.text
    assert page.text.count("features/") == 0


def test_the_study_links_its_layers(pages: dict[str, Page]) -> None:
    page = pages["index.html"]
    assert f"L{LAYER:02d}/index.html" in page.hrefs()
    assert "3.25" in page.text
    assert "<script>alert(8)</script>" in page.text


def test_rendering_is_deterministic(
    tmp_path: Path, site: Path, frames: LayerFrames, sequences: pl.DataFrame, provenance: Provenance
) -> None:
    render_layer(
        frames,
        tmp_path,
        context(provenance),
        sequences=sequences,
        evaluation={"l0": 3.25, "ce_recovered": 0.5, "unknown": 1},
    )
    for path in tmp_path.rglob("*.html"):
        assert (
            path.read_bytes() == (site / f"L{LAYER:02d}" / path.relative_to(tmp_path)).read_bytes()
        )


# ---- SQL -----------------------------------------------------------------------------------------


TABLES = {"head_roles": "head_scores", "ioi_edges": "trace_graph"}
INTERVAL_SQL = ("feature_intervals", "feature_interval_examples")


@pytest.fixture(scope="module")
def database(frames: LayerFrames, provenance: Provenance) -> Iterator[duckdb.DuckDBPyConnection]:
    """The declared tables holding the frames, and the views over them."""
    con = duckdb.connect()
    stored = {name: frame for name, frame in vars(frames).items() if frame is not None}
    tables = {TABLES.get(name, f"feature_{name}"): frame for name, frame in stored.items()}
    scores = tables.pop("head_scores").rename({"role": "score"})
    tables["head_scores"] = scores.with_columns(
        threshold=pl.lit(0.1), null_mean=pl.lit(0.0), null_sd=pl.lit(0.01)
    )
    empty = ("sae_evaluation", "ioi_head_scores")
    for name in (*empty, "language_model", "tokenized_corpus", "corpus_documents"):
        con.execute(plain_table(table_spec(name)))
    for name, frame in tables.items():
        con.execute(plain_table(table_spec(name)))
        rows = frame.with_columns(pl.lit(provenance.study).alias("study"))
        if name == "trace_graph":
            rows = rows.with_columns(pl.lit("ioi").alias("task"))
        else:
            rows = rows.with_columns(pl.lit(LAYER, pl.Int32).alias("layer"))
        con.register("rows", rows)
        con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM rows")
        for column in ("run_id", "code_version", "model_version", "corpus_version", "sae_version"):
            con.execute(f"ALTER TABLE {name} ADD COLUMN {column} VARCHAR")
        con.execute(f"ALTER TABLE {name} ADD COLUMN formula_version INTEGER")
    for view in (
        "sae_density_histogram",
        "feature_overview",
        "feature_dfa_by_head",
        "feature_dfa_by_source",
        "feature_proxy_shares",
        "head_score_tests",
        "head_role_conditions",
        "head_roles",
        "document_spans",
    ):
        con.execute((SQL_FOLDER / "views" / f"{view}.sql").read_text())
    yield con
    con.close()


def test_the_sql_on_every_page_runs(
    pages: dict[str, Page], database: duckdb.DuckDBPyConnection
) -> None:
    for name in ("index.html", f"L{LAYER:02d}/index.html", f"L{LAYER:02d}/features/0.html"):
        statements = pages[name].inside("pre")
        assert statements
        for statement in statements:
            assert "$" not in statement
            assert database.sql(statement).pl().height > 0, statement


def test_the_sql_of_the_heads_gives_the_numbers_of_the_page(
    pages: dict[str, Page], database: duckdb.DuckDBPyConnection, frames: LayerFrames
) -> None:
    statement = next(s for s in feature_page(pages, 0).inside("pre") if "decoder_share" in s)
    found = database.sql(statement).pl()
    dfa = frames.dfa.filter(pl.col("feature") == 0)["dfa_by_head"].to_list()
    for head in range(N_HEADS):
        mean = sum(row[head] for row in dfa) / len(dfa)
        assert found["mean_dfa"][head] == pytest.approx(mean)


def test_the_sql_of_the_intervals_gives_the_block(
    pages: dict[str, Page], database: duckdb.DuckDBPyConnection
) -> None:
    page = feature_page(pages, 6)
    sql = {name: [s for s in page.inside("pre") if f"FROM {name}\n" in s] for name in INTERVAL_SQL}
    intervals, examples = (database.sql(*statements).pl() for statements in sql.values())
    block = page.path.read_text().split('<h2 id="intervals">')[1].split("</tbody>")[0]
    rows = block.split('<tr><th scope="row">')[1:]
    assert len(rows) == len(intervals) == 10
    for row, interval in zip(rows, intervals.iter_rows(named=True), strict=True):
        assert f"<td>{interval['n_active']:,}</td>" in row
        inside = examples.filter(pl.col("interval") == interval["interval"])
        places, wanted = set(), []
        for example in inside.iter_rows(named=True):  # a token of both kinds is shown once
            place = (example["sequence"], example["position"])
            if place not in places:
                wanted.append((example["sample"], number(example["activation"])))
            places.add(place)
        assert bool(wanted) == (interval["n_active"] > 0)
        assert re.findall(r'<small class="?(\w+)"?>([^<]*)</small>', row) == wanted


def test_the_density_view_counts_every_feature_once(
    database: duckdb.DuckDBPyConnection, frames: LayerFrames
) -> None:
    found = database.sql("FROM sae_density_histogram ORDER BY log10_density_low").pl()
    assert found["n_features"].sum() == len(frames.statistics)
    assert found["share_of_features"].sum() == pytest.approx(1.0)
    assert found.filter(pl.col("log10_density_low").is_null())["n_features"].to_list() == [1]
    values = frames.statistics["log10_density"].drop_nulls()
    for low, high, n in (
        found.drop_nulls("log10_density_low")
        .select("log10_density_low", "log10_density_high", "n_features")
        .iter_rows()
    ):
        assert high - low == 0.25
        assert ((values >= low) & (values < high)).sum() == n


def test_the_source_view_keeps_positions_and_sums(
    database: duckdb.DuckDBPyConnection, frames: LayerFrames
) -> None:
    found = database.sql(
        "SELECT feature, rank, min(source), max(source), max(distance), sum(dfa)"
        " FROM feature_dfa_by_source GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    expected = frames.dfa.sort("feature", "rank")
    assert len(found) == len(expected)
    for row, (feature, rank, first, last, furthest, total) in zip(
        expected.iter_rows(named=True), found, strict=True
    ):
        assert (feature, rank, first, last) == (row["feature"], row["rank"], 0, row["position"])
        assert furthest == row["position"]
        assert total == pytest.approx(row["pre_activation"], abs=1e-4)


def test_the_published_folder_fits_its_table(site: Path) -> None:
    declared = dict(polars_schema(table_spec("feature_dashboards")))
    assert {"layer", "path", "url_path", "n_feature_pages", "n_pages", "bytes"} <= set(declared)


# ---- refusals ------------------------------------------------------------------------------------


def test_a_folder_with_older_pages_is_refused(
    site: Path, frames: LayerFrames, sequences: pl.DataFrame, provenance: Provenance
) -> None:
    with pytest.raises(ValueError, match="is not empty"):
        render_layer(
            frames,
            site,
            context(provenance),
            sequences=sequences,
        )


def test_missing_sequences_features_and_texts_are_refused_before_writing(
    tmp_path: Path, frames: LayerFrames, sequences: pl.DataFrame, provenance: Provenance
) -> None:
    def render(
        sequences: pl.DataFrame = sequences,
        features: list[int] | None = None,
        token_strings: list[str] = TOKENS,
    ) -> None:
        render_layer(
            frames,
            tmp_path / "out",
            replace(context(provenance), texts=TokenTexts(token_strings)),
            sequences=sequences,
            features=features,
        )

    with pytest.raises(ValueError, match="sequences of examples have no token ids"):
        render(sequences=sequences.head(3))
    with pytest.raises(ValueError, match=r"features \[99\] are not in statistics"):
        render(features=[1, 99])
    with pytest.raises(ValueError, match="has no text"):
        render(token_strings=TOKENS[:5])
    assert not (tmp_path / "out").exists()


def test_frames_that_lack_a_column_or_mix_layers_are_refused(frames: LayerFrames) -> None:
    with pytest.raises(ValueError, match=r"frame intervals lacks \['active_share'\]"):
        LayerFrames(**{**vars(frames), "intervals": frames.intervals.drop("active_share")})
    twice = pl.concat([frames.statistics, frames.statistics])
    with pytest.raises(ValueError, match="pass one study and one layer"):
        LayerFrames(**{**vars(frames), "statistics": twice})


def test_a_study_links_its_other_pages(
    tmp_path: Path, frames: LayerFrames, provenance: Provenance
) -> None:
    layers = frames.statistics.with_columns(layer=pl.lit(LAYER, pl.Int32))
    related = {"<b>circuit</b>": "../s.trace/index.html", "frontier": "../s.frontier/index.html"}
    render_study(tmp_path, model="m", provenance=provenance, statistics=layers, related=related)
    page = Page(tmp_path / "index.html")
    links = {a.get("href") for tag, a in page.elements if tag == "a"}
    assert links >= set(related.values())
    assert ("a", "<b>circuit</b>") in page.texts
