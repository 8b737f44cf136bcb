"""What is run next: all that is stale, once, and nothing that may yet come out fresh."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mechinterp_assets.orchestration.plan import (
    PlannedRun,
    StudyGraph,
    Unit,
    in_order,
    next_run,
    ready_units,
    stages,
)
from mechinterp_assets.orchestration.reads import Read, as_reads
from mechinterp_assets.orchestration.shape import Shape
from mechinterp_assets.staleness.reasons import Reason
from mechinterp_assets.storage.table_spec import Per
from mechinterp_assets.studies.study import Study
from mechinterp_assets.studies.study_file import load_study

STUDY = Path(__file__).resolve().parents[1] / "studies" / "tiny.yaml"
SETTINGS = Reason("settings", "sae.k: 8 -> 6", None, "settings")
SITES = ("tiny.L00", "tiny.L02")


def shape(name: str, per: Per, *reads: str | Read, together: bool = False) -> tuple[str, Shape]:
    """A step that writes the declared table of its name."""
    return name, Shape(name, "a group", (name,), per, as_reads(reads), (), (), (), None, together)


# Real names of tables, so that their declarations say whether they are per study or per layer.
SHAPES = dict(
    [
        shape("language_model", "study"),
        shape("tokenized_corpus", "study", "language_model"),
        shape("activation_cache", "site", "tokenized_corpus", together=True),
        shape("attention_sae", "site", "activation_cache", together=True),
        shape("feature_statistics", "site", "attention_sae"),
        shape("feature_rdfa", "site", Read("attention_sae", "earlier"), "feature_statistics"),
        shape("feature_labels", "study", "attention_sae"),
        shape("feature_dashboards", "site", "feature_statistics", "feature_labels"),
    ]
)


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(STUDY)


@pytest.fixture(scope="module")
def graph(study: Study) -> StudyGraph:
    return StudyGraph(study, {"tiny": study}, SHAPES)


def changed(table: str, partition: str) -> Reason:
    """The reason of what was made from another version of a table."""
    return Reason("input", f"{table} has other data", (table, partition), f"{table}{partition}")


def run_everything(
    graph: StudyGraph,
    stale: Callable[[set[Unit]], dict[Unit, list[Reason]]],
) -> list[PlannedRun]:
    """All runs until nothing is stale; `stale` says what is, given what was made."""
    made: set[Unit] = set()
    runs = []
    while (run := next_run(graph, stale(made))) is not None:
        assert not made & set(run.units)
        made |= set(run.units)
        runs.append(run)
    assert not stale(made)
    return runs


def test_everything_missing_is_made_once_in_stages(graph: StudyGraph) -> None:
    missing = Reason("missing", "never made")

    def stale(made: set[Unit]) -> dict[Unit, list[Reason]]:
        return {unit: [missing] for unit in graph.units if unit not in made}

    runs = run_everything(graph, stale)
    assert [run.steps for run in runs] == [
        ("language_model", "tokenized_corpus"),
        ("activation_cache", "attention_sae", "feature_statistics", "feature_rdfa"),
        ("feature_labels",),
        ("feature_dashboards",),
    ]
    assert [run.partitions for run in runs] == [("tiny",), SITES, ("tiny",), SITES]
    assert [list(run.steps) for run in runs] == [
        [name for name in in_order(SHAPES) if name in stage] for stage in stages(SHAPES)
    ]


def test_a_result_that_comes_out_as_it_was_ends_there(graph: StudyGraph) -> None:
    """Early cut-off: the settings of the SAEs change, their weights do not."""

    def stale(made: set[Unit]) -> dict[Unit, list[Reason]]:
        units = [Unit("attention_sae", key) for key in SITES]
        return {unit: [SETTINGS] for unit in units if unit not in made}

    (run,) = run_everything(graph, stale)
    assert run.units == [Unit("attention_sae", key) for key in SITES]


def test_what_follows_runs_when_it_has_changed(graph: StudyGraph) -> None:
    """One layer's SAE comes out changed: what is made from it follows, the other layer does not."""
    first, other = SITES

    def stale(made: set[Unit]) -> dict[Unit, list[Reason]]:
        found = {Unit("attention_sae", key): [SETTINGS] for key in SITES}
        if Unit("attention_sae", first) in made:
            of_sae = [changed("attention_sae", first)]
            found[Unit("feature_statistics", first)] = of_sae
            # Later layers read the SAEs of earlier ones.
            found |= {Unit("feature_rdfa", key): of_sae for key in SITES}
            found[Unit("feature_labels", "tiny")] = of_sae
        if Unit("feature_statistics", first) in made:
            found[Unit("feature_dashboards", first)] = [changed("feature_statistics", first)]
        return {unit: reasons for unit, reasons in found.items() if unit not in made}

    runs = run_everything(graph, stale)
    units = [unit for run in runs for unit in run.units]
    assert Unit("feature_statistics", other) not in units
    assert units.count(Unit("feature_dashboards", first)) == 1
    assert units.index(Unit("feature_labels", "tiny")) < units.index(
        Unit("feature_dashboards", first)
    )


