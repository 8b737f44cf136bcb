"""The code location: loads, declares everything, and maps partitions explicitly."""

import difflib
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from mechinterp_assets.definitions import build_definitions
from mechinterp_assets.orchestration.plan import StudyGraph, Unit
from mechinterp_assets.orchestration.reads import dependency
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.shape import SHAPES
from mechinterp_assets.orchestration.sources import GROUP as SOURCES
from mechinterp_assets.orchestration.sources import data_versions
from mechinterp_assets.storage.checks import table_checks
from mechinterp_assets.storage.declarations import table_specs
from tests.defs.asset_graph import FILE, asset_graph


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions()


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {s.key.to_user_string(): s for s in definitions.resolve_all_asset_specs()}


def test_loadable(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_graph(definitions: dg.Definitions) -> None:
    """A change of the graph is a change that users see: look at the diff, then write it anew."""
    before, now = FILE.read_text().splitlines(), asset_graph().splitlines()
    diff = "\n".join(difflib.unified_diff(before, now, "asset_graph.txt", "now", lineterm=""))
    assert not diff, f"the asset graph changed; python -m tests.defs.asset_graph writes it\n{diff}"


def test_dependencies_are_the_reads_and_gates(definitions: dg.Definitions) -> None:
    by_name = specs(definitions)
    for shape in SHAPES.values():
        declared = {read.table for read in shape.upstream}
        declared |= {f"settings/{path.partition('.')[0]}" for path in shape.settings}
        declared |= {f"files/{path.replace('.', '_')}" for path in shape.files}
        for table in shape.tables:
            found = {dep.asset_key.to_user_string() for dep in by_name[table].deps}
            assert found == declared, table


def test_a_gate_has_a_blocking_check_and_is_not_read() -> None:
    checks = table_checks()
    for shape in SHAPES.values():
        for gate in shape.gates:
            assert any(check.severity == "error" for check in checks[gate]), shape.name
        assert not set(shape.gates) & {read.table for read in shape.reads}, shape.name


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    for name, spec in specs(definitions).items():
        if spec.group_name == SOURCES:
            assert spec.description, name
            continue
        assert spec.owners, name
        assert spec.kinds, name
        assert spec.group_name not in (None, "default"), name
        assert spec.code_version, name
        assert spec.description, name
        schema = spec.metadata["dagster/column_schema"]
        assert all(column.description for column in schema.columns), name


def test_assets_are_the_declared_tables(definitions: dg.Definitions) -> None:
    tables = {name for name, spec in specs(definitions).items() if spec.group_name != SOURCES}
    assert tables == set(table_specs())


def test_sources_are_what_tables_come_from(definitions: dg.Definitions) -> None:
    by_name = specs(definitions)
    sources = {name for name, spec in by_name.items() if spec.group_name == SOURCES}
    used = {dep.asset_key.to_user_string() for spec in by_name.values() for dep in spec.deps}
    assert sources == {name for name in used if name not in table_specs()}
    studies = [STUDIES["tiny"], STUDIES["organism"]]
    versions = {key.to_user_string(): many for key, many in data_versions(studies).items()}
    assert versions.keys() == sources
    assert all(many.keys() == {"tiny", "organism"} for many in versions.values())
    sae = STUDIES["tiny"].sae.with_changes(k=7)
    changed = data_versions([STUDIES["tiny"].model_copy(update={"sae": sae})])
    assert {
        key.to_user_string()
        for key in changed
        if changed[key]["tiny"] != versions[key.to_user_string()]["tiny"]
    } == {"settings/sae"}


def test_the_sensor_reports_what_changed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechinterp_assets.defs.automation import study_files

    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path))
    file = tmp_path / "tiny.yaml"
    original = STUDIES["tiny"].file
    for name in ("tiny-labels.csv", "tiny-interventions"):
        (tmp_path / name).symlink_to(original.parent / name)
    file.write_text(original.read_text())
    monkeypatch.setenv("MECHINTERP_STUDIES", str(file))
    with dg.DagsterInstance.ephemeral() as instance:

        def events(cursor: str | None) -> tuple[set[tuple[str, str | None]], str | None]:
            context = dg.build_sensor_context(instance=instance, cursor=cursor)
            result = study_files(context)
            assert isinstance(result, dg.SensorResult)
            found = result.asset_events or []
            return {(e.asset_key.to_user_string(), e.partition) for e in found}, result.cursor

        first, cursor = events(None)
        assert ("settings/sae", "tiny") in first
        nothing, cursor = events(cursor)
        assert nothing == set()
        file.write_text(file.read_text().replace("  k: 8\n", "  k: 7\n", 1))
        assert events(cursor)[0] == {("settings/sae", "tiny")}


