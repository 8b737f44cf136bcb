"""`mechinterp reproduce`: what it prints, its exit codes, and its answers to mistakes."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.app import reproduce as report
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from tests.command_line import Called, call

REFERENCE = """
study: tiny
kind: {kind}
about: made up
references:
  - id: l0
    what: Active features [per token]
    measure: sae_l0
    source: "Table 1"
    statistic: mean number of active features per token
    position: every token but BOS and position 0
    condition: {{weights: raw, model: gpt2 1x1x1, bos: none, corpus: structured, sae: topk}}
    values: {{0: {expected}, 2: 16}}
    {tolerance}
    reason: Because.
  - id: roles
    what: Heads with a role
    measure: heads_with_role
    source: "Table 2"
    statistic: heads whose scores pass thresholds
    position: "by role: the view head_score_definitions"
    condition:
      prompts: this project's
      rule: thresholds of head_role_conditions
      model: gpt2 1x1x1
      bos: none
      corpus: structured
    heads: {{induction: [[1, 1]]}}
    needs: scores
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def measured(home: Path) -> Path:
    """A home whose only rows are a model and two SAE evaluations of the study `tiny`."""
    lake = Lake(home / "lake")
    model = {"model_type": "gpt2", "n_layers": 1, "n_heads": 1, "d_model": 1, "prepend_bos": False}
    _write(lake, "language_model", "tiny", model)
    for layer, l0 in ((0, 15.5), (2, 16.0)):
        _write(lake, "sae_evaluation", f"tiny.L{layer:02d}", {"layer": layer, "l0": l0})
    return home


def _write(lake: Lake, table: str, partition: str, values: dict[str, object]) -> None:
    """One row, with something in the columns that are not given."""
    schema = polars_schema(table_spec(table))
    some: dict[type, object] = {pl.Int32: 0, pl.Int64: 0, pl.Float64: 0.5, pl.String: "x"}
    row = {name: some.get(type(dtype), [0]) for name, dtype in schema.items()}
    frame = pl.DataFrame([row | values], schema=schema)
    lake.write(table, partition, frame, Provenance("tiny", "run", "0"))


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes the reference file that the study is taken to name."""
    file = tmp_path / "reference.yaml"

    def path_of(study: str, named: Path | None) -> Path:
        return file

    monkeypatch.setattr(report, "reference_path", path_of)

    def write(kind: str = "published", expected: float = 3, tolerance: str = "") -> Path:
        text = REFERENCE.format(kind=kind, expected=expected, tolerance=tolerance)
        file.write_text(text)
        return file

    return write


def _reproduce(*arguments: str) -> tuple[Called, str]:
    result = call(["reproduce", *arguments])
    return result, " ".join(result.output.replace("│", " ").split())


def test_published_numbers_never_fail(measured: Path, reference: Callable[..., Path]) -> None:
    reference(expected=3)
    result, text = _reproduce("tiny", "--no-run")
    assert result.exit_code == 0, text
    assert "Active features [per token] 0 15.5 3 +12.5" in text
    assert "2 16 16 +0" in text
    assert "Heads with a role induction - L1H1" in text
    assert "reason: Because." in text
    assert "needs: scores" in text
    assert "l0 (Table 1)" in text
    assert "3 values; 0 of 0 within tolerance" in text
    assert "1 without one of ours; 0 under another condition" in text
    assert (
        "not materialized, so without values: attention_sae, circuit_faithfulness_summary" in text
    )


def test_exit_code_says_whether_a_rerun_is_within_tolerance(
    measured: Path, reference: Callable[..., Path]
) -> None:
    reference("measured", 15, "tolerance: {absolute: 0.6}")
    result, text = _reproduce("tiny", "--no-run")
    assert result.exit_code == 0
    assert "0 15.5 15 ± 0.6 +0.5 within" in text
    reference("measured", 15, "tolerance: {absolute: 0.4}")
    result, text = _reproduce("tiny", "--no-run")
    assert result.exit_code == 1
    assert "0 15.5 15 ± 0.4 +0.5 OUTSIDE" in text
    result, text = _reproduce("tiny", "--no-run", "--only", "roles")
    assert result.exit_code == 0
    assert "Active features" not in text


def test_a_run_under_another_condition_says_which(
    measured: Path, reference: Callable[..., Path]
) -> None:
    file = reference("measured", 15, "tolerance: {absolute: 0.4}")
    file.write_text(file.read_text().replace("bos: none, corpus", "bos: <s>, corpus"))
    result, text = _reproduce("tiny", "--no-run", "--only", "l0")
    assert result.exit_code == 0, text
    assert "0 15.5 15 ± 0.4 +0.5 other condition" in text
    assert "differs in: bos" in text
    assert (
        "here: statistic: mean number of active features per token; position: every token" in text
    )
    assert "0 of 0 within tolerance" in text
    assert "2 under another condition, so neither equal nor different" in text


def test_what_would_be_compared_is_told_without_a_lake(
    home: Path, reference: Callable[..., Path]
) -> None:
    file = reference(expected=3)
    file.write_text(file.read_text().replace("corpus: structured, sae", "corpus: books, sae"))
    result, text = _reproduce("tiny", "--dry-run", "--only", "l0")
    assert result.exit_code == 0, text
    assert "0 - 3 missing" in text
    assert "condition: weights: raw; model: gpt2 1x1x1; bos: none; corpus: books; sae: topk" in text
    assert "differs in: corpus" in text
    assert "not known of this run: model, bos" in text
    assert "corpus: structured; sae: topk" in text
    assert not any(home.rglob("*.parquet"))
    file.unlink()
    assert _reproduce("tiny", "--dry-run")[0].exit_code == 2


def test_a_run_becomes_the_reference(measured: Path, reference: Callable[..., Path]) -> None:
    file = reference("measured", 15, "tolerance: {absolute: 0.4}")
    result, text = _reproduce("tiny", "--no-run", "--write-reference")
    assert result.exit_code == 2
    assert "roles: heads_with_role has no value for 'induction' any more" in text
    file.write_text(file.read_text().partition("  - id: roles")[0])
    result, text = _reproduce("tiny", "--no-run", "--write-reference")
    assert result.exit_code == 0, text
    assert "0 15.5 15.5 ± 0.4 +0 within" in text
    assert "tolerance: {absolute: 0.4}" in file.read_text()
    file.unlink()
    result, text = _reproduce("tiny", "--no-run", "--write-reference")
    assert result.exit_code == 0, text
    assert "sae-l0" in file.read_text()


def test_mistakes_are_answered_before_anything_runs(
    home: Path, reference: Callable[..., Path]
) -> None:
    file = reference()
    for arguments, expected in (
        (["nothing"], "no study 'nothing'; one of"),
        (["tiny", "--only", "lO"], "no reference 'lO' of tiny; one of l0, roles"),
        (["tiny", "--no-run"], "nothing is materialized in"),
        (["tiny", "--no-run", "--write-reference"], "nothing is materialized in"),
    ):
        result, text = _reproduce(*arguments)
        assert result.exit_code == 2, text
        assert expected in text
    file.write_text(file.read_text().replace("sae_l0", "sae_10"))
    result, text = _reproduce("tiny")
    assert result.exit_code == 2
    assert "no measure 'sae_10' in sql/reproduce; perhaps sae_l0" in text
    file.unlink()
    result, text = _reproduce("tiny")
    assert result.exit_code == 2
    assert "study 'tiny' has no reference file" in text
    assert "--write-reference" in text
