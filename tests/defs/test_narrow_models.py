"""What reads a model in 16 bits gives what it gives in float32, up to the model's own rounding."""

from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl
import pytest

from mechinterp_assets.app.in_process_runs import FinishedRun
from mechinterp_assets.app.materialize import Materializer
from mechinterp_assets.definitions import build_definitions
from mechinterp_assets.orchestration.registry import STUDIES
from mechinterp_assets.storage.lake import Lake
from tests.defs.conftest import Materialized

# Every table that is computed of a model, at the smallest sizes; pages and summaries read these.
TABLES = (
    *("head_scores", "ioi_head_scores", "attention_sinks", "prefix_induction"),
    *("ioi_baseline", "trace_edges", "attention_consensus", "attention_slice_usage"),
    *("task_head_effects", "edge_attribution", "head_set_quality", "intervention_results"),
    *("sae_evaluation", "feature_dfa", "feature_rdfa", "feature_logit_effects", "qk_feature_pairs"),
)
SMALL: dict[str, dict[str, Any]] = {
    "corpus": {"documents": 300, "max_tokens": 6000},
    "activations": {"max_tokens": 6000},
    "sae": {"training_tokens": 10_000, "evaluation_tokens": 512},
    "features": {"max_tokens": 4000, "top_examples": 2, "dfa_examples": 1},
    "rdfa": {"per_layer": 1},
    "prefix_induction": {"sequences": 2, "corpus_sequences": 8, "cases": 2},
    "task_effects": {"tasks": ["ioi"], "prompts": 2, "bootstrap": 10},
    "interventions": {
        "edges": 1,
        "prompts": 2,
        "published_prompts": 2,
        "published_edges": 1,
        "published_features": 1,
        "bootstrap": 10,
        "experiments": [],
    },
    "circuits": {
        "prompts": 2,
        "ig_steps": 1,
        "exact_edges": 2,
        "head_set_size": 2,
        "minimality_heads": 1,
        "subspace_features": 0,
    },
    "checks": {"l0": [0, 128]},
}
# Mean difference of scores and its 99th percentile over heads. Beyond it are shares of a few
# tokens, which jump where rounding changes what is largest.
SCORES = {"bfloat16": (0.01, 0.15), "float16": (0.002, 0.05)}


# Products of float16 matrices are 30 times slower than float32's on a CPU.
SOME = (
    *("ioi_head_scores", "ioi_baseline", "trace_edges", "intervention_results"),
    "feature_dfa",
)
READ = {"bfloat16": TABLES, "float16": SOME}


@dataclass(frozen=True)
class Narrow:
    dtype: str
    lake: Lake
    results: list[FinishedRun]


@pytest.fixture(scope="module", params=["bfloat16", "float16"])
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Narrow:
    """The study `tiny`, its model in 16 bits, in a home of its own."""
    home = tmp_path_factory.mktemp("narrow")
    study = STUDIES["tiny"]
    sections = {**SMALL, "model": {"dtype": request.param}}
    changed = {name: getattr(study, name).with_changes(**keys) for name, keys in sections.items()}
    study = study.model_copy(update={**changed, "labels": [], "reference": None})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHINTERP_HOME", str(home))
        patch.setitem(STUDIES, "tiny", study)
        definitions = build_definitions()
        with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
            lake = Lake(home / "lake")
            work = Materializer(definitions, study, lake, instance, only=READ[request.param])
            results = list(work.run_all())
    return Narrow(request.param, lake, results)


def test_every_run_succeeds_and_every_check_passes(narrow: Narrow) -> None:
    assert all(result.success for result in narrow.results)
    checks = [check for result in narrow.results for check in result.checks]
    tables = READ[narrow.dtype]
    assert set(tables) <= {check.asset_key.to_user_string() for check in checks}
    assert all(check.passed for check in checks)
    for table in tables:
        assert narrow.lake.read(table).collect().height > 0, table
    model = narrow.lake.read("language_model", "tiny").collect()
    assert model["dtype"].to_list() == [narrow.dtype]


def test_heads_score_as_in_float32(narrow: Narrow, tiny: Materialized) -> None:
    mean, worst = SCORES[narrow.dtype]
    for table in {"head_scores", "ioi_head_scores"} & {*READ[narrow.dtype]}:
        keys = ["score", "layer", "head"]
        ours, wide = (
            lake.read(table, "tiny").select(*keys, "value").collect()
            for lake in (narrow.lake, tiny.lake)
        )
        both = ours.join(wide, on=keys, suffix="_wide", validate="1:1")
        assert len(both) == len(wide) > 0
        gap = both.select(gap=(pl.col("value") - pl.col("value_wide")).abs())["gap"]
        assert gap.null_count() == both["value_wide"].null_count()
        assert gap.fill_nan(None).mean() < mean, table
        assert gap.fill_nan(None).quantile(0.99) < worst, table


def test_prompts_are_answered_as_in_float32(narrow: Narrow, tiny: Materialized) -> None:
    ours, wide = (
        lake.read("ioi_baseline", "tiny").sort("prompt").collect()["logit_diff"].to_numpy()
        for lake in (narrow.lake, tiny.lake)
    )
    error = abs(ours - wide).mean() / abs(wide).mean()
    assert 0 < error < {"bfloat16": 0.02, "float16": 0.003}[narrow.dtype]
