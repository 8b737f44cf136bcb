"""All of a task's frames: what is compared by default, and that the frames fit their tables."""

import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.faithfulness.measure import (
    measure_circuits,
    measure_subspaces,
)
from mechinterp_assets.faithfulness.settings import CircuitSettings
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec

SETTINGS = CircuitSettings(
    prompts=3,
    ig_steps=2,
    ig_rules=["midpoint"],
    exact_prompts=2,
    random_rankings=1,
    head_set_size=2,
    minimality_heads=2,
    random_head_sets=1,
    random_subsets=1,
)


def check_columns(frame: pl.DataFrame, table: str) -> None:
    spec = table_spec(table)
    expected = {c.name for c in spec.science_columns} - {"study", "task"}
    assert set(frame.columns) == expected
    declared = polars_schema(spec)
    for name, kind in frame.schema.items():
        assert kind == declared[name], (table, name)


@pytest.fixture(scope="module")
def traced() -> pl.DataFrame:
    row = {
        "upstream_layer": 0,
        "upstream_head": 1,
        "downstream_layer": 1,
        "downstream_head": 0,
        "side": "destination",
        "n_prompts": 3,
        "trace_rule": "fc24",
    }
    return pl.DataFrame([row, {**row, "side": "source", "n_prompts": 2}])


def test_frames_of_circuits(
    split: SplitModel, toy_prompts: pl.DataFrame, traced: pl.DataFrame
) -> None:
    notes: list[str] = []
    heads = pl.DataFrame(
        {"layer": [1, 0], "head": [0, 1], "n_prompts": [3, 3], "n_pairs": [4, 5]},
        schema_overrides={"n_pairs": pl.Int64},
    )
    found = measure_circuits(
        split,
        toy_prompts,
        SETTINGS,
        counterfactual="corrupt",
        traced=traced,
        trace_heads={"fc24": heads, "acc": heads.tail(1), "acc++": heads.clear()},
        named_sets={"published": frozenset({(0, 0), (1, 1)})},
        roles={"mover": frozenset({(1, 1)})},
        note=notes.append,
    )
    for table in (
        "edge_attribution",
        "edge_attribution_agreement",
        "circuit_faithfulness",
        "circuit_faithfulness_summary",
        "head_set_quality",
    ):
        check_columns(getattr(found, table), table)
    edges = found.edge_attribution
    assert edges.height == 2 * split.graph.n_edges
    assert edges["exact"].null_count() == 0
    rankings = set(found.circuit_faithfulness["ranking"])
    assert rankings == {
        "eap",
        "eap_ig_midpoint",
        "exact",
        "head_ablation",
        "trace fc24",
        "trace_completed fc24",
        "trace_heads fc24",
        "trace_heads acc",  # acc++ found nothing
        "random",
    }
    assert found.circuit_faithfulness.filter(edge_fraction=1.0)[
        "faithfulness"
    ].to_list() == pytest.approx([1.0] * found.circuit_faithfulness_summary.height)
    sets = set(found.head_set_quality["head_set"])
    assert {"trace fc24", "trace acc", "head_ablation", "roles", "role mover", "published"} <= sets
    assert any(name.startswith("random:") for name in sets)
    assert notes


def test_sampled_effects_rank_no_circuit(split: SplitModel, toy_prompts: pl.DataFrame) -> None:
    settings = CircuitSettings(prompts=2, exact_edges=5, exact_prompts=1, ig_rules=["library"])
    found = measure_circuits(split, toy_prompts, settings, counterfactual="corrupt")
    eap = found.edge_attribution.filter(method="eap")
    assert eap["exact"].drop_nulls().len() == 5
    assert "exact" not in found.circuit_faithfulness["ranking"]
    assert "trace fc24" not in found.circuit_faithfulness["ranking"]
    assert found.edge_attribution_agreement["n_exact_edges"].to_list() == [5, 5]


def test_frames_of_subspaces(organism: LanguageModel, ioi_pairs: pl.DataFrame) -> None:
    """A made-up SAE whose feature 1 fires on the counterfactual's own tokens."""
    model = SplitModel(organism)
    decoder = torch.nn.functional.normalize(torch.eye(4, model.shape.d_z), dim=-1)

    def encode(layer: int, ids: Tensor) -> Tensor:
        activations = torch.zeros(*ids.shape, 4)
        activations[..., 1] = ids.float()
        return activations

    frame = measure_subspaces(
        model,
        ioi_pairs,
        counterfactual="ABC",
        count=6,
        features=2,
        decoders={2: decoder},
        encode=encode,
    )
    check_columns(frame, "subspace_patching")
    assert set(frame["direction"]) == {"counterfactual", "name_order", "sae_decoder"}
    features = frame.filter(direction="sae_decoder")
    assert set(features["feature"]) == {1}
    assert set(features["position_role"]) == {"S2"}  # END is the same word in both
    assert frame.filter(patched_part="null")["fldd"].abs().max() < 1e-4
    assert set(frame.filter(direction="name_order")["patched_from"]) == {"swap"}
