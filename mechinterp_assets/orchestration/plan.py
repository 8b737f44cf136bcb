"""What is run for a study: everything that is stale, in an order in which nothing is made twice.

Belongs here: the graph of one study's partitions, and the next run to start. Does not belong here:
why something is stale (staleness/), running (app/materialize.py, defs/automation.py).

A unit is one partition of one step (an asset's body, with all its tables). A unit runs when it is
stale for a reason of its own. One that is stale only because a table changed which is about to be
made again waits: that may come out as it was recorded. So does one that reads what is fresh now and
may not be so when all before it is made, so that it runs once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mechinterp_assets.orchestration.reads import Read
from mechinterp_assets.orchestration.shape import SHAPES, Shape, steps_by_table
from mechinterp_assets.staleness.reasons import Place, Reason
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import Per
from mechinterp_assets.studies.comparisons import targets
from mechinterp_assets.studies.study import Study, parse_site


@dataclass(frozen=True, order=True)
class Unit:
    """One partition of one step."""

    step: str
    partition: str


@dataclass(frozen=True)
class PlannedRun:
    """Steps that run together for some partitions, all of one kind and next to each other."""

    per: Per
    steps: tuple[str, ...]
    partitions: tuple[str, ...]

    @property
    def units(self) -> list[Unit]:
        """Everything that the run makes."""
        return [Unit(step, key) for step in self.steps for key in self.partitions]


class StudyGraph:
    """The units of one study and what they are made from.

    Args:
        study: the study.
        studies: all studies, which it may be compared with.
        shapes: every step by name, of loaded definitions.
    """

    def __init__(
        self,
        study: Study,
        studies: Mapping[str, Study],
        shapes: Mapping[str, Shape] = SHAPES,
    ) -> None:
        self.study, self._studies = study, studies
        self.shapes = {name: shapes[name] for name in in_order(shapes)}
        self._step_of = steps_by_table(shapes)

    @cached_property
    def units(self) -> list[Unit]:
        """All units, steps in an order in which each reads what precedes it."""
        return [Unit(name, key) for name, shape in self.shapes.items() for key in self._keys(shape)]

    def unit_of(self, place: Place) -> Unit | None:
        """The unit that makes a table's partition; None where that is not of this study."""
        table, partition = place
        step = self._step_of.get(table)
        unit = None if step is None else Unit(step, partition)
        return unit if unit in self._known else None

    def steps_of(self, name: str) -> set[str]:
        """Steps that a group, a table or a step name means; none for an unknown name."""
        return {
            step
            for step, shape in self.shapes.items()
            if name in (step, shape.group, *shape.tables)
        }

    def per(self, unit: Unit) -> Per:
        """What kind of partition a unit is."""
        return self.shapes[unit.step].per

    def ancestors(self, unit: Unit) -> frozenset[Unit]:
        """Units of this study that a unit is made from, directly or not."""
        return self._ancestors[unit]

    def inputs(self, unit: Unit) -> frozenset[Unit]:
        """Units of this study that a unit reads itself."""
        return self._direct[unit]

    def descendants(self, units: Collection[Unit]) -> list[Unit]:
        """Units made from any of these, in order."""
        wanted = set(units)
        return [
            unit for unit in self.units if wanted & self._ancestors[unit] and unit not in wanted
        ]

    def pending(self, reasons: Mapping[Place, Iterable[Reason]]) -> dict[Unit, list[Reason]]:
        """Reasons by unit: those of all its tables, each once."""
        found: dict[Unit, list[Reason]] = {}
        for place, many in reasons.items():
            unit = self.unit_of(place)
            if unit is not None:
                own = found.setdefault(unit, [])
                own += [reason for reason in many if reason not in own]
        return {unit: found[unit] for unit in self.units if unit in found}

    # ---- private ---------------------------------------------------------------------------------

    @cached_property
    def _known(self) -> frozenset[Unit]:
        return frozenset(self.units)

    @cached_property
    def _ancestors(self) -> dict[Unit, frozenset[Unit]]:
        found: dict[Unit, frozenset[Unit]] = {}
        for unit in self.units:
            # A step reads earlier layers of its own tables; these precede it among the units.
            direct = self._direct[unit]
            found[unit] = direct.union(*(found.get(one, frozenset()) for one in direct))
        return found

    @cached_property
    def _direct(self) -> dict[Unit, frozenset[Unit]]:
        return {unit: frozenset(self._reads(unit)) for unit in self.units}

    def _reads(self, unit: Unit) -> set[Unit]:
        reads = self.shapes[unit.step].upstream
        places = [(read.table, key) for read in reads for key in self._keys_read(read, unit)]
        return {one for place in places if (one := self.unit_of(place)) and one != unit}

    def _keys(self, shape: Shape) -> list[str]:
        return [self.study.study] if shape.per == "study" else self.study.sites

    def _keys_read(self, read: Read, unit: Unit) -> list[str]:
        """Partitions of a table that a unit reads, of whichever study."""
        study, layer = self.study, None
        if self.per(unit) == "site":
            layer = parse_site(unit.partition)[1]
        if table_spec(read.table).per == "study":
            if read.relation == "compared" and layer is not None:
                return [t.study for t in targets(study, layer, self._studies)] + [study.study]
            return [study.study]
        if layer is None:
            return study.sites
        if read.relation == "earlier":
            return [key for key in study.sites if parse_site(key)[1] <= layer]
        if read.relation == "compared":
            return [t.key for t in targets(study, layer, self._studies)] + [unit.partition]
        return [unit.partition]


