"""The page of recursive attribution: what it shows, that nothing on it is injected, its links."""

import re
from dataclasses import replace
from pathlib import Path

import hostile_layer
import polars as pl
import pytest
from hostile_layer import ATTACK, LAYER, TOKENS
from test_site import Page, assert_nothing_injected, context

import mechinterp_assets
from mechinterp_assets.attribution.rdfa_tree import Node, grow
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.dashboards.site import FeatureRenderer, render_layer
from mechinterp_assets.dashboards.tokens import token_label
from mechinterp_assets.dashboards.tree_page import _name
from mechinterp_assets.storage.declarations import polars_schema, table_spec

FEATURE, OTHER = 0, 6
PACKAGE = Path(mechinterp_assets.__file__).parent


def tree(feature: int, sequence: int, position: int, by_head: bool = False) -> pl.DataFrame:
    """A tree with every kind of node, as the asset stores it, at hostile tokens."""

    def at(kind: str, value: float, **more: object) -> Node:
        here = {"position": 1, "token_id": 1} | more
        return Node(kind, value, **here)

    def upstream() -> list[Node]:
        return [
            at("feature", 2.5, layer=1, feature=7, activation=5.0, gain=0.5),
            at("sae_error", -0.25, layer=1, always_shown=True),
            at("sae_bias", 0.5, layer=1, always_shown=True),
            at("output_bias", 0.25, layer=1, always_shown=True),
        ]

    def components() -> list[Node]:
        return [
            at("attention", 3.0, layer=1, split=upstream),
            at("embedding", -1.0),
            at("position", 0.5),
            at("mlp", 1.0, layer=0),
            at("mlp", 0.001, layer=1),
            at("value_bias", 0.499, layer=LAYER, always_shown=True),
        ]

    def by_residual_sae() -> list[Node]:
        return [
            at("residual_feature", 2.0, layer=LAYER, feature=9, activation=4.0, gain=0.5),
            at("residual_error", 0.5, layer=LAYER, always_shown=True),
            at("residual_bias", -0.5, layer=LAYER, always_shown=True),
        ]

    def sources() -> list[Node]:
        head = 2 if by_head else None
        split = by_residual_sae if by_head else components
        read = at("source", 4.0, layer=LAYER, head=head, strongest_head=2, split=split)
        far = at("source", 0.001, layer=LAYER, position=2, token_id=2, strongest_head=0)
        return [read, far, Node("encoder_bias", 0.999, layer=LAYER, always_shown=True)]

    root = at(
        "feature",
        5.0,
        split=sources,
        layer=LAYER,
        feature=feature,
        position=position,
        token_id=3,
        activation=5.0,
        gain=1.0,
    )
    named = pl.when(pl.col("node_kind") == "feature").then(pl.lit(ATTACK))
    return grow(root, RdfaSettings()).select(
        pl.lit(feature, pl.Int32).alias("feature"),
        pl.lit(0, pl.Int32).alias("rank"),
        pl.lit(sequence, pl.Int64).alias("sequence"),
        pl.lit(position, pl.Int32).alias("position"),
        pl.all(),
        named.alias("strongest_token"),
        named.alias("promoted_token"),
    )


@pytest.fixture(scope="module")
def sequences() -> pl.DataFrame:
    return hostile_layer.sequences()


@pytest.fixture(scope="module")
def frames(sequences: pl.DataFrame) -> LayerFrames:
    second = tree(OTHER, 105, 2, by_head=True).with_columns(rank=pl.lit(1, pl.Int32))
    trees = [tree(FEATURE, 100, 30), tree(OTHER, 101, 20), second]
    return replace(hostile_layer.frames(sequences), rdfa=pl.concat(trees))


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, frames: LayerFrames, sequences: pl.DataFrame
) -> Path:
    folder = tmp_path_factory.mktemp("site") / f"L{LAYER:02d}"
    rendered = render_layer(
        frames, folder, context(hostile_layer.provenance()), sequences=sequences
    )
    written = list(folder.rglob("*.html"))
    assert rendered.n_pages == len(written) == rendered.n_features + 1 + 2
    assert rendered.bytes == sum(path.stat().st_size for path in written)
    return folder


def test_features_with_a_tree_have_a_page_that_their_own_leads_to(site: Path) -> None:
    assert {path.name for path in (site / "trees").iterdir()} == {"0.html", "6.html"}
    for path in (site / "features").iterdir():
        linked = f"../trees/{path.stem}.html" in Page(path).hrefs()
        assert linked == (path.stem in {"0", "6"}), path
    for path in (site / "trees").iterdir():
        for href in Page(path).hrefs():
            target = (path.parent / href.split("#")[0]).resolve()
            if not href.startswith(("#", "../../")):
                assert target.is_file(), href


