"""The circuits that singular vector tracing finds, task by task, under several rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.dashboards.places import trace_folder
from mechinterp_assets.defs.tasks.prompts_of import NoPromptsError, base_prompts
from mechinterp_assets.model.names import head_name
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import polars_schema

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mechinterp_assets.circuits.omega import ModelOmega
    from mechinterp_assets.circuits.reference_heads import Heads
    from mechinterp_assets.circuits.settings import TraceSettings
    from mechinterp_assets.circuits.trace import Root, Trace

TABLES = (
    "attention_slices",
    "trace_edges",
    "trace_graph",
    "trace_nodes",
    "trace_variants",
    "trace_published",
    "trace_summary",
    "attention_slice_contrast",
    "attention_consensus",
    "attention_token_signal",
    "trace_roots",
)


@tables(
    *TABLES,
    reads=["language_model", "ioi_prompts", "task_prompts"],
    gates=["ioi_baseline"],
    settings=["ioi", "tasks.traced", "tasks.roots", "description"],
    seed="ioi.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["tracing", "direct_effects"],
)
def circuit_trace(run: Run) -> Iterator[Made]:
    """Singular vector tracing upstream from the heads that write the answer, on base prompts."""
    from mechinterp_assets.circuits.omega import ModelOmega
    from mechinterp_assets.circuits.reference_heads import reference_lists

    references = reference_lists(run.model.config, run.study.ioi.reference_heads)
    starts = [_start(run, task) for task in run.study.tasks.traced]
    for start in starts:
        if start.skipped is not None:
            run.log.warning(f"{start.task} is not traced: {start.skipped}")
    none = run.no_rows(*TABLES)
    omega = ModelOmega(run.model) if any(start.roots for start in starts) else None
    with run.scratch() as folder:
        traces = []
        for start in starts:
            if not start.roots or omega is None:
                continue
            # Published circuits and the study's own lists are about IOI.
            known = references if start.task == "ioi" else {}
            spool = _Spool(folder / start.task)
            traces.append(_trace_task(run, start, known, omega, spool))
            run.log.info(f"traced {start.task}: {traces[-1].graph.height} edges")
        links = {trace.task: _publish_graph(run, trace) for trace in traces}
        yield run.made(
            {
                **none,
                **{name: _stream(traces, name, none[name]) for name in _Spool.STREAMED},
                **{name: _stacked(traces, name) for name in (traces[0].frames if traces else ())},
                "trace_roots": _roots_frame(starts),
            },
            {
                "attention_slices": {
                    "largest_identity_error": max(
                        (trace.spool.largest_error for trace in traces), default=0.0
                    )
                },
                "trace_edges": {
                    f"{trace.task}_roots": ", ".join(
                        f"{head_name(r.layer, r.head)} (END, {r.source})" for r in trace.roots
                    )
                    for trace in traces
                }
                | {
                    f"{trace.task}_root_pairs_firing": float(trace.firing["n_firing"].sum())
                    for trace in traces
                },
                "trace_graph": {
                    key: value
                    for trace in traces
                    for key, value in (
                        (f"{trace.task}_edges", float(trace.graph.height)),
                        (
                            f"{trace.task}_prompts_of_the_heaviest_edges",
                            _bars(trace.graph.head(20)["n_prompts"].to_list()),
                        ),
                        *((f"{trace.task}_{k}", v) for k, v in links[trace.task].items()),
                    )
                },
                "trace_summary": {
                    "references": ", ".join(references) or "none for a model of this shape"
                },
            },
        )


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TaskTrace:
    """The trace of one task: frames per table, without the column task; the large ones in files."""

    task: str
    rule: str
    roots: list[Root]
    spool: _Spool
    frames: dict[str, pl.DataFrame]
    firing: pl.DataFrame

    @property
    def graph(self) -> pl.DataFrame:
        return self.frames["trace_graph"]


@dataclass(frozen=True)
class _Start:
    """Where the trace of a task starts and why there, or why there is none."""

    task: str
    prompts: pl.DataFrame
    rules: TraceSettings
    roots: tuple[Root, ...] = ()
    chosen_by: str = ""
    skipped: str | None = None


def _start(run: Run, task: str) -> _Start:
    """Roots of a task; none and the reason where it cannot be traced."""
    from mechinterp_assets.circuits.roots import task_sources

    rules = run.study.ioi.rules
    none = pl.DataFrame()
    try:
        prompts = base_prompts(run, task)
    except NoPromptsError as reason:
        return _Start(task, none, rules, skipped=str(reason))
    if not task_sources(prompts):
        return _Start(
            task, none, rules, skipped="its prompts have no role but END that END could attend to"
        )
    roots, chosen_by = _roots(run, prompts, task, rules)
    if not roots:
        return _Start(task, none, rules, skipped=chosen_by)
    return _Start(task, prompts, rules, tuple(roots), chosen_by)


def _roots_frame(starts: Sequence[_Start]) -> pl.DataFrame:
    """Table trace_roots."""
    rows = [
        {
            "task": start.task,
            "layer": root.layer,
            "head": root.head,
            "source_role": root.source,
            "trace_rule": start.rules.trace_rule,
            "chosen_by": start.chosen_by,
        }
        for start in starts
        for root in start.roots
    ]
    rows += [
        {"task": start.task, "trace_rule": start.rules.trace_rule, "skipped": start.skipped}
        for start in starts
        if not start.roots
    ]
    return pl.DataFrame(rows, schema=polars_schema(table_spec("trace_roots")))


def _trace_task(
    run: Run,
    start: _Start,
    references: Mapping[str, Heads],
    omega: ModelOmega,
    spool: _Spool,
) -> _TaskTrace:
    """Trace base prompts of a task by the study's rule and by its variants."""
    from mechinterp_assets.circuits.consensus import consensus_signal
    from mechinterp_assets.circuits.graph import trace_graph as aggregate_edges
    from mechinterp_assets.circuits.trace import trace_batches
    from mechinterp_assets.circuits.trace_summary import reachable_heads, trace_summary
    from mechinterp_assets.circuits.trace_variants import (
        VariantCounts,
        rule_name,
        variant_settings,
    )

    settings, model = run.study.ioi, run.model
    task, prompts, roots, rules = start.task, start.prompts, list(start.roots), start.rules
    others = [
        variant_settings(variant, rules, settings.near_threshold)
        for variant in settings.trace_variants
    ]
    main = rules.trace_rule
    names = [main, *(rule_name(variant, main) for variant in settings.trace_variants)]
    counts = [VariantCounts(name, prompts) for name in names]
    for parts in trace_batches(model, prompts, roots, [rules, *others], omega=omega):
        spool.add(parts[0])
        for count, part in zip(counts, parts, strict=True):
            count.add(part)
    edges = pl.concat([count.edges() for count in counts])
    nodes = pl.concat([count.nodes() for count in counts])
    published = pl.concat([count.published() for count in counts])
    consensus, signal = consensus_signal(
        model, prompts, pl.concat(spool.pairs), n_nodes=settings.consensus_nodes, omega=omega
    )
    return _TaskTrace(
        task=task,
        roots=roots,
        spool=spool,
        rule=main,
        firing=counts[0].roots(),
        frames={
            "trace_graph": aggregate_edges(pl.concat(spool.kept)),
            "trace_nodes": nodes,
            "trace_variants": edges,
            "trace_published": published,
            "trace_summary": trace_summary(
                nodes,
                edges,
                references,
                n_prompts=prompts.height,
                reachable=reachable_heads(
                    [(root.layer, root.head) for root in roots], model.config.n_heads
                ),
                published=published,
                coverage={count.rule: count.coverage() for count in counts},
            ),
            "attention_consensus": consensus,
            "attention_token_signal": signal,
        },
    )


