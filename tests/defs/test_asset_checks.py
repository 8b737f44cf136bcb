"""Asset checks: every table has them, they block, read what lies upstream alone, and each
evaluation is of one partition."""

import shutil
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from mechinterp_assets.definitions import build_definitions
from mechinterp_assets.defs.checks import CHECK_STEP, CHECKS, DECLARATION
from mechinterp_assets.orchestration.registry import PARTITIONS
from mechinterp_assets.orchestration.shape import SHAPES
from mechinterp_assets.orchestration.table_checks import check_study, study_results
from mechinterp_assets.storage.checks import table_checks
from mechinterp_assets.storage.declarations import declarations, table_specs
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from tests.defs.conftest import Materialized

PROVENANCE = Provenance(study="tiny", run_id="attempt", code_version="test")


@pytest.fixture(scope="module", autouse=True)
def _shapes() -> None:
    """Assets are in the registry of shapes once definitions were built."""
    build_definitions()


@pytest.fixture
def copy(tiny: Materialized, tmp_path: Path) -> Lake:
    """A copy of the tiny study's lake that a test may damage."""
    shutil.copytree(tiny.home / "lake", tmp_path / "lake", symlinks=True)
    return Lake(tmp_path / "lake")


def test_every_table_is_checked_by_one_step_that_blocks_where_it_is_an_error() -> None:
    checks = table_checks()
    assert {key.name for key in build_definitions().resolve_asset_graph().asset_check_keys} >= {
        *("l0_in_bounds", "splice_cost_in_bounds", "slices_sum_to_scores", "ioi_accuracy"),
        DECLARATION,
    }
    assert len(CHECKS) == len(checks) == len(table_specs())
    for of_table, table in zip(CHECKS, checks, strict=True):
        assert of_table.node_def.tags[CHECK_STEP] == table
        warns = {check.name for check in checks[table] if check.severity == "warn"}
        per = table_specs()[table].per
        for spec in of_table.check_specs:
            assert spec.asset_key == dg.AssetKey(table)
            assert spec.blocking is (spec.name not in warns)
            assert spec.partitions_def == (
                PARTITIONS.studies if per == "study" else PARTITIONS.sites
            )
            assert spec.description


def upstream(table: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """Tables that are there once a table is: its step's, those it reads, and theirs."""
    shape = next(one for one in SHAPES.values() if table in one.tables)
    found = frozenset(shape.tables) | seen
    for name in [*(read.table for read in shape.reads), *shape.gates]:
        if name not in found:
            found |= upstream(name, found)
    return found


@pytest.mark.parametrize("table", sorted(table_specs()))
def test_checks_read_what_lies_upstream_alone(table: str) -> None:
    """Else a check would fail for a table that is made later."""
    for check in table_checks()[table]:
        read = declarations().tables_read(check.sql)
        assert read <= upstream(table), f"{table}.{check.name} reads {read - upstream(table)}"


def test_a_study_passes_its_checks(tiny: Materialized) -> None:
    found = check_study(tiny.lake, tiny.study)
    assert found.filter(~pl.col("passed")).to_dicts() == []
    assert set(found["table"]) == set(table_specs())
    per_site = found.filter(table="feature_statistics")["partition"].unique().sort().to_list()
    assert per_site == tiny.study.sites


def test_each_evaluation_is_of_one_partition(tiny: Materialized) -> None:
    """Also where one run covers all layers."""
    found = [one for run in tiny.results for one in run.checks]
    assert all(one.passed for one in found)
    by_table: dict[str, set[str | None]] = {}
    for one in found:
        by_table.setdefault(one.asset_key.to_user_string(), set()).add(one.partition)
        assert one.target_materialization_data is not None
    for name, spec in table_specs().items():
        expected = {tiny.study.study} if spec.per == "study" else set(tiny.study.sites)
        assert by_table[name] == expected, name
    key = dg.AssetCheckKey(dg.AssetKey("feature_statistics"), DECLARATION)
    records = tiny.instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert {record.partition for record in records} == set(tiny.study.sites)


def test_a_fault_in_one_layer_is_told_of_that_layer(tiny: Materialized, copy: Lake) -> None:
    columns = [column.name for column in table_specs()["feature_statistics"].science_columns]
    rows = copy.read("feature_statistics", "tiny.L02").select(columns).collect()
    fired = pl.col("n_active") > 0
    broken = rows.with_columns(pl.when(fired).then(pl.col("n_active") + 1).otherwise("n_active"))
    copy.write("feature_statistics", "tiny.L02", broken, PROVENANCE)
    failed = [one for one in study_results(copy, tiny.study) if not one.passed]
    assert {one.partition for one in failed} == {"tiny.L02"}
    names = {f"{one.check.table}.{one.check.name}" for one in failed}
    assert names >= {
        "feature_statistics.density_follows_from_the_counts",
        "feature_activations.agree_with_statistics",
        "feature_intervals.counts_sum_to_active_tokens",
        "feature_proxies.agree_with_statistics",
    }


def test_drifts_of_reproduction_warn(tiny: Materialized, copy: Lake) -> None:
    columns = [column.name for column in table_specs()["reproduction"].science_columns]
    rows = copy.read("reproduction", "tiny").select(columns).collect()
    bounded = pl.col("tolerance").is_not_null() & (pl.col("reference_kind") == "number")
    judged = bounded & (pl.col("judgement") == "within")
    assert rows.filter(judged).height
    off = pl.col("reference_value") + 10 * (1 + pl.col("tolerance"))
    drifted = rows.with_columns(ours=pl.when(judged).then(off).otherwise("ours")).with_columns(
        difference=pl.when(judged)
        .then(pl.col("ours") - pl.col("reference_value"))
        .otherwise("difference"),
        judgement=pl.when(judged).then(pl.lit("outside")).otherwise("judgement"),
    )
    copy.write("reproduction", "tiny", drifted, PROVENANCE)
    found = check_study(copy, tiny.study).filter(~pl.col("passed"))
    assert found.select("table", "check", "severity").rows() == [
        ("reproduction", "within_tolerance", "warn")
    ]
