"""Recursive attribution through SAEs on the residual stream (K24 Table 6, steps 3 and 4): every
level sums, gradients of an independent frozen pass, a planted residual feature, the embedded
model."""

from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.attribution.rdfa import Rdfa, RdfaError
from mechinterp_assets.attribution.residual_saes import ResidualSaes, residual_saes_of
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.settings import ResidualSaeSettings
from tests.attribution.frozen_trees import (
    COPIED,
    LENGTH,
    MARK,
    WHOLE,
    an_active_feature,
    check_embedding_paths,
    copying_gpt2,
    tokens,
    worst_level,
    z_of,
)
from tests.attribution.random_models import random_sae, saes_of
from tests.foreign_sae import write_residual

WRITERS = {"embedding", "position", "attention", "mlp"}


@pytest.fixture(params=["gpt2", "llama", "neox"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    found: LanguageModel = request.getfixturevalue(request.param)
    return found


def residual_of(
    model: LanguageModel,
    layers: tuple[int, ...] = (0, 1, 2),
    architecture: str = "topk",
    *,
    centre: bool = False,
) -> ResidualSaes:
    width = model.config.d_model
    saes = {layer: random_sae(width, architecture, seed=20 + layer) for layer in layers}
    return ResidualSaes(saes, centre)


def kinds_below(tree: pl.DataFrame, kind: str, layer: int | None = None) -> set[str]:
    """Kinds of the parts of all nodes of a kind (and layer)."""
    above = tree.filter(node_kind=kind)
    if layer is not None:
        above = above.filter(at_layer=layer)
    below = tree.join(above.select(parent="node"), on="parent", how="semi")
    return set(below["node_kind"])


@pytest.mark.parametrize(
    ("architecture", "centre", "by_head"),
    [("topk", True, False), ("gated", False, True), ("jumprelu", False, False)],
)
def test_every_level_sums_to_its_parent(
    model: LanguageModel, architecture: str, centre: bool, by_head: bool
) -> None:
    saes, position, ids = saes_of(model), LENGTH - 2, tokens(model)
    residual = residual_of(model, (1, 2), architecture, centre=centre)
    feature, activation = an_active_feature(model, saes, 2, position)
    settings = RdfaSettings(max_depth=3, branching=4, min_share=0, max_nodes=4000, by_head=by_head)
    tree = Rdfa(model, saes, settings, residual=residual).tree(ids, 2, feature, position)
    assert worst_level(tree) < 1e-9
    assert tree["dfa"][0] == pytest.approx(activation, rel=1e-9)
    leaves = tree.filter(pl.col("identity_error").is_null())
    assert leaves["dfa"].sum() == pytest.approx(activation, rel=1e-9)
    # A layer with such an SAE splits by it, one without by the writers of the stream.
    through_sae = {"value_bias", "residual_feature", "residual_error", "residual_bias"}
    for layer in (1, 2):
        assert kinds_below(tree, "source", layer) - {"rest"} == through_sae
    below = kinds_below(tree, "residual_feature")
    assert {"encoder_bias", "attention", "mlp"} <= below <= WRITERS | {"encoder_bias", "rest"}
    assert kinds_below(tree, "source", 0) <= WRITERS | {"value_bias", "rest"}
    # Activations are the SAE's own for the bridge's stream.
    _, cache = model.raw.run_with_cache(ids[None])
    rows = tree.filter(node_kind="residual_feature")
    assert set(rows["at_layer"]) == {1, 2}
    for layer, sae in residual.by_layer.items():
        x = cache[f"blocks.{layer}.hook_resid_pre"][0]
        f = sae.encode(x - x.mean(-1, keepdim=True) if centre else x)
        own = rows.filter(at_layer=layer)
        expected = [float(f[at]) for at in own.select("at_position", "at_feature").iter_rows()]
        assert own["activation"].to_list() == pytest.approx(expected, rel=1e-9)
    assert rows["dfa"].to_list() == pytest.approx((rows["gain"] * rows["activation"]).to_list())


@pytest.mark.parametrize(
    ("layer", "through", "centre"), [(1, (0, 1), True), (1, (0, 1), False), (2, (2,), False)]
)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_paths_to_a_tokens_embedding_sum_to_gradient_times_input(
    request: pytest.FixtureRequest, name: str, layer: int, through: tuple[int, ...], centre: bool
) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    saes, residual = saes_of(model), residual_of(model, through, centre=centre)
    ids = tokens(model)[:3]
    feature, _ = an_active_feature(model, saes, layer, len(ids) - 1)
    tree = Rdfa(model, saes, WHOLE, residual=residual).tree(ids, layer, feature, len(ids) - 1)
    check_embedding_paths(model, saes, ids, layer, feature, tree, residual)
    # The SAE on the stream leaves something out, so the sums are not those without it.
    without = Rdfa(model, saes, WHOLE).tree(ids, layer, feature, len(ids) - 1)
    embedded, other = (one.filter(node_kind="embedding")["dfa"].sum() for one in (tree, without))
    assert other != pytest.approx(embedded, rel=1e-3)


def test_a_planted_residual_feature_carries_the_copied_mark(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Feature 1 of both residual SAEs is what attention moves: the whole of what is read."""
    model = copying_gpt2(tmp_path_factory.mktemp("planted"))
    ids = torch.tensor([0, 5, 3, 3])
    W = torch.zeros(8, 3, dtype=torch.float64)
    W[0, 1], W[1, 0], W[2, 2] = 1.0, 1.0, 1.0
    zeros = torch.zeros(3, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    saes = {layer: StandardSAE(W, zeros[0], W.T.contiguous(), zeros[1]) for layer in (0, 1)}

    def reading(dimension: int) -> SparseAutoencoder:
        """Feature 1: the pair at `dimension`; feature 0: another pair; feature 2: never active."""
        d = torch.zeros(3, 8, dtype=torch.float64)
        for i, at in ((1, dimension), (0, 4)):
            d[i, at], d[i, at + 1] = 0.5**0.5, -(0.5**0.5)
        return StandardSAE(d.T.contiguous(), zeros[0], d, zeros[1])

    residual = ResidualSaes({0: reading(MARK), 1: reading(COPIED)})
    tree = Rdfa(model, saes, residual=residual).tree(ids, 1, 1, 3)
    assert worst_level(tree) < 1e-12
    read = tree.filter((pl.col("node_kind") == "residual_feature") & (pl.col("dfa").abs() > 1e-12))
    shares = read.group_by("at_layer", "at_feature").agg(pl.col("share_of_root").sum())
    assert dict(zip(shares["at_layer"], shares["at_feature"], strict=True)) == {0: 1, 1: 1}
    assert shares["share_of_root"].to_list() == pytest.approx([1, 1])
    # The copy at layer 1 was written by layer 0's attention, of the marked token's embedding.
    leaves = tree.filter(pl.col("identity_error").is_null() & (pl.col("dfa").abs() > 1e-12))
    assert set(leaves.select("node_kind", "at_position").iter_rows()) == {("embedding", 1)}
    assert leaves["share_of_root"].sum() == pytest.approx(1)


def test_residual_features_do_not_count_as_depth(gpt2: LanguageModel) -> None:
    saes = saes_of(gpt2)
    feature, _ = an_active_feature(gpt2, saes, 2, 4)
    trees = [
        Rdfa(gpt2, saes, RdfaSettings(max_depth=2, max_nodes=4000), residual=residual).tree(
            tokens(gpt2), 2, feature, 4
        )
        for residual in (None, residual_of(gpt2))
    ]
    # Feature, source, [residual feature,] attention, feature, source, [...,] attention, feature.
    assert [tree["depth"].max() for tree in trees] == [6, 8]


def test_the_embedded_model_in_float32(organism: LanguageModel) -> None:
    """Its stream is rounded: parts sum to that, relative to their sizes."""
    generator = torch.Generator().manual_seed(0)

    def random(d: int) -> StandardSAE:
        W: Tensor = torch.randn(d, 40, generator=generator) / d**0.5
        bias = -0.5 * torch.ones(40)
        return StandardSAE(W, bias, W.T.contiguous(), torch.zeros(d))

    config = organism.config
    saes: dict[int, SparseAutoencoder] = {m: random(config.d_z) for m in range(4)}
    residual = ResidualSaes({m: random(config.d_model) for m in range(4)})
    ids = torch.tensor(organism.encode(" When Mary and John went to the store, John gave a"))
    feature = int(saes[3].encode(z_of(organism, ids, 3)[-1:])[0].argmax())
    settings = RdfaSettings(branching=3, min_share=0, max_nodes=2000)
    tree = Rdfa(organism, saes, settings, residual=residual).tree(ids, 3, feature, len(ids) - 1)
    assert worst_level(tree) < 1e-5
    assert set(tree.filter(node_kind="residual_feature")["at_layer"]) >= {2, 3}


def test_a_study_names_them_by_layer(organism: LanguageModel, tmp_path: Path) -> None:
    d = organism.config.d_model
    sae = StandardSAE(torch.eye(d), torch.zeros(d), torch.eye(d), torch.zeros(d))
    for layer in (1, 3):
        write_residual(tmp_path / f"r{layer}", sae, layer)
    named = ResidualSaeSettings(path=str(tmp_path / "r{layer}"), layers=[3, 1], centre=True)
    found = residual_saes_of(named, RdfaSettings(), organism)
    assert (list(found.by_layer), found.centre) == ([1, 3], True)
    torch.testing.assert_close(found.by_layer[3].W_enc, sae.W_enc)
    assert list(residual_saes_of(named, RdfaSettings(), organism, n_layers=3).by_layer) == [1]
    unused = RdfaSettings(residual_features=False)
    for none in (
        residual_saes_of(named, unused, organism),
        residual_saes_of(ResidualSaeSettings(), RdfaSettings(), organism),
    ):
        assert none == ResidualSaes()
    write_residual(tmp_path / "r3", sae, 2)
    with pytest.raises(SaeError, match=r"blocks\.3\.hook_resid_pre"):
        residual_saes_of(named, RdfaSettings(), organism)


def test_saes_that_do_not_fit_are_refused(gpt2: LanguageModel) -> None:
    saes, ids = saes_of(gpt2), tokens(gpt2)
    for layer, width in ((1, 7), (3, gpt2.config.d_model)):
        wrong = ResidualSaes({layer: random_sae(width, "topk")})
        with pytest.raises(RdfaError, match=f"residual-stream SAE of layer {layer} reads {width} "):
            Rdfa(gpt2, saes, residual=wrong)

    class Doubled(StandardSAE):
        def activate(self, pre: Tensor) -> Tensor:
            return 2 * pre.relu()

    sound = random_sae(gpt2.config.d_model, "standard", seed=2)
    doubled = ResidualSaes({2: Doubled(*sound.tensors().values())})
    feature, _ = an_active_feature(gpt2, saes, 2, 4)
    message = "SAE of the residual stream before layer 2 are not their pre-activations"
    with pytest.raises(RdfaError, match=message):
        Rdfa(gpt2, saes, residual=doubled).tree(ids, 2, feature, 4)
