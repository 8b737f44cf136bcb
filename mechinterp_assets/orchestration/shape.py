"""The shape of every asset: tables, what they are made from, and a body.

    @tables("head_scores", reads=["language_model", "tokenized_corpus"], settings=["heads"],
            seed="heads.seed", pool=GPU)
    def head_scores(run: Run) -> Made:
        from mechinterp_assets.heads.scores import head_scores   # science is imported when it runs
        return run.made({"head_scores": head_scores(run.model, run.study.heads)})

A body makes one partition: a study, or (tables declared `-- per: site`) a layer of one. With
`together` it makes the layers of one study that a run covers, and yields each with
`run.at(layer).made(...)`. It may read what it declares and nothing else; each result is published
with its provenance when it is returned or yielded. Sizes and words of a table come from its
declaration, its group from the folder that the body is in.

Belongs here: turning a declaration into a Dagster asset. Does not belong here: what a body can ask
for (run.py), reading (inputs.py), writing (publishing.py).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import dagster as dg

from mechinterp_assets.model.analyses import Analysis
from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.orchestration.publishing import Publisher
from mechinterp_assets.orchestration.reads import (
    Read,
    as_reads,
    dependency,
    source_dependency,
)
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, sites_by_study
from mechinterp_assets.orchestration.resuming import left_to_make
from mechinterp_assets.orchestration.run import Machine, Made, Run
from mechinterp_assets.orchestration.sources import files_key, settings_key
from mechinterp_assets.orchestration.specs import table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.observations import Begun
from mechinterp_assets.storage.table_spec import Per
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study import Study, parse_site, site_key

GPU = "gpu"
CAPABILITIES = "model_capabilities"
Body = Callable[[Run], Made | Iterator[Made]]


@dataclass(frozen=True)
class Shape:
    """What an asset declares.

    name: of its step. group: of its assets. tables: that it writes. reads: tables that it may read.
    gates: tables that it does not read, whose blocking checks must have passed. settings: sections
    or keys of the study that it may use. files: settings whose files it reads
    (staleness/study_files.py). seed: a number, or the setting that seeds it; None where nothing is
    drawn or computed on a device. needs: analyses that must hold of the study's model, else the
    body does not run and the tables have no rows.
    """

    name: str
    group: str
    tables: tuple[str, ...]
    per: Per
    reads: tuple[Read, ...]
    gates: tuple[str, ...]
    settings: tuple[str, ...]
    files: tuple[str, ...]
    seed: str | int | None
    together: bool
    needs: tuple[Analysis, ...] = ()

    @property
    def upstream(self) -> tuple[Read, ...]:
        """Everything that must be there before: what it reads, gates, what holds of the model."""
        measured = (CAPABILITIES,) if self.needs else ()
        return (*self.reads, *map(Read, dict.fromkeys((*self.gates, *measured))))


# Every shape by the name of its step, filled as definitions are imported.
SHAPES: dict[str, Shape] = {}


def steps_by_table(shapes: Mapping[str, Shape] = SHAPES) -> dict[str, str]:
    """Table -> the step that writes it."""
    return {table: shape.name for shape in shapes.values() for table in shape.tables}


def tables(
    *names: str,
    reads: Iterable[str | Read] = (),
    settings: Iterable[str] = (),
    files: Iterable[str] = (),
    gates: Iterable[str] = (),
    seed: str | int | None = None,
    pool: str | None = None,
    kinds: Iterable[str] = (),
    together: bool = False,
    needs: Iterable[Analysis] = (),
) -> Callable[[Body], dg.AssetsDefinition]:
    """Make an asset of tables from a body; the module docstring says how.

    kinds: what it is made with, beside DuckDB and Parquet. needs: analyses (model/analyses.py)
    that must hold of the study's model; where one does not, the body never runs, the tables have no
    rows, and the log and model_capabilities say why.
    """
    pers = {table_spec(name).per for name in names}
    if len(pers) != 1:
        raise ValueError(f"{', '.join(names)} are not all per study, or per layer; split the asset")
    per = pers.pop()

    def of(body: Body) -> dg.AssetsDefinition:
        shape = Shape(
            name=body.__name__,
            group=body.__module__.split(".")[-2],
            tables=names,
            per=per,
            reads=as_reads(reads),
            gates=tuple(gates),
            settings=(*settings, *([seed] if isinstance(seed, str) else ())),
            files=tuple(files),
            seed=seed,
            together=together,
            needs=tuple(needs),
        )
        if shape.name in SHAPES and SHAPES[shape.name].tables != names:
            raise ValueError(f"two assets are called {shape.name!r}; rename one")
        SHAPES[shape.name] = shape
        deps = [dependency(one, per) for one in shape.upstream]
        sources = dict.fromkeys([*map(settings_key, shape.settings), *map(files_key, shape.files)])
        deps += [source_dependency(key, per) for key in sources]

        @dg.multi_asset(
            name=shape.name,
            description=body.__doc__,
            specs=[
                table_asset(name, group=shape.group, deps=deps, kinds=tuple(kinds))
                for name in names
            ],
            partitions_def=PARTITIONS.studies if per == "study" else PARTITIONS.sites,
            backfill_policy=None if per == "study" else dg.BackfillPolicy.single_run(),
            pool=pool,
        )
        def asset(
            context: dg.AssetExecutionContext,
            lake: dg.ResourceParam[Lake],
            tensors: dg.ResourceParam[Tensors],
            models: LanguageModelResource,
            compute: ComputeResource,
            dashboards: DashboardsResource,
        ) -> Iterator[dg.AssetMaterialization | dg.MaterializeResult[None]]:
            machine = Machine(context, lake, tensors, models, compute, dashboards)
            publisher = Publisher(context, lake)
            keys = left_to_make(context, lake, shape.tables)
            try:
                for run in _runs(shape, machine, publisher, keys):
                    gap = _gap(run, shape.needs)
                    made_here = body(run) if gap is None else _no_rows(run, shape, gap)
                    for made in _bodys_results(made_here):
                        yield from made.run.publish(made)
            except BaseException:
                # A run that fails or is stopped says so; what stays begun was killed.
                lake.give_up(context.run_id)
                raise
            yield from publisher.results(shape.tables)

        return asset

    return of


def _gap(run: Run, needs: tuple[Analysis, ...]) -> str | None:
    """Which analysis does not hold of the study's model, and why; None where all do."""
    if not needs:
        return None
    from mechinterp_assets.model.capabilities import UnsupportedAnalysisError, capabilities_of

    try:
        capabilities_of(run.model).require(*needs)
    except UnsupportedAnalysisError as error:
        return str(error)
    return None