def test_nothing_of_a_tree_is_injected(site: Path) -> None:
    for path in (site / "trees").iterdir():
        page = Page(path)
        elements = [(t, a) for t, a in page.elements if t != "script"]
        page.elements = elements
        assert "<img" in page.text  # the attack, as text
        page.texts = [(where, text) for where, text in page.texts if where != "script"]
        assert_nothing_injected(page)


def test_the_page_has_every_node_and_its_share(site: Path) -> None:
    page = Page(site / "trees" / f"{FEATURE}.html")
    text = re.sub(r"\s+", " ", page.text)
    for line in (
        "+100%feature L2F0",
        "+80%reads",
        "mostly head L2H2",
        "+60%attention output of layer 1",
        "+50%feature L1F7",
        "active 5, gain 0.5",
        "−5.0%SAE error, layer 1",
        "+10%SAE decoder bias, layer 1",
        "+5.0%output bias, layer 1",
        "−20%token embedding",
        "+10%position embedding",
        "+20%MLP output of layer 0",
        "+10%biases of LayerNorm and values, layer 2",
        "+20%encoder bias, layer 2",
        "+0.0%1 other part",
    ):
        assert line in text, line
    split = [a for name, a in page.elements if name == "details" and a.get("class") != "sql"]
    assert len(split) == 3  # the feature, what it reads, the attention output
    assert all("open" in attributes for attributes in split)
    other = re.sub(r"\s+", " ", Page(site / "trees" / f"{OTHER}.html").text)
    for line in (
        "reads through head L2H2",
        f"+40%residual feature 9 before layer {LAYER}",
        "active 4, gain 0.5",
        f"+10%error of the residual SAE before layer {LAYER}",
        f"−10%decoder bias of the residual SAE before layer {LAYER}",
        f"residual features before layer {LAYER}, not split+40%+2",
    ):
        assert line in other, line


def kinds_of_nodes(table: str) -> list[str]:
    """What the table's node_kind may be."""
    sql = (PACKAGE / "sql" / "tables" / f"{table}.sql").read_text()
    (found,) = re.findall(r"CHECK \(node_kind IN \(([^)]*)\)\)", sql)
    return re.findall(r"'(\w+)'", found)


@pytest.mark.parametrize("kind", kinds_of_nodes("feature_rdfa"))
def test_every_kind_of_node_has_a_name(kind: str) -> None:
    row = {"node_kind": kind, "at_layer": 3, "at_head": None, "at_feature": 7, "n_left_out": 2}
    assert _name(row) not in (kind, "")
    assert "_" not in _name(row)


@pytest.mark.parametrize("kind", kinds_of_nodes("prompt_attributions"))
def test_every_kind_of_node_has_words_in_the_explorer(kind: str) -> None:
    if kind not in ("logit", "rest"):  # a root, and what the page counts itself
        script = (PACKAGE / "dashboards" / "templates" / "explorer.js").read_text()
        assert f" {kind}: " in script or f'node_kind === "{kind}"' in script


def test_where_it_ends_sums_the_leaves(site: Path) -> None:
    text = re.sub(r"\s+", " ", Page(site / "trees" / f"{FEATURE}.html").text)
    kinds, positions = text.split("summed by kind")[1].split("the same by position")
    for line in (
        "features of layer 1+50%+2.5",
        "MLP output of layer 0+20%+1",
        "token embedding−20%−1",
        "parts without a row+0.0%+0.002",
    ):
        assert line in kinds, line
    # All but the encoder's bias and the two parts without a row stand at position 1.
    assert f"{token_label(TOKENS[1])}1+80%+4" in positions
    assert "no single position+20%+1" in positions


def test_links_to_features_of_earlier_layers_are_the_callers(
    frames: LayerFrames, sequences: pl.DataFrame, site: Path
) -> None:
    assert "L01" not in (site / "trees" / f"{FEATURE}.html").read_text()
    asked: list[tuple[int, int]] = []

    def link(layer: int, feature: int) -> str:
        asked.append((layer, feature))
        return f"../../x.L{layer:02d}/features/{feature}.html"

    renderer = FeatureRenderer(
        context(hostile_layer.provenance()), frames, sequences, [0], {}, link
    )
    page = renderer.tree(FEATURE)
    assert page is not None
    assert '<a href="../../x.L01/features/7.html">feature L1F7</a>' in page
    assert set(asked) == {(1, 7)}
    assert renderer.tree(3) is None


def test_a_layer_without_trees_has_no_page(frames: LayerFrames, sequences: pl.DataFrame) -> None:
    bare = replace(frames, rdfa=None)
    renderer = FeatureRenderer(context(hostile_layer.provenance()), bare, sequences, [0], {})
    assert renderer.tree(0) is None
    assert "../trees/" not in renderer.html(0)


def test_the_frame_has_the_columns_of_the_table(frames: LayerFrames) -> None:
    assert frames.rdfa is not None
    declared = dict(polars_schema(table_spec("feature_rdfa")))
    assert frames.rdfa.schema.items() <= declared.items()