class _Spool:
    """Rows of a task's standard trace in files, so that memory does not grow with them, and the few
    columns that the aggregated tables need."""

    STREAMED = ("attention_slices", "trace_edges", "attention_slice_contrast")

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._parts = 0
        self.largest_error = 0.0
        self.kept: list[pl.DataFrame] = []
        self.pairs: list[pl.DataFrame] = []

    def add(self, part: Trace) -> None:
        from mechinterp_assets.circuits.consensus import PAIR_COLUMNS

        frames = (part.slices, part.edges, part.contrast)
        for name, frame in zip(self.STREAMED, frames, strict=True):
            frame.write_parquet(self._file(name, self._parts))
        self._parts += 1
        if part.slices.height:
            error = float(part.slices["relative_identity_error"].to_numpy().max())
            self.largest_error = max(self.largest_error, error)
        self.kept.append(part.edges.filter("kept").drop("slices"))
        self.pairs.append(part.slices.select(*PAIR_COLUMNS))

    def stream(self, name: str) -> Iterator[pl.DataFrame]:
        for part in range(self._parts):
            yield pl.read_parquet(self._file(name, part))

    def _file(self, name: str, part: int) -> Path:
        return self._folder / f"{name}-{part:06d}.parquet"


def _roots(
    run: Run, prompts: pl.DataFrame, task: str, rules: TraceSettings
) -> tuple[list[Root], str]:
    """The study's roots of a task, or the heads with the largest direct effect on its answers, and
    why these; none and the reason where no head qualifies."""
    from mechinterp_assets.circuits.errors import CircuitError
    from mechinterp_assets.circuits.reference_heads import published_part
    from mechinterp_assets.circuits.roots import (
        no_root,
        root_heads,
        root_scores,
        task_sources,
    )
    from mechinterp_assets.circuits.trace import Root

    settings = run.study.ioi
    if task == "ioi" and settings.roots != "auto":
        if not isinstance(settings.roots, str):
            return [Root(*root) for root in settings.roots], "named in ioi.roots"
        try:
            heads = sorted(published_part(run.model.config, settings.roots))
            return [Root(*head) for head in heads], f"published: {settings.roots}"
        except CircuitError as error:
            run.log.warning(f"ioi.roots: {error}; roots are found as by auto")
    sources = task_sources(prompts)
    named = run.study.tasks.roots.get(task)
    scores = root_scores(
        run.model,
        prompts,
        sources=sources,
        count=settings.max_roots,
        threshold=settings.firing_threshold,
        any_score=rules.any_score,
    )
    if named is None:
        if not scores["is_root"].any():
            return [], no_root(scores, sources)
        return root_heads(scores), "largest direct effect on the logit difference (auto)"
    attended = {
        (layer, head): role for layer, head, role in scores["layer", "head", "source"].rows()
    }
    return [
        Root(*root) if len(root) == 3 else Root(*root, attended.get(root, sources[0]))
        for root in named
    ], f"named in tasks.roots.{task}"