def test_what_may_come_out_fresh_waits(graph: StudyGraph) -> None:
    """A setting was changed and put back: what was made in between may fit again."""
    pending = {
        Unit("attention_sae", SITES[0]): [SETTINGS],
        Unit("feature_statistics", SITES[0]): [changed("attention_sae", SITES[0])],
    }
    run = next_run(graph, pending)
    assert run is not None
    assert run.units == [Unit("attention_sae", SITES[0])]
    assert ready_units(graph, pending) == run.units


def test_what_may_become_stale_in_between_is_waited_for(graph: StudyGraph) -> None:
    """Two changes, and between them a step that follows the first: what reads it runs once."""
    first, last = Unit("activation_cache", SITES[0]), Unit("feature_statistics", SITES[0])
    between = Unit("attention_sae", SITES[0])

    def stale(made: set[Unit]) -> dict[Unit, list[Reason]]:
        found = {first: [SETTINGS], last: [SETTINGS]}
        if first in made:
            found[between] = [changed("activation_cache", SITES[0])]
        left = {unit: why for unit, why in found.items() if unit not in made}
        if between in made and last in made and not made_after(between, last):
            left[last] = [changed("attention_sae", SITES[0])]
        return left

    order: list[Unit] = []

    def made_after(one: Unit, other: Unit) -> bool:
        return order.index(other) > order.index(one)

    made: set[Unit] = set()
    while (run := next_run(graph, stale(made))) is not None:
        assert not made & set(run.units), "made twice"
        order += run.units
        made |= set(run.units)
    assert order == [first, between, last]
    assert ready_units(graph, stale(set())) == [first]


def test_work_that_layers_share_is_not_cut(graph: StudyGraph) -> None:
    pending = {
        Unit("activation_cache", SITES[1]): [SETTINGS],
        **{Unit("attention_sae", key): [SETTINGS] for key in SITES},
    }
    runs = run_everything(
        graph, lambda made: {unit: why for unit, why in pending.items() if unit not in made}
    )
    assert [run.units for run in runs] == [
        [Unit("activation_cache", SITES[1])],
        [Unit("attention_sae", key) for key in SITES],
    ]


def test_a_run_covers_layers_next_to_each_other(study: Study) -> None:
    """Dagster gives a run one range of partitions: a gap makes two runs."""
    wide = study.model_copy()
    wide._n_layers = 5
    wide = wide.model_copy(
        update={"activations": study.activations.model_copy(update={"layers": [0, 1, 2, 3, 4]})}
    )
    wide.__dict__.pop("layers", None)
    graph = StudyGraph(wide, {"tiny": wide}, SHAPES)
    stale = {Unit("feature_statistics", f"tiny.L{n:02d}"): [SETTINGS] for n in (0, 1, 3)}
    runs = run_everything(
        graph, lambda made: {unit: why for unit, why in stale.items() if unit not in made}
    )
    assert sorted(run.partitions for run in runs) == [
        ("tiny.L00", "tiny.L01"),
        ("tiny.L03",),
    ]


def test_what_others_are_making_is_left_to_them(graph: StudyGraph) -> None:
    missing = Reason("missing", "never made")
    pending = {unit: [missing] for unit in graph.units}
    busy = [Unit("tokenized_corpus", "tiny")]
    run = next_run(graph, pending, busy)
    assert run is not None
    assert run.units == [Unit("language_model", "tiny")]
    assert ready_units(graph, pending, busy) == run.units


@pytest.mark.parametrize("seed", range(20))
def test_any_start_is_made_whole_without_reading_what_is_stale(
    graph: StudyGraph, seed: int
) -> None:
    """Whatever is stale at first, each run reads only what is fresh or what it makes before."""
    import random

    draw = random.Random(seed)
    first = {unit for unit in graph.units if draw.random() < 0.4}
    changes = {unit for unit in graph.units if draw.random() < 0.5}

    def stale(made: set[Unit]) -> dict[Unit, list[Reason]]:
        found = {unit: [SETTINGS] for unit in first if unit not in made}
        for unit in made & changes:
            for after in graph.descendants([unit]):
                direct = unit in direct_inputs(graph, after)
                if direct and after not in made:
                    found.setdefault(after, []).append(changed(unit.step, unit.partition))
        return found

    made: set[Unit] = set()
    while (run := next_run(graph, stale(made))) is not None:
        order = list(run.units)
        assert not made & set(order), "made twice"
        for unit in order:
            pending = {one for one in graph.ancestors(unit) if one in stale(made)}
            assert pending <= set(order), (unit, pending)
        made |= set(order)
    assert not stale(made)


def direct_inputs(graph: StudyGraph, unit: Unit) -> Iterable[Unit]:
    """What a unit itself reads."""
    above = graph.ancestors(unit)
    return {one for one in above if not any(one in graph.ancestors(other) for other in above)}
