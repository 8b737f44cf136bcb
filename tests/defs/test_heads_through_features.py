"""Heads of the materialized tiny study: features, examples, labels, pages in bulk, on request."""

import csv
import io
from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.dashboards.live.head_pages import LiveHeadPages
from mechinterp_assets.dashboards.places import head_page
from mechinterp_assets.labels.files import LabelledSae
from mechinterp_assets.labels.heads import read_head_labels
from tests.command_line import call
from tests.defs.conftest import Materialized
from tests.defs.served_pages import served_pages


@pytest.fixture(scope="module")
def pages(tiny: Materialized) -> LiveHeadPages:
    return LiveHeadPages(tiny.lake)


def in_bulk(tiny: Materialized, name: str) -> str:
    return (tiny.home / "dashboards" / "tiny.heads" / name).read_text()


def test_top_features_agree_with_the_attribution_table(tiny: Materialized) -> None:
    wrong = tiny.lake.sql(
        """
        WITH ranked AS (
            SELECT a.*, row_number() OVER (
                PARTITION BY a.layer, a.head ORDER BY a.attribution DESC, a.feature
            ) - 1 AS rank
            FROM feature_head_attribution AS a WHERE a.attribution IS NOT NULL
        )
        SELECT count(*) FILTER (WHERE r.rank <> h.rank OR r.attribution <> h.attribution) AS wrong,
            count(*) FILTER (WHERE h.is_alive <> (s.n_active > 0)) AS wrong_alive,
            count(*) FILTER (WHERE h.rank < 10) AS n_top,
            count(DISTINCT (h.layer, h.head)) AS n_heads
        FROM head_features AS h
        JOIN ranked AS r USING (layer, head, feature)
        JOIN feature_statistics AS s USING (layer, feature)
        """
    ).row(0)
    n_heads = tiny.lake.read("language_model", "tiny").collect()["n_heads"].item()
    assert wrong == (0, 0, 10 * 2 * n_heads, 2 * n_heads)


def test_the_proxy_has_every_head_and_measure(tiny: Materialized) -> None:
    proxy = tiny.lake.read("head_polysemanticity_proxy").collect()
    heads = tiny.lake.read("head_features").select("layer", "head").unique().collect().height
    assert proxy.height == 3 * heads
    assert (proxy["n_clusters"] >= 1).all()
    assert (proxy["n_clusters"] <= proxy["n_compared"]).all()
    top = tiny.lake.read("head_features").filter(pl.col("alive_rank") < 10).collect()
    for row in proxy.filter(pl.col("measure") == "ngrams").iter_rows(named=True):
        own = top.filter((pl.col("layer") == row["layer"]) & (pl.col("head") == row["head"]))
        assert row["features"] == own.sort("alive_rank")["feature"].to_list()


def test_examples_are_held_out_and_of_every_head(tiny: Materialized) -> None:
    found = tiny.lake.sql(
        """
        SELECT count(*) FILTER (WHERE c.split <> 'held_out') AS wrong_split,
            count(*) FILTER (WHERE c.token_ids[e.source + 1] <> s.token_id) AS wrong_source,
            count(*) FILTER (WHERE abs(list_sum(e.attention_row) - 1) > 1e-4) AS wrong_sum,
            count(DISTINCT (e.layer, e.head)) AS n_heads
        FROM head_attention_examples AS e
        JOIN tokenized_corpus AS c USING (study, sequence)
        JOIN vocabulary AS s ON s.study = e.study AND s.token_id = c.token_ids[e.source + 1]
        WHERE s.token = e.source_token
        """
    ).row(0)
    model = tiny.lake.read("language_model", "tiny").collect().row(0, named=True)
    assert found == (0, 0, 0, model["n_layers"] * model["n_heads"])


def test_pages_on_request_are_the_pages_in_bulk(tiny: Materialized, pages: LiveHeadPages) -> None:
    written = tiny.lake.read("head_dashboards", "tiny").collect().row(0, named=True)
    files = list((tiny.home / "dashboards" / "tiny.heads").glob("*.html"))
    assert len(files) == written["n_pages"] == written["n_head_pages"] + 1
    assert sum(file.stat().st_size for file in files) == written["bytes"]
    provenance = '<h2 id="provenance">'
    for at in ((0, 0), (2, 3), (1, 1)):
        page = pages.page("tiny", *at)
        assert page is not None
        # Provenance differs: the run that wrote the pages is not the one that scored the heads.
        assert page.split(provenance)[0] == in_bulk(tiny, head_page(*at)).split(provenance)[0]
    index = pages.index("tiny")
    assert index is not None
    assert index.split(provenance)[0] == in_bulk(tiny, "index.html").split(provenance)[0]


