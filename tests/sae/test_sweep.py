"""A sweep's table: every variant's row is what that SAE gives when trained and measured alone."""

from typing import Any

import polars as pl
import pytest
import torch

from mechinterp_assets.activations.forward_rows import ForwardRows
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.evaluation import evaluate_layers, evaluate_variants
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.sweep import MEASURES, Variant, frontier_rows
from mechinterp_assets.sae.train import Member, train_together
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import polars_schema

LAYER = 2


def _settings(architecture: str, **own: Any) -> SaeSettings:
    return SaeSettings(
        architecture=architecture,
        d_sae=32,
        training_tokens=1280,
        batch_size=64,
        learning_rate=5e-3,
        sample_rows=200,
        **own,
    )


def test_rows_are_those_of_each_sae_alone(organism: LanguageModel) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, organism.config.d_vocab, (60, 12), generator=generator)
    rows = ForwardRows(organism, ids[:50], [LAYER], seed=0)
    settings = {"few": _settings("topk", k=2), "l1": _settings("standard", l1_coefficient=1.0)}
    results = train_together(rows, {n: Member(LAYER, own) for n, own in settings.items()})
    means = {LAYER: torch.zeros(rows.d_in)}
    saes = {name: result.sae for name, result in results.items()}
    frame = frontier_rows(
        LAYER,
        {
            "few": Variant(settings["few"], results["few"], "k", 2),
            "l1": Variant(settings["l1"], results["l1"], "l1_coefficient", 1.0),
        },
        evaluate_variants(organism, {LAYER: saes}, ids[50:], means),
    )
    with_study = frame.select(pl.lit("s").alias("study"), pl.all())
    declared = polars_schema(table_spec("sae_frontier"))
    assert with_study.drop("study").schema == {k: v for k, v in declared.items() if k != "study"}
    assert frame["sae_variant"].to_list() == ["few", "l1"]
    assert frame["sparsity"].to_list() == [2, 1]
    assert frame["training_tokens"].to_list() == [1280, 1280]
    for row in frame.to_dicts():
        alone = evaluate_layers(organism, {LAYER: saes[row["sae_variant"]]}, ids[50:], means)
        for measure in MEASURES:
            expected = alone[measure].item()
            assert row[measure] == (expected and pytest.approx(expected, rel=1e-6)), measure
