"""Families of published experiments, and attribution of features to the logit difference."""

import polars as pl
import pytest
import torch

from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.experiments import (
    edges_of_a_head,
    features_at_a_role,
    noising_of_attention,
    parallel_sets,
    serial_sets,
    splicing,
)
from mechinterp_assets.interventions.feature_attribution import feature_attribution
from mechinterp_assets.interventions.feature_choice import top_features
from mechinterp_assets.interventions.sets import InterventionSet
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.base import SparseAutoencoder


def random_sae(model: LanguageModel, seed: int) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(model.config.d_z, 32, generator=generator) / model.config.d_z**0.5
    decoder = torch.nn.functional.normalize(W.T.contiguous(), dim=1)
    return StandardSAE(W, torch.zeros(32), decoder, torch.zeros(model.config.d_z))


def test_attribution_is_the_slope_of_ablation(busy: LanguageModel, organism: LanguageModel) -> None:
    prompts = ioi_prompts(organism.encode, 3, 0, organism.bos_token_id, ("base",))
    saes = {layer: random_sae(busy, layer) for layer in (1, 3)}
    attribution = feature_attribution(busy, prompts, saes, position_role="S2")
    assert set(attribution["layer"]) == {1, 3}
    assert attribution["name_order"].unique().sort().to_list() == ["ABBA", "BABA"]
    # n differs between the orders, so that their sums are compared.
    pooled = attribution.group_by("layer", "feature").agg(
        (pl.col("attribution") * pl.col("n")).sum() / 3
    )
    top = {layer: [*own[:3]] for layer, own in top_features(attribution, 3).items()}
    assert [len(own) for own in top.values()] == [3, 3]
    size = 2e-3
    given = [
        {
            "kind": "sae_feature_ablation",
            "layer": layer,
            "feature": own,
            "position_role": "S2",
            "alpha": [size, -size],
        }
        for layer, own in top.items()
    ]
    frame = run(busy, prompts, given, saes=saes).filter(metric="logit_diff")
    slope = (
        frame.group_by("layer", "feature")
        .agg((pl.col("patched") * pl.col("alpha").sign()).sum() / 3 / (2 * size))
        .join(pooled, on=["layer", "feature"])
    )
    assert slope.height == 6
    largest = float(slope["attribution"].abs().max())
    torch.testing.assert_close(
        -slope["patched"].to_torch(), slope["attribution"].to_torch(), atol=0.02 * largest, rtol=0.1
    )
    with pytest.raises(InterventionError, match="some prompts have no S9"):
        feature_attribution(busy, prompts, saes, position_role="S9")
    with pytest.raises(InterventionError, match="per_layer is 0"):
        top_features(attribution, 0)


def test_families_consist_of_what_they_should() -> None:
    noised = noising_of_attention([5, 6], ["swap", "and_with"])
    assert len(noised) == 2 * 2 * 3
    assert noised[0].id == "noise:attn_out:L5:S2:swap:vs-zero"
    assert noised[2].id == "set:noise:attn_out:L5+L6:S2:swap:vs-zero"
    spliced = splicing(range(4), [(0, 3), (1, 2)])
    assert [one.id for one in spliced[-2:]] == [
        "set:splice:L0+L3:all:vs-mean_counterfactual",
        "set:splice:L1+L2:all:vs-mean_counterfactual",
    ]
    features = features_at_a_role({5: [7, 9], 8: [1]}, receivers=[(7, 3), (8, 6)])
    assert [one.id for one in features] == [
        "ablate:sae:L5F7:S2",
        "ablate:sae:L5F9:S2",
        "ablate:sae:L8F1:S2",
        "ablate:path:L5F7:S2>v:L7H3+L8H6:S2",
        "ablate:path:L5F9:S2>v:L7H3+L8H6:S2",
    ]


def test_sets_of_edges(organism: LanguageModel) -> None:
    rows = [
        (0, 1, 2, 3, "END", "S2", "destination"),
        (1, 4, 2, 3, "END", "S2", "destination"),
        (2, 3, 4, 0, "END", "IO", "destination"),
        (2, 3, 4, 0, "S2", "IO", "destination"),
    ]
    columns = ["upstream_layer", "upstream_head", "downstream_layer", "downstream_head"]
    columns += ["destination_role", "source_role", "side"]
    edges = pl.DataFrame(rows, schema=columns, orient="row")
    (parallel,) = parallel_sets(edges, organism.config)
    assert isinstance(parallel, InterventionSet)
    assert {(m.upstream_layer, m.upstream_head) for m in parallel.members} == {
        (0, 1),
        (1, 4),
    }
    # L2H3 attends from END, so that what it was told goes on at END, not at S2.
    assert len(serial_sets(edges)) == 2
    assert len(edges_of_a_head(edges, (2, 3))) == 2 * 2 * 2 * 2
    assert len(edges_of_a_head(edges, (2, 3), out=True, modes=("ablate",), n_controls=0)) == 2 * 2
