"""What the automation condition requests, evaluated without running anything heavy."""

import dagster as dg

from mechinterp_assets.orchestration.registry import PARTITIONS
from mechinterp_assets.orchestration.specs import rerun_when_stale


def graph(code_version: str) -> dg.Definitions:
    """A corpus per study, an SAE per site, an overview per study, as the real assets are mapped."""

    @dg.asset(partitions_def=PARTITIONS.studies, name="corpus")
    def corpus() -> None: ...

    @dg.asset(
        partitions_def=PARTITIONS.sites,
        deps=[dg.AssetDep("corpus", partition_mapping=PARTITIONS.study_to_sites)],
        code_version=code_version,
        automation_condition=rerun_when_stale(),
        name="sae",
    )
    def sae() -> None: ...

    @dg.asset(
        partitions_def=PARTITIONS.studies,
        deps=[dg.AssetDep("sae", partition_mapping=PARTITIONS.sites_to_study)],
        automation_condition=rerun_when_stale(),
        name="overview",
    )
    def overview() -> None: ...

    return dg.Definitions(assets=[corpus, sae, overview])


def materialize(instance: dg.DagsterInstance, asset: str, *partitions: str) -> None:
    for partition in partitions:
        tags = {"dagster/code_version": "1"}
        event = dg.AssetMaterialization(asset, partition=partition, tags=tags)
        instance.report_runless_asset_event(event)


SITES = ["tiny.L00", "tiny.L02"]


def requested(result: dg.EvaluateAutomationConditionsResult, asset: str) -> set[str]:
    return {str(key) for key in result.get_requested_partitions(dg.AssetKey(asset))}


def test_an_update_reruns_what_depends_on_it_once() -> None:
    defs = graph("1")
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.evaluate_automation_conditions(defs=defs, instance=instance)
        assert result.total_requested == 0
        materialize(instance, "corpus", "tiny")
        result = dg.evaluate_automation_conditions(
            defs=defs, instance=instance, cursor=result.cursor
        )
        assert requested(result, "sae") == set(SITES)
        result = dg.evaluate_automation_conditions(
            defs=defs, instance=instance, cursor=result.cursor
        )
        assert result.total_requested == 0


def test_an_overview_waits_for_every_layer() -> None:
    defs = graph("1")
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "corpus", "tiny")
        result = dg.evaluate_automation_conditions(defs=defs, instance=instance)
        counts = []
        for site in SITES:
            materialize(instance, "sae", site)
            result = dg.evaluate_automation_conditions(
                defs=defs, instance=instance, cursor=result.cursor
            )
            counts.append(requested(result, "overview"))
        assert counts == [set(), {"tiny"}]


def test_a_changed_formula_reruns_what_was_made_with_the_old_one_once() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "corpus", "tiny")
        materialize(instance, "sae", *SITES)
        materialize(instance, "overview", "tiny")
        first = dg.evaluate_automation_conditions(defs=graph("1"), instance=instance)
        changed = graph("2")
        second = dg.evaluate_automation_conditions(
            defs=changed, instance=instance, cursor=first.cursor
        )
        assert requested(second, "sae") == set(SITES)
        third = dg.evaluate_automation_conditions(
            defs=changed, instance=instance, cursor=second.cursor
        )
        assert requested(third, "sae") == set()
