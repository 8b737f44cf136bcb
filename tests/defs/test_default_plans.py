"""Default plans on models they were not made for: what holds is made, the rest says why not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from mechinterp_assets.model.analyses import ANALYSES
from mechinterp_assets.storage.lake import Lake
from tests.conftest import HANGS
from tests.defs.odd_models import byte_tokenizer, grouped, organism_tokenizer, side_by_side

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "description": "a random model",
    "corpus": {"format": "structured", "documents": 300, "max_tokens": 12000}
    | {"context_size": 32, "held_out_fraction": 0.3},
    "activations": {"layers": [0, 1], "max_tokens": 4000},
    "sae": {"architecture": "topk", "d_sae": 32, "k": 4, "training_tokens": 4000}
    | {"batch_size": 256, "evaluation_tokens": 512},
    "heads": {"sequences": 2, "repeat_length": 8, "sink_length": 16, "null_draws": 2}
    | {"suppression_tokens": 16, "cspa_sequences": 0, "ioi_prompts": 4, "patched_prompts": 2},
    "ioi": {"prompts": 4, "usage_sequences": 2},
    "tasks": {"prompts": 4},
    "task_effects": {"prompts": 2, "bootstrap": 10},
    "qk_features": {"prompts": 4},
    "circuits": {"prompts": 2, "ig_steps": 1, "ig_rules": ["library"], "exact_prompts": 1}
    | {"exact_edges": 5, "random_rankings": 1, "head_set_size": 2, "minimality_heads": 1}
    | {"random_head_sets": 1, "random_subsets": 1},
    "interventions": {"prompts": 4, "published_prompts": 4, "edges": 2, "published_edges": 1}
    | {"published_features": 1, "bootstrap": 10},
}


def materialize(
    folder: Path, make: Callable[[Path], None], *selected: str, **sections: Any
) -> Lake:
    """The lake of a study of the model that `make` writes, some of its tables made."""
    (folder / "model").mkdir()
    make(folder / "model")
    study = {"study": "odd", "model": {"path": "model"}, **SMALL, **sections}
    (folder / "odd.yaml").write_text(yaml.safe_dump(study))
    names = [word for name in selected for word in ("--select", name)]
    done = subprocess.run(
        [sys.executable, "-m", "mechinterp_assets", "materialize", "odd", *names],
        env=os.environ
        | {"MECHINTERP_HOME": str(folder / "home"), "MECHINTERP_STUDIES": str(folder / "odd.yaml")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Lake(folder / "home" / "lake")


def table(lake: Lake, name: str) -> pl.DataFrame:
    return lake.read(name, "odd").collect()


def test_a_tokenizer_that_splits_names(tmp_path: Path) -> None:
    """Grouped queries, rotary positions, no biases, a byte per token: no IOI, all else is made."""

    def make(folder: Path) -> None:
        size = byte_tokenizer(folder)
        grouped(folder, size, n_kv_heads=2, bos=size - 1)

    wanted = (
        "experiment_dashboards",
        "task_head_effects",
        "task_baseline",
        "attention_slice_usage",
    )
    lake = materialize(tmp_path, make, *wanted)
    for name in ("ioi_prompts", "ioi_baseline", "ioi_head_scores", "trace_edges"):
        assert table(lake, name).is_empty(), name
    assert table(lake, "intervention_results").is_empty()
    assert table(lake, "head_scores").height > 0
    assert set(table(lake, "task_head_effects")["task"]) == {"induction"}
    assert set(table(lake, "attention_slice_usage")["text_source"]) <= {"corpus"}
    skipped = table(lake, "task_baseline").drop_nulls("skipped")
    reasons = dict(skipped.select("task", "skipped").iter_rows())
    assert "0 of 103 names are single tokens" in reasons["ioi"]
    root = table(lake, "trace_roots").row(0, named=True)
    assert (root["task"], root["layer"]) == ("ioi", None)
    assert "no prompts" in root["skipped"]
    plan = table(lake, "intervention_plan")
    assert set(plan["decision"]) == {"left out"}
    assert set(plan["asked_by"]) == {
        "interventions.head_ablations",
        "interventions.edges",
        "interventions.published",
    }


def test_shared_keys_and_own_experiments_that_do_not_fit(tmp_path: Path) -> None:
    """One key for four heads, attention peaked enough for a trace, a model that cannot do IOI."""
    edge = {
        "kind": "edge",
        "mode": "ablate",
        "layer": 2,
        "head": 1,
        "upstream_layer": 0,
        "upstream_head": 0,
        "destination_role": "END",
        "source_role": "S3",
        "side": "source",
        "scope": "local",
        "receiver": "k",
    }
    own = [
        {"kind": "head_ablation", "mode": "zero", "layer": [1, 9], "head": 0},
        {"kind": "head_ablation", "mode": "mean_counterfactual", "layer": 0, "head": 0},
        edge,
    ]
    lake = materialize(
        tmp_path,
        lambda folder: grouped(folder, organism_tokenizer(folder), n_kv_heads=1, spread=0.6),
        "intervention_summary",
        ioi=SMALL["ioi"] | {"roots": [[1, 0], [2, 1], [2, 0, "S1"]], "prompts": 16},
        interventions=SMALL["interventions"]
        | {"prompts": 16, "published_prompts": 16}
        | {"head_ablations": ["mean_counterfactual"], "experiments": [{"interventions": own}]},
    )
    plan, results = table(lake, "intervention_plan"), table(lake, "intervention_results")
    mine = plan.filter(asked_by="interventions.experiments.0")
    decisions = dict(mine.select("intervention", "decision").iter_rows())
    assert decisions["zero:L1H0:all"] == "run"
    assert decisions["zero:L9H0:all"] == "left out"
    reasons = mine["reason"].drop_nulls().to_list()
    assert any("layer 9 does not exist; the model has 0..2" in reason for reason in reasons)
    assert any("was not traced in any of the" in reason for reason in reasons)
    assert any("interventions.head_ablations runs it on this task already" in r for r in reasons)

    # Keys are edited for all heads that share them, and the rows say so.
    changed = plan.filter(decision="changed")
    assert changed["intervention"].n_unique() > 2
    assert all("4 heads share each key" in reason for reason in changed["reason"])
    local = results.filter(pl.col("receiver") == "k")
    assert local.height > 0
    for layer, head, seen in local.select("layer", "head", "shared_with").unique().iter_rows():
        others = [f"L{layer}H{other}" for other in range(4) if other != head]
        assert seen == "+".join(others)
    assert results.filter(receiver="q")["shared_with"].null_count() > 0
    runs = plan.filter(pl.col("decision") != "left out")["intervention"]
    assert set(runs) == set(results["intervention"])


def test_no_head_is_a_root(tmp_path: Path) -> None:
    """Attention and MLP side by side, uniform attention: nothing to trace, all else is made."""
    lake = materialize(
        tmp_path,
        lambda folder: side_by_side(folder, organism_tokenizer(folder)),
        "intervention_summary",
        "circuit_faithfulness",
    )
    assert table(lake, "trace_graph").is_empty()
    (why,) = table(lake, "trace_roots")["skipped"]
    assert "no head qualifies as a root" in why
    plan = table(lake, "intervention_plan")
    fc24 = plan.filter(pl.col("asked_by").str.starts_with("interventions.published.fc24"))
    assert set(fc24["decision"]) == {"left out"}
    ran = set(plan.filter(decision="run")["asked_by"])
    assert ran >= {"interventions.head_ablations", "interventions.published.k24_splicing"}
    through = plan.filter(pl.col("intervention").str.ends_with(":mlp"))
    assert set(through["decision"]) <= {"left out"}
    assert table(lake, "circuit_faithfulness").is_empty()  # its blocks are no functions of ours

    # What does not hold of the model, as a table, and with all else that was left out as a view.
    capabilities = table(lake, "model_capabilities")
    assert set(capabilities["analysis"]) == set(ANALYSES)
    missing = capabilities.filter(~pl.col("holds"))
    assert set(missing["analysis"]) == {"token_weights", "path_patching", "edges"}
    assert missing["reason"].str.contains("side by side").all()
    holds = capabilities.filter("holds")
    assert (holds["error"] <= holds["allowed"]).all()
    left_out = lake.sql("SELECT * FROM left_out WHERE study = 'odd'")
    by_analysis = left_out.rows_by_key("analysis", named=True, include_key=True)
    reasons = dict(missing.select("analysis", "reason").iter_rows())
    for analysis, reason in reasons.items():
        assert [row["reason"] for row in by_analysis.pop(analysis)] == [reason]
    assert [row["reason"] for row in by_analysis.pop("trace")] == [why]
    dropped = plan.filter(decision="left out").select("task", "asked_by", "intervention", "reason")
    shown = pl.DataFrame(by_analysis.pop("interventions")).select(dropped.columns)
    assert shown.sort(shown.columns).rows() == dropped.sort(dropped.columns).rows()
    assert not by_analysis