def _stream(traces: Sequence[_TaskTrace], table: str, none: pl.DataFrame) -> Iterator[pl.DataFrame]:
    yield none
    for trace in traces:
        for frame in trace.spool.stream(table):
            yield frame.with_columns(task=pl.lit(trace.task))


def _stacked(traces: Sequence[_TaskTrace], table: str) -> pl.DataFrame:
    return pl.concat(t.frames[table].with_columns(task=pl.lit(t.task)) for t in traces)


def _bars(values: list[int]) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"![edges]({tiny_bar_chart(values)})")


def _publish_graph(run: Run, trace: _TaskTrace) -> dict[str, dg.MetadataValue]:
    """Write the picture, the page and GraphML; their addresses, none for a graph without edges."""
    from mechinterp_assets.circuits.graph import coverage_text, graph_picture, to_graphml
    from mechinterp_assets.circuits.published_graph import published_graphml
    from mechinterp_assets.dashboards.trace_page import render_trace

    if trace.graph.is_empty():
        return {}
    name, description = trace_folder(run.name, trace.task), run.study.description
    nodes = trace.frames["trace_nodes"].filter(trace_rule=trace.rule)
    page = render_trace(
        trace.graph,
        nodes,
        trace.firing,
        run.provenance,
        run.model.source,
        description,
        task=trace.task,
    )
    with run.dashboards.publish(name) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")
        title = f"{description}: {trace.task}"
        picture = graph_picture(trace.graph, title=title, coverage=coverage_text(nodes))
        (folder / "trace.png").write_bytes(picture)
        (folder / "trace.graphml").write_bytes(to_graphml(trace.graph))
        if not (published := trace.frames["trace_published"]).is_empty():
            (folder / "published.graphml").write_bytes(published_graphml(published))
    return {
        "page": dg.MetadataValue.url(run.dashboards.url(name, "index.html")),
        "picture": dg.MetadataValue.url(run.dashboards.url(name, "trace.png")),
        "graphml": dg.MetadataValue.url(run.dashboards.url(name, "trace.graphml")),
    }