def _no_rows(run: Run, shape: Shape, reason: str) -> Iterator[Made]:
    """Tables without rows, so that what needs them as inputs is made all the same."""
    if shape.together:
        for layer in run.layers:
            yield run.at(layer).nothing(reason, *shape.tables)
    else:
        yield run.nothing(reason, *shape.tables)


def _runs(
    shape: Shape, machine: Machine, publisher: Publisher, keys: Iterable[str]
) -> Iterator[Run]:
    """The runs of a body: per partition, or per study where layers are made together."""
    if shape.per == "study":
        parts: list[tuple[str, list[int], int | None]] = [(key, [], None) for key in keys]
    elif shape.together:
        parts = [
            (study, [parse_site(site)[1] for site in sites], None)
            for study, sites in sites_by_study(keys).items()
        ]
    else:
        parts = [(*_split(key), parse_site(key)[1]) for key in keys]
    for name, layers, layer in parts:
        study = STUDIES[name]
        _begin(shape, machine, study, layers)
        settings = DeclaredSettings(study, shape.settings, shape.name)
        if shape.seed is not None:
            seed = settings.value(shape.seed) if isinstance(shape.seed, str) else shape.seed
            machine.compute.prepare(seed)
        inputs = Inputs(
            machine.lake,
            machine.tensors,
            settings,
            [read.table for read in shape.reads],
            shape.name,
            shape.files,
        )
        yield Run(machine, publisher, inputs, study, layers, layer=layer)


def _begin(shape: Shape, machine: Machine, study: Study, layers: Iterable[int]) -> None:
    """Note in the lake what is begun, so that what a killed run leaves is finished later."""
    name, run_id, now = study.study, machine.context.run_id, time.time()
    keys = [site_key(name, layer) for layer in layers] or [name]
    machine.lake.begin(
        Begun(table, key, name, run_id, now) for table in shape.tables for key in keys
    )


def _split(key: str) -> tuple[str, list[int]]:
    study, layer = parse_site(key)
    return study, [layer]


def _bodys_results(result: Made | Iterator[Made]) -> Iterator[Made]:
    if isinstance(result, Made):
        yield result
    else:
        yield from result