def test_no_silent_identity_mapping(definitions: dg.Definitions) -> None:
    """Dagster infers identity between different static definitions: never rely on it."""
    by_name = specs(definitions)
    for name, spec in by_name.items():
        for dep in spec.deps:
            upstream = by_name[dep.asset_key.to_user_string()]
            mapping = dep.partition_mapping
            assert mapping is not None, f"{name} <- {dep.asset_key}: no explicit mapping"
            crosses = upstream.partitions_def != spec.partitions_def
            if mapping in (PARTITIONS.sites_to_later_sites, PARTITIONS.sites_to_compared_sites):
                assert not crosses, name
                continue
            assert isinstance(mapping, dg.StaticPartitionMapping) == crosses, name


def upstream(
    mapping: dg.StaticPartitionMapping,
    down: dg.StaticPartitionsDefinition,
    up: dg.StaticPartitionsDefinition,
    key: str,
) -> set[str]:
    """Partitions that a partition is made from, as Dagster maps them."""
    subset = down.empty_subset().with_partition_keys([key])
    result = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, down, up)
    return set(result.partitions_subset.get_partition_keys())


def test_the_plan_and_dagster_mean_the_same_partitions() -> None:
    """Which partitions a declared read is of stands in the plan and in Dagster's mappings."""
    definitions = {"study": PARTITIONS.studies, "site": PARTITIONS.sites}
    for name in ("tiny", "organism"):
        graph = StudyGraph(STUDIES[name], STUDIES)
        for unit in graph.units:
            expected: set[Unit] = set()
            for read in graph.shapes[unit.step].upstream:
                up = definitions[table_specs()[read.table].per]
                mapping = dependency(read, graph.per(unit)).partition_mapping
                keys = {unit.partition}
                if isinstance(mapping, dg.StaticPartitionMapping):
                    keys = upstream(mapping, definitions[graph.per(unit)], up, unit.partition)
                found = {graph.unit_of((read.table, key)) for key in keys}
                expected |= {one for one in found if one is not None and one != unit}
            assert graph.inputs(unit) == expected, unit


def test_mappings_go_both_ways() -> None:
    sites, studies = PARTITIONS.sites, PARTITIONS.studies
    assert upstream(PARTITIONS.study_to_sites, sites, studies, "tiny.L02") == {"tiny"}
    assert upstream(PARTITIONS.sites_to_study, studies, sites, "tiny") == {"tiny.L00", "tiny.L02"}
    later = PARTITIONS.sites_to_later_sites
    assert upstream(later, sites, sites, "tiny.L00") == {"tiny.L00"}
    assert upstream(later, sites, sites, "tiny.L02") == {"tiny.L00", "tiny.L02"}
    compared = PARTITIONS.sites_to_compared_sites
    assert upstream(compared, sites, sites, "organism.L00") == {"organism.L00", "organism.L01"}
    down = PARTITIONS.study_to_sites.get_downstream_partitions_for_partitions(
        studies.empty_subset().with_partition_keys(["gpt2-small"]), studies, sites
    )
    assert len(list(down.get_partition_keys())) == STUDIES["gpt2-small"].n_layers


def test_gpu_work_is_in_the_pool(definitions: dg.Definitions) -> None:
    pools = {
        assets.op.name: assets.op.pool
        for assets in definitions.resolve_asset_graph().assets_defs
        if assets.is_executable
    }
    for name in ("activation_cache", "attention_sae", "sae_evaluation", "feature_pass"):
        assert pools[name] == "gpu", name


def test_schedule_requests_only_trained_saes(tmp_path: Path) -> None:
    from mechinterp_assets.defs.automation import weekly_evaluation

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(instance, datetime(2026, 1, 5, 3, tzinfo=UTC))
        assert weekly_evaluation(context) == []
        for key in ("tiny.L00", "tiny.L02", "organism.L01"):
            instance.report_runless_asset_event(
                dg.AssetMaterialization("attention_sae", partition=key)
            )
        requests = weekly_evaluation(context)
    ranges = {
        (
            r.tags["dagster/asset_partition_range_start"],
            r.tags["dagster/asset_partition_range_end"],
        )
        for r in requests
    }
    assert ranges == {("tiny.L00", "tiny.L02"), ("organism.L01", "organism.L01")}