def in_order(shapes: Mapping[str, Shape]) -> list[str]:
    """Names of steps, each after those whose tables it reads."""
    step_of = steps_by_table(shapes)
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in done:
            return
        for table in sorted(read.table for read in shapes[name].upstream):
            before = step_of.get(table)
            if before is not None and before != name:
                visit(before)
        done[name] = None

    for name in sorted(shapes):
        visit(name)
    return list(done)


def stages(shapes: Mapping[str, Shape] = SHAPES) -> list[list[str]]:
    """Steps in the fewest groups of one kind of partition, each group after those it reads."""
    step_of = steps_by_table(shapes)
    number: dict[str, int] = {}
    for name in in_order(shapes):
        shape = shapes[name]
        before = {step_of[read.table] for read in shape.upstream}
        number[name] = max(
            (number[one] + (shapes[one].per != shape.per) for one in before - {name}),
            default=0 if shape.per == "study" else 1,
        )
    return [[n for n in number if number[n] == i] for i in range(max(number.values()) + 1)]


def next_run(
    graph: StudyGraph, pending: Mapping[Unit, Iterable[Reason]], apart: Collection[Unit] = ()
) -> PlannedRun | None:
    """The next run of what is stale; None where nothing can be started.

    Steps are added to a run as long as they are to be made for exactly its partitions and read
    nothing that is stale, or may become so, but what the run itself makes before them.

    apart: units that are not to be started, nor what is made from them.
    """
    certain, waiting = _certain(graph, pending) - set(apart), _unsettled(graph, pending, apart)
    planned = [run for per in _KINDS if (run := _run_of(graph, per, certain, waiting))]
    return max(planned, key=lambda run: len(run.units), default=None)


def ready_units(
    graph: StudyGraph, pending: Mapping[Unit, Iterable[Reason]], apart: Collection[Unit] = ()
) -> list[Unit]:
    """Everything that can be started at once: what it reads is fresh, or is of its own kind and
    can be started before it.

    apart: units that are not to be started, nor what is made from them.
    """
    certain, waiting = _certain(graph, pending) - set(apart), _unsettled(graph, pending, apart)
    found: dict[Per, set[Unit]] = {"study": set(), "site": set()}
    for unit in graph.units:
        own_kind = found[graph.per(unit)]
        if unit in certain and (graph.ancestors(unit) & waiting) <= own_kind:
            own_kind.add(unit)
    return [unit for unit in graph.units if unit in found[graph.per(unit)]]


def _unsettled(
    graph: StudyGraph, pending: Iterable[Unit], apart: Collection[Unit]
) -> frozenset[Unit]:
    """What is stale or kept apart, and what is made from it: fresh now, perhaps not for long."""
    first = frozenset(pending) | set(apart)
    return first | set(graph.descendants(first))


def _certain(graph: StudyGraph, pending: Mapping[Unit, Iterable[Reason]]) -> set[Unit]:
    """Units that are stale for a reason which no other pending unit may take away."""
    return {
        unit
        for unit, reasons in pending.items()
        if any(r.source is None or graph.unit_of(r.source) not in pending for r in reasons)
    }


_KINDS: tuple[Per, ...] = ("study", "site")


def _run_of(
    graph: StudyGraph, per: Per, certain: set[Unit], unsettled: frozenset[Unit]
) -> PlannedRun | None:
    steps: list[str] = []
    keys: list[str] = []
    made: set[Unit] = set()
    for name, shape in graph.shapes.items():
        if shape.per != per:
            continue
        ready = _ready(graph, name, certain, unsettled, made)
        if not steps and ready:
            keys = _first_range(ready, graph.study.sites) if per == "site" else ready
        # A step that shares work between layers is not cut into pieces.
        if keys and (ready == keys if shape.together else set(keys) <= set(ready)):
            steps.append(name)
            made |= {Unit(name, key) for key in keys}
    return PlannedRun(per, tuple(steps), tuple(keys)) if steps else None


def _ready(
    graph: StudyGraph,
    step: str,
    certain: set[Unit],
    unsettled: frozenset[Unit],
    made: set[Unit],
) -> list[str]:
    """Partitions of a step that are stale and read nothing else that is or may be, in order."""
    own = [unit for unit in graph.units if unit.step == step and unit in certain]
    together = set(own)
    return [
        unit.partition for unit in own if (graph.ancestors(unit) & unsettled) <= (made | together)
    ]


def _first_range(keys: Sequence[str], every: Sequence[str]) -> list[str]:
    """The first of these keys and those that follow it without a gap."""
    start = every.index(keys[0])
    found = []
    for key in every[start:]:
        if key not in keys:
            break
        found.append(key)
    return found
