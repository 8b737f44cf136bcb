"""Pages made on request are those made in bulk; the export of a materialized study."""

import gzip
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest

from mechinterp_assets.app.dashboard_app import dashboard_app
from mechinterp_assets.app.neuronpedia_export import export_study
from mechinterp_assets.dashboards.collect import layer_frames
from mechinterp_assets.dashboards.live.experiment_pages import LiveExperimentPages
from mechinterp_assets.dashboards.live.feature_pages import LivePages
from mechinterp_assets.dashboards.neuronpedia import Publication
from mechinterp_assets.dashboards.neuronpedia_lines import ActivationLine, FeatureLine
from mechinterp_assets.dashboards.site import ALL_LINKED, SOME_LINKED, render_layer
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from tests.asgi import ask
from tests.defs.conftest import Materialized
from tests.defs.served_pages import served_pages

SITE = "tiny.L02"


@pytest.fixture(scope="module")
def pages(tiny: Materialized) -> LivePages:
    return LivePages(tiny.lake, kept=3)


def in_bulk(tiny: Materialized, feature: int) -> str:
    return (tiny.home / "dashboards" / SITE / "features" / f"{feature}.html").read_text()


def of_layer_alone(page: str | None) -> str:
    """A served page without what a server adds: documents and other layers, the explorer."""
    assert page is not None
    block = r'(?s)<section aria-labelledby="elsewhere">.*?</section>\n'
    without, n_blocks = re.subn(block, "", page)
    assert n_blocks == 1
    link = r'<a href="../../explore/[^"]*">On any other token</a>. '
    without, n_links = re.subn(link, "", without)
    assert n_links == 1
    return without


@pytest.fixture(scope="module")
def shown(tiny: Materialized) -> list[int]:
    """Features with a page, the most active first."""
    statistics = tiny.lake.read("feature_statistics", SITE).filter(pl.col("n_active") > 0)
    return statistics.sort("n_active", descending=True).collect()["feature"].to_list()


def test_a_page_on_request_is_the_page_in_bulk(
    tiny: Materialized, pages: LivePages, shown: list[int]
) -> None:
    for feature in (*shown[:4], shown[-1]):
        assert of_layer_alone(pages.page(SITE, feature)) == in_bulk(tiny, feature)