def test_pages_have_every_block(tiny: Materialized) -> None:
    page = in_bulk(tiny, head_page(2, 0))
    for block in ("examples", "features", "scores", "proxy", "effects"):
        assert f'<h2 id="{block}">' in page, block
    assert '<a href="../tiny.L02/index.html">' in page
    without = in_bulk(tiny, head_page(1, 0))  # no SAE in this layer
    assert '<h2 id="features">' not in without
    assert "tiny.L01" not in without
    assert any('<h2 id="edges">' in in_bulk(tiny, head_page(2, head)) for head in range(4))


def test_layers_features_and_study_lead_to_the_heads(tiny: Materialized) -> None:
    folder = tiny.home / "dashboards"
    layer = (folder / "tiny.L02" / "index.html").read_text()
    assert '<a href="../tiny.heads/L02H01.html">L2H1</a>' in layer
    feature = next((folder / "tiny.L02" / "features").glob("*.html")).read_text()
    assert '<a href="../../tiny.heads/L02H01.html">L2H1</a>' in feature
    assert '<a href="../tiny.heads/index.html">' in (folder / "tiny" / "index.html").read_text()


@pytest.mark.parametrize(
    ("study", "layer", "head"), [("tiny", 99, 0), ("tiny", 0, 99), ("x", 0, 0)]
)
def test_what_the_lake_does_not_have_has_no_page(
    pages: LiveHeadPages, study: str, layer: int, head: int
) -> None:
    assert pages.page(study, layer, head) is None
    assert pages.index("x") is None


def test_the_server_answers_404_for_an_unknown_head(
    tiny: Materialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    get = served_pages()

    status, text = get("/tiny.heads/L00H01.html")
    assert status == 200
    assert "Head L0H1" in text
    assert get("/tiny.heads/")[1] == get("/tiny.heads/index.html")[1]
    assert get("/tiny.heads/index.html")[0] == 200
    for path in ("/tiny.heads/L00H99.html", "/tiny.heads/L99H00.html", "/nobody.heads/L00H00.html"):
        assert get(path)[0] == 404, path
    assert get("/nobody.heads/index.html")[0] == 404


def test_a_sheet_of_heads_can_be_filled_in(
    tiny: Materialized, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))

    sheet = tmp_path / "heads.csv"
    run = call(["label-sheet", "tiny", "--heads", "--output", str(sheet)])
    assert run.exit_code == 0, run.output
    assert "head_labels" in run.output
    rows = list(csv.DictReader(io.StringIO(sheet.read_text())))
    heads = [row for row in rows if not row["feature"]]
    assert {row["layer"] for row in heads} == {"0", "2"}
    assert heads[0]["dashboard"].endswith("/tiny.heads/L00H00.html")
    heads[0].update(rater="ann", **{"class": "polysemantic"})
    filled = io.StringIO()
    writer = csv.DictWriter(filled, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    saes = tiny.lake.read("attention_sae").collect()
    known = {
        row["layer"]: LabelledSae(row["d_sae"], row["weights_hash"]) for row in saes.to_dicts()
    }
    labels = read_head_labels({"heads.csv": filled.getvalue()}, "tiny", 8, known)
    assert labels["class"].to_list() == ["polysemantic"]
    one = call(["label-sheet", "tiny", "--heads", "--layer", "2", "--n", "2"])
    drawn = [row for row in csv.DictReader(io.StringIO(one.stdout)) if not row["feature"]]
    assert len(drawn) == 2
    for arguments, message in (
        (["--heads", "--layer", "1"], "layer 1 has no SAE"),
        (["--heads", "--n", "0"], "draw at least one head"),
        ([], "--layer"),
    ):
        refused = call(["label-sheet", "tiny", *arguments])
        assert refused.exit_code == 2, arguments
        assert message in refused.output
