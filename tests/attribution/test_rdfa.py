"""Recursive attribution: every level sums to its parent on random models (LayerNorm with learned
positions; RMSNorm, rotary positions and grouped queries; attention and MLP in parallel) with SAEs
of every architecture, gradients of an independent frozen pass, a planted upstream feature."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.frozen_forward import FrozenModel
from mechinterp_assets.attribution.rdfa import (
    RDFA_SCHEMA,
    InactiveFeatureError,
    Rdfa,
    RdfaError,
)
from mechinterp_assets.attribution.rdfa_selection import examples_of as rows_of
from mechinterp_assets.attribution.rdfa_selection import selected_features
from mechinterp_assets.attribution.rdfa_tree import Node, grow
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.traits import architecture_names
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from tests.attribution.frozen_trees import (
    LENGTH,
    WHOLE,
    an_active_feature,
    check_embedding_paths,
    copying_gpt2,
    tokens,
    worst_level,
    z_of,
)
from tests.attribution.random_models import D_SAE, saes_of


@pytest.fixture(params=["gpt2", "llama", "neox"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    found: LanguageModel = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("architecture", architecture_names())
@pytest.mark.parametrize("by_head", [False, True])
def test_every_level_sums_to_its_parent(
    model: LanguageModel, architecture: str, by_head: bool
) -> None:
    saes, layer, position = saes_of(model, architecture), 2, LENGTH - 2
    feature, activation = an_active_feature(model, saes, layer, position)
    settings = RdfaSettings(max_depth=3, branching=4, min_share=0.001, by_head=by_head)
    tree = Rdfa(model, saes, settings).tree(tokens(model), layer, feature, position)
    assert worst_level(tree) < 1e-9
    root = tree.row(0, named=True)
    assert root["dfa"] == pytest.approx(activation, rel=1e-9)
    assert tree["depth"].max() == 8  # three features, each by source and component
    assert set(tree["node_kind"]) >= {"feature", "source", "attention", "sae_error", "value_bias"}
    split = tree.filter(pl.col("identity_error").is_not_null())
    assert (split["identity_error"].to_numpy() < 1e-9 * np.abs(tree["dfa"].to_numpy()).max()).all()
    leaves = tree.filter(pl.col("identity_error").is_null())
    assert leaves["dfa"].sum() == pytest.approx(root["dfa"], rel=1e-9)
    assert set(tree.filter(node_kind="source")["at_head"].is_not_null()) == {by_head}


def test_the_root_is_the_pre_activation_of_the_models_run(model: LanguageModel) -> None:
    """z of the Hugging Face forward pass, another implementation of attention."""
    layer, saes = 1, saes_of(model)
    seen: list[Tensor] = []
    hook = model.output_projection(layer).register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    ids = tokens(model)
    with torch.no_grad():
        model.hf(ids[None])
    hook.remove()
    for position in (1, LENGTH - 1):
        feature, _ = an_active_feature(model, saes, layer, position)
        tree = Rdfa(model, saes).tree(ids, layer, feature, position)
        expected = saes[layer].pre_activations(seen[0][0, position][None])[0, feature]
        # The library's RMSNorm rounds to float32.
        assert tree["dfa"][0] == pytest.approx(float(expected), rel=1e-5)
        assert tree["gain"][0] == 1


@pytest.mark.parametrize("with_saes", [(0, 1, 2), (1, 2), (2,)])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_paths_to_a_tokens_embedding_sum_to_gradient_times_input(
    request: pytest.FixtureRequest, name: str, with_saes: tuple[int, ...]
) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    saes = {layer: sae for layer, sae in saes_of(model).items() if layer in with_saes}
    layer, ids = 2, tokens(model)[:4]
    position = len(ids) - 1
    feature, _ = an_active_feature(model, saes, layer, position)
    tree = Rdfa(model, saes, WHOLE).tree(ids, layer, feature, position)
    check_embedding_paths(model, saes, ids, layer, feature, tree)


def test_a_planted_upstream_feature_drives_the_downstream_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Layer 0 copies a token's mark to later positions, layer 1 reads the copy and nothing else.

    One SAE feature of layer 0 stands for the mark: it has the whole of the downstream feature.
    """
    model = copying_gpt2(tmp_path_factory.mktemp("planted"))
    W = torch.zeros(8, 3, dtype=torch.float64)
    W[0, 1], W[1, 0], W[2, 2] = 1.0, 1.0, 1.0  # feature 1 reads and writes what attention moves
    zeros = torch.zeros(3, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    saes = {layer: StandardSAE(W, zeros[0], W.T.contiguous(), zeros[1]) for layer in (0, 1)}
    ids = torch.tensor([0, 5, 3, 3])
    tree = Rdfa(model, saes).tree(ids, layer=1, feature=1, position=3)
    assert worst_level(tree) < 1e-12
    upstream = tree.filter((pl.col("node_kind") == "feature") & (pl.col("at_layer") == 0))
    assert set(upstream["at_feature"]) == {1}
    assert upstream["share_of_root"].sum() == pytest.approx(1)
    assert upstream["dfa"].to_list() == pytest.approx(
        (upstream["gain"] * upstream["activation"]).to_list()
    )
    # ... and that feature comes from the marked token's embedding alone.
    leaves = tree.filter(pl.col("identity_error").is_null() & (pl.col("dfa").abs() > 1e-12))
    assert set(leaves["node_kind"]) == {"embedding"}
    assert set(leaves["at_position"]) == {1}
    assert leaves["share_of_root"].sum() == pytest.approx(1)


def test_a_layer_without_an_sae_keeps_its_attention_in_one_piece(gpt2: LanguageModel) -> None:
    saes = saes_of(gpt2)
    del saes[1]
    feature, _ = an_active_feature(gpt2, saes, 2, 5)
    tree = Rdfa(gpt2, saes, WHOLE).tree(tokens(gpt2), 2, feature, 5)
    assert worst_level(tree) < 1e-9
    split = (
        tree.filter(node_kind="attention")
        .group_by("at_layer")
        .agg(pl.col("identity_error").is_not_null().all())
    )
    assert dict(split.iter_rows()) == {0: True, 1: False}
    assert set(tree.filter(node_kind="feature")["at_layer"]) == {0, 2}


def test_later_tokens_do_not_matter(model: LanguageModel) -> None:
    saes = saes_of(model)
    feature, _ = an_active_feature(model, saes, 1, 3)
    ids = tokens(model)
    other = torch.cat([ids[:4], tokens(model, seed=9)])
    first, second = (Rdfa(model, saes).tree(x, 1, feature, 3) for x in (ids, other))
    assert first.equals(second)


# ---- growth --------------------------------------------------------------------------------------


def parts_of(*values: float, bias: float = 0.0) -> Callable[[], list[Node]]:
    return lambda: [
        Node("encoder_bias", bias, always_shown=True),
        *(Node("source", value, position=i) for i, value in enumerate(values)),
    ]


def test_the_largest_parts_get_rows_and_the_others_share_one() -> None:
    root = Node("feature", 10.5, parts_of(1.0, -4.0, 0.5, 6.0, 0.0, 5.0, bias=2.0))
    tree = grow(root, RdfaSettings(branching=3, min_share=0.2))
    rows = tree.select("node_kind", "at_position", "dfa", "n_left_out").rows()
    assert rows == [
        ("feature", None, 10.5, None),
        ("source", 3, 6.0, None),
        ("source", 5, 5.0, None),
        ("source", 1, -4.0, None),
        ("encoder_bias", None, 2.0, None),
        ("rest", None, 1.5, 3),
    ]
    assert tree["share_of_root"].to_list() == pytest.approx([v / 10.5 for _, _, v, _ in rows])
    assert tree["identity_error"].to_list() == [0, *[None] * 5]
    few = grow(root, RdfaSettings(branching=3, min_share=0.5))
    assert few.filter(node_kind="source")["dfa"].to_list() == [6.0]
    assert few["dfa"][1:].sum() == 10.5


def test_the_largest_nodes_are_split_until_the_tree_is_full() -> None:
    root = Node(
        "feature",
        9.0,
        lambda: [
            Node("source", value, lambda value=value: [Node("embedding", value)], position=i)
            for i, value in enumerate((2.0, 4.0, 3.0))
        ],
    )
    tree = grow(root, RdfaSettings(max_nodes=6))
    split = tree.filter((pl.col("node_kind") == "source") & pl.col("identity_error").is_not_null())
    assert split["dfa"].to_list() == [4.0, 3.0]
    assert len(tree) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_depth": 0}, "max_depth\n.*greater than 0"),
        ({"branching": 0}, "branching\n.*greater than 0"),
        ({"max_nodes": -1}, "max_nodes\n.*greater than 0"),
        ({"min_share": 1.0}, "min_share\n.*less than 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RdfaSettings(**change)


def test_max_depth_counts_features_on_a_path(gpt2: LanguageModel) -> None:
    saes = saes_of(gpt2)
    feature, _ = an_active_feature(gpt2, saes, 2, 5)
    for max_depth, deepest in ((1, 3), (2, 6)):
        settings = RdfaSettings(max_depth=max_depth, branching=50, min_share=0, max_nodes=10**5)
        tree = Rdfa(gpt2, saes, settings).tree(tokens(gpt2), 2, feature, 5)
        assert tree.filter(node_kind="feature")["depth"].max() == deepest
        assert worst_level(tree) < 1e-9


# ---- frames and selection ------------------------------------------------------------------------


def examples_of(rows: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    names = ["feature", "rank", "sequence", "position"]
    schema = {n: pl.Int64 if n == "sequence" else pl.Int32 for n in names}
    return pl.DataFrame(rows, schema=schema, orient="row")


def lookup(ids: Tensor) -> Callable[[NDArray[np.int64]], Tensor]:
    return lambda sequences: ids[None].expand(len(sequences), -1)


def test_trees_have_the_declared_columns(gpt2: LanguageModel) -> None:
    saes = saes_of(gpt2)
    feature, _ = an_active_feature(gpt2, saes, 1, 4)
    rows = [(feature, 1, 70, 4), (feature, 0, 71, 4)]
    trees = list(Rdfa(gpt2, saes).trees(1, examples_of(rows), lookup(tokens(gpt2))))
    assert [tree.row(0)[:4] for tree in trees] == [(feature, 0, 71, 4), (feature, 1, 70, 4)]
    declared = dict(polars_schema(table_spec("feature_rdfa")))
    for column in ("layer", "token", "strongest_token", "promoted_token"):  # the asset adds them
        del declared[column]
    assert dict(trees[0].schema) == declared == dict(RDFA_SCHEMA)


def test_a_float32_model_stores_its_rounding(organism: LanguageModel) -> None:
    d = organism.config.d_z
    saes: dict[int, SparseAutoencoder] = {}
    for layer in range(3):
        generator = torch.Generator().manual_seed(layer)
        W = torch.randn(d, 40, generator=generator)
        W = W / W.norm(dim=0)
        saes[layer] = TopKSAE(W, torch.zeros(40), W.T.contiguous(), torch.zeros(d), k=6)
    ids = tokens(organism, n=20)
    feature, _ = an_active_feature_at(organism, saes, ids, 2, 17)
    tree = Rdfa(organism, saes).tree(ids, 2, feature, 17)
    errors = tree["identity_error"].drop_nulls().to_numpy()
    assert 0 < errors.max() < 1e-5 * tree["dfa"].abs().to_numpy().max()
    assert worst_level(tree) < 1e-5


def an_active_feature_at(
    model: LanguageModel, saes: dict[int, SparseAutoencoder], ids: Tensor, layer: int, position: int
) -> tuple[int, float]:
    value, feature = saes[layer].encode(z_of(model, ids, layer)[position][None])[0].max(dim=0)
    return int(feature), float(value)


def test_features_are_selected_by_rule() -> None:
    statistics = pl.DataFrame(
        {
            "feature": [0, 1, 2, 3, 4],
            "n_active": [5, 90, 7, 90, 0],
            "max_activation": [9.0, 1.0, 8.0, 2.0, None],
        }
    )
    families = pl.DataFrame(
        {
            "feature": [0, 0, 2, 2, 3, 3, 1],
            "family": ["induction"] * 6 + ["n_gram"],
            "required": [True] * 7,
            "meets_threshold": [True, True, True, None, True, False, True],
        }
    )
    assert selected_features(statistics, families, 2, "frequent") == [1, 3]
    assert selected_features(statistics, families, 2, "strongest") == [0, 2]
    assert selected_features(statistics, families, 2, "induction") == [0, 1]
    assert selected_features(statistics, families, 9, "induction") == [0, 1, 2, 3]


def test_examples_are_taken_by_feature_and_rank() -> None:
    top = examples_of([(2, 0, 40, 3), (2, 1, 41, 5), (6, 0, 42, 7)]).lazy()
    found = rows_of(top, {(2, 1), (6, 0), (9, 0)})
    assert found.rows() == [(2, 1, 41, 5), (6, 0, 42, 7)]
    assert rows_of(top, set(), required=True).is_empty()
    with pytest.raises(RdfaError, match=r"feature 6 has no example of rank 4 .* a lower rank"):
        rows_of(top, {(2, 1), (6, 4)}, required=True)


# ---- refusals ------------------------------------------------------------------------------------


def test_what_is_not_there_is_refused(gpt2: LanguageModel) -> None:
    saes = saes_of(gpt2)
    del saes[1]
    rdfa, ids = Rdfa(gpt2, saes), tokens(gpt2)
    with pytest.raises(RdfaError, match="layer 1 has no SAE; layers with one: 0, 2"):
        rdfa.tree(ids, 1, 0, 3)
    with pytest.raises(RdfaError, match=f"feature {D_SAE} does not exist; .* 0..{D_SAE - 1}"):
        rdfa.tree(ids, 2, D_SAE, 3)
    with pytest.raises(RdfaError, match=f"position {LENGTH} lies outside a sequence of {LENGTH}"):
        rdfa.tree(ids, 2, 0, LENGTH)
    with pytest.raises(RdfaError, match="feature 99 does not exist"):
        next(rdfa.trees(2, examples_of([(0, 0, 0, 3), (99, 0, 0, 3)]), lookup(ids)))


def test_a_silent_feature_has_no_tree(gpt2: LanguageModel) -> None:
    saes, ids = saes_of(gpt2), tokens(gpt2)
    silent = int(saes[1].encode(z_of(gpt2, ids, 1)[4][None])[0].argmin())
    active, _ = an_active_feature(gpt2, saes, 1, 4)
    message = f"feature {silent} of layer 1 is not active at position 4"
    with pytest.raises(InactiveFeatureError, match=message):
        Rdfa(gpt2, saes).tree(ids, 1, silent, 4)
    examples = examples_of([(silent, 0, 0, 4), (active, 0, 0, 4)])
    errors: list[InactiveFeatureError] = []
    trees = list(Rdfa(gpt2, saes).trees(1, examples, lookup(ids), on_inactive=errors.append))
    assert [tree["feature"][0] for tree in trees] == [active]
    assert [message in str(error) for error in errors] == [True]


def test_saes_that_do_not_fit_are_refused(gpt2: LanguageModel) -> None:
    wide = StandardSAE(torch.ones(7, 2), torch.zeros(2), torch.ones(2, 7), torch.zeros(7))
    with pytest.raises(RdfaError, match="the SAE of layer 1 reads 7 dimensions"):
        Rdfa(gpt2, {1: wide})

    class Doubled(StandardSAE):
        def activate(self, pre: Tensor) -> Tensor:
            return 2 * pre.relu()

    saes = saes_of(gpt2)
    doubled: dict[int, SparseAutoencoder] = {**saes, 1: Doubled(*saes[1].tensors().values())}
    feature, _ = an_active_feature(gpt2, doubled, 1, 4)
    with pytest.raises(RdfaError, match="needs an SAE whose activation is its pre-activation"):
        Rdfa(gpt2, doubled).tree(tokens(gpt2), 1, feature, 4)


def test_a_model_whose_writers_do_not_sum_is_refused(
    gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = gpt2.raw.run_with_cache

    def altered(*args: Any, **kwargs: Any) -> Any:
        output, cache = run(*args, **kwargs)
        return output, {name: cache[name] * (2 if name.endswith(changed) else 1) for name in cache}

    monkeypatch.setattr(gpt2.raw, "run_with_cache", altered)
    changed = "hook_mlp_out"
    with pytest.raises(RdfaError, match="needs blocks that add attention and MLP outputs"):
        FrozenModel(gpt2).run(tokens(gpt2), 3)
    changed = "hook_v"
    with pytest.raises(RdfaError, match=r"values of layer 0 .* needs one LayerNorm or RMSNorm"):
        FrozenModel(gpt2).run(tokens(gpt2), 3)