def test_where_else_a_feature_fires_is_what_the_tables_say(
    tiny: Materialized, pages: LivePages, shown: list[int]
) -> None:
    feature = shown[len(shown) // 2]
    page = pages.page(SITE, feature)
    assert page is not None
    block = page.partition('<h2 id="elsewhere">')[2].partition("</section>")[0]
    spans = tiny.lake.sql("FROM document_spans WHERE study = 'tiny'")
    active = tiny.lake.read("feature_activations", SITE).filter(pl.col("feature") == feature)
    placed = (
        active.collect()
        .join(spans, on="sequence")
        .filter(pl.col("position").is_between("first_position", "last_position"))
    )
    assert len(placed) == active.collect().height
    counts = placed.group_by("document").len().sort("len", "document", descending=[True, False])
    found = re.findall(r"<small>(\d+)</small> <bdi>.*?</i>([\d,]+)</td>", block)
    assert [int(n.replace(",", "")) for _, n in found] == counts["len"].head(8).to_list()
    by_document = dict(counts.iter_rows())
    assert all(by_document[int(document)] == int(n.replace(",", "")) for document, n in found)

    other = tiny.study.layers[0]
    theirs = tiny.lake.read("feature_activations", f"tiny.L{other:02d}").collect()
    both = theirs.join(active.collect(), on=["sequence", "position"])
    n_both = dict(both.group_by("feature").len().iter_rows())
    linked = re.findall(
        r'<a href="../../tiny.L00/features/(\d+).html">L0F\1</a></th>'
        r'<td><i class="pos".*?</td><td>([\d,]+)</td>',
        block,
    )
    assert linked
    for number, n in linked:
        assert n_both[int(number)] == int(n.replace(",", ""))


def test_pages_have_every_block(tiny: Materialized, shown: list[int]) -> None:
    page = in_bulk(tiny, shown[0])
    for block in ("examples", "effects", "heads", "sources", "meaning", "ngrams", "neighbours"):
        assert f'<h2 id="{block}">' in page, block
    assert page.count('<svg class="heat"') == tiny.study.features.dfa_matrix_examples
    assert page.count('<small class="top">') > 0


def test_the_index_finds_proxies_of_features_without_a_page(
    tiny: Materialized, pages: LivePages, shown: list[int], tmp_path: Path
) -> None:
    """One feature gets a page; the search knows the proxies of all."""
    layer = pages._layer(SITE)
    assert layer is not None
    frames = layer_frames(layer.tables.get, 2, shown[:1], whole=True, names=layer.names)
    sequences = layer.tables["tokenized_corpus"].select("sequence", "token_ids").collect()
    render_layer(frames, tmp_path, layer.context, sequences=sequences, features=shown[:1])
    index = (tmp_path / "index.html").read_text()
    data = json.loads(index.partition('id="data"')[2].partition(">")[2].partition("</script>")[0])
    proxies = tiny.lake.read("feature_proxies", SITE).filter(pl.col("n_active") > 0).collect()
    share, base = (
        pl.col("n_active_true") / pl.col("n_active"),
        pl.col("n_true") / pl.col("n_tokens"),
    )
    likely = set(proxies.filter(share >= 0.05, share >= 2 * base)["feature"])
    texts = zip(data["feature"], data["meaning"], strict=True)
    assert {feature for feature, text in texts if "%" in text} == likely
    assert len(likely) > 1


def test_the_last_pages_are_kept(pages: LivePages, shown: list[int]) -> None:
    first = pages.page(SITE, shown[0])
    assert pages.page(SITE, shown[0]) is first
    for feature in shown[1:4]:
        pages.page(SITE, feature)
    again = pages.page(SITE, shown[0])
    assert again is not first
    assert again == first


@pytest.mark.parametrize("site", ["tiny.L01", "tiny", "nobody.L00", "tiny.L02.L", ".L02", ""])
def test_what_the_lake_does_not_have_has_no_page(pages: LivePages, site: str) -> None:
    assert pages.page(site, 0) is None
    assert not pages.covers(site)


def test_an_unknown_feature_has_no_page(pages: LivePages) -> None:
    assert pages.page(SITE, 100_000) is None


def test_a_write_elsewhere_keeps_the_page_and_a_new_version_makes_it_again(
    tiny: Materialized, shown: list[int], tmp_path: Path
) -> None:
    home = tmp_path / "lake"  # a copy, since other tests count versions
    shutil.copytree(tiny.lake.root, home, symlinks=True)
    lake = Lake(home)
    lake.refresh()
    pages = LivePages(lake)
    before = pages.page(SITE, shown[0])
    provenance = Provenance("tiny", "another-run", "1")
    declared = [column.name for column in table_spec("language_model").columns]
    model = lake.read("language_model", "tiny").collect().select(declared).drop("study")
    lake.write("language_model", "tiny", model, provenance)
    assert pages.page(SITE, shown[0]) is before  # the same content
    other = model.with_columns(weights_source=pl.lit("other"))
    lake.write("language_model", "tiny", other, provenance)
    after = pages.page(SITE, shown[0])
    assert after is not None
    assert after != before
    assert "other" in after


def test_the_server_makes_pages_and_links_all_of_them(
    tiny: Materialized, shown: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    get = served_pages()

    status, text = get(f"/{SITE}/features/{shown[0]}.html")
    assert status == 200
    assert of_layer_alone(text) == in_bulk(tiny, shown[0])
    assert get(f"/{SITE}/features/100000.html")[0] == 404
    for path in (f"/{SITE}/index.html", f"/{SITE}/"):
        status, text = get(path)
        assert status == 200
        assert ALL_LINKED in text
    stored = (tiny.home / "dashboards" / SITE / "index.html").read_text()
    assert SOME_LINKED in stored
    assert get("/tiny/index.html")[0] == 200


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.mark.parametrize("number", ["9" * 20, "9" * 5000, "999999999", "-1", "1_0", "+1", "\u0663"])
def test_numbers_that_no_column_holds_have_no_page(
    tiny: Materialized, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    application = dashboard_app()
    for path in (
        f"/{SITE}/features/{number}.html",
        f"/{SITE}/trees/{number}.html",
        f"/tiny.L{number}/",
        f"/tiny.heads/L{number}H0.html",
        f"/tiny.heads/L0H{number}.html",
    ):
        assert ask(application, quote(path)).status == 404
    assert ask(application, "/tiny.heads/L0H0.html").status == 200


def test_the_export_of_a_study_fits_the_schema(
    tiny: Materialized, organism: LanguageModel, tmp_path: Path
) -> None:

    publication = Publication(
        "organism",
        "att",
        "release",
        "text",
        "someone",
        "Some One",
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    (folder,) = export_study(
        tiny.lake, tiny.tensors, tiny.study, organism, tmp_path, publication, [2]
    )
    features = lines_of(folder / "features/batch-0.jsonl.gz")
    assert (
        len(features)
        == tiny.lake.read("feature_statistics", SITE)
        .filter(pl.col("n_active") > 0)
        .collect()
        .height
    )
    for line in features:
        FeatureLine.model_validate(line, strict=True)
        assert sum(line["logits_hist_data_bar_heights"]) == organism.config.d_vocab
        assert sum(line["decoder_weights_dist"]) == pytest.approx(1)
    activations = lines_of(folder / "activations/batch-0.jsonl.gz")
    for line in activations:
        ActivationLine.model_validate(line, strict=True)
    first = next(line for line in activations if line["dfaTargetIndex"] is not None)
    assert first["dfaTargetIndex"] == first["maxValueTokenIndex"]


def test_experiments_on_request_are_those_in_bulk(tiny: Materialized) -> None:
    study = tiny.study.study
    bulk = (tiny.home / "dashboards" / f"{study}.experiments" / "index.html").read_text()
    pages = LiveExperimentPages(tiny.lake)
    page = pages.page(study)
    assert page is not None
    assert page.split('id="provenance"')[0] == bulk.split('id="provenance"')[0]
    assert pages.page(study) is page
    assert pages.page("no-such-study") is None
    row = tiny.lake.read("experiment_dashboards", study).collect().row(0, named=True)
    assert row["n_pictures"] == bulk.count("<svg ") > 10
    run = tiny.lake.read("intervention_experiments", study).drop_nulls("intervention").collect()
    assert row["n_experiments"] == run["experiment"].n_unique()
    for name in run["experiment"].unique():
        assert f"<code>{name}</code>, task" in bulk
    linked = (tiny.home / "dashboards" / study / "index.html").read_text()
    assert f"../{study}.experiments/index.html" in linked
