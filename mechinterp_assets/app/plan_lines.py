"""What will be made and why, as lines for a terminal.

Belongs here: words. Does not belong here: what is stale (staleness/), the plan (orchestration/).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mechinterp_assets.orchestration.plan import StudyGraph, Unit
from mechinterp_assets.staleness.reasons import Reason

_MOST_REASONS = 12


def plan_lines(graph: StudyGraph, pending: Mapping[Unit, Sequence[Reason]]) -> Iterator[str]:
    """One line on how much, one per reason with the steps it concerns, one on what may follow."""
    study = graph.study.study
    if not pending:
        yield f"study {study}: all {len(graph.units)} partitions are up to date"
        return
    steps = {unit.step for unit in pending}
    yield (
        f"study {study}: to make {len(pending)} of {len(graph.units)} partitions,"
        f" {len(steps)} of {len(graph.shapes)} steps"
    )
    by_reason: dict[str, list[Unit]] = {}
    for unit, reasons in pending.items():
        for words in dict.fromkeys(reason.words for reason in reasons):
            by_reason.setdefault(words, []).append(unit)
    for words, units in list(by_reason.items())[:_MOST_REASONS]:
        yield f"  {words}: {steps_and_partitions(graph, units)}"
    if len(by_reason) > _MOST_REASONS:
        yield f"  and {len(by_reason) - _MOST_REASONS} more reasons (`mechinterp stale {study}`)"
    if after := graph.descendants(pending):
        names = dict.fromkeys(unit.step for unit in after)
        yield f"  then, as far as what they are made from comes out changed: {', '.join(names)}"


def steps_and_partitions(graph: StudyGraph, units: Iterable[Unit]) -> str:
    """`attention_sae (L00, L03), corpus`; layers are named unless it is all of them."""
    layers: dict[str, list[str]] = {}
    for unit in units:
        layers.setdefault(unit.step, []).append(unit.partition)
    shown = []
    for step, keys in layers.items():
        every = graph.shapes[step].per == "study" or len(keys) == len(graph.study.sites)
        names = ", ".join(key.rpartition(".")[2] for key in keys)
        shown.append(step if every else f"{step} ({names})")
    return ", ".join(shown)
