"""Experiments of Franco & Crovella 2024 (FC24, arXiv 2410.00340) for any model.

Belongs here: which interventions each figure consists of, chosen from an ExperimentContext. Does
not belong here: families of interventions (experiments.py), edges (kinds/edge.py), heads and edges
of GPT-2 small as published (published_sets.yaml) and running.

What is chosen, all of it from the trace of the prompts that are run:
  readers   pairs of heads whose incoming edges are edited. FC24: three name movers and an
            S-inhibition head. Here: up to ROOTS root pairs, those traced in most prompts, and the
            pair of another head that most edges enter. On each side the heaviest edges, by their
            contribution summed over prompts; how many is settings.published_edges.
  writers   heads whose outgoing edges are edited, one by one for the first and together for WRITERS
            of them: those with the largest sum of outgoing contributions.
  serial    pairs of edges, the second from the head that the first enters, at the position where it
            writes: those that are kept together in most prompts.
A model of the published shape has the published ones as well, where its trace has their pairs.
Every edge is edited in all prompts in which its reader's pair was traced, as in FC24's code, so
that edges into one pair, and sets of them, have the same prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mechinterp_assets.interventions.edge_choice import edge_interventions
from mechinterp_assets.interventions.edge_keys import EDGE_KEY, PAIR_KEY
from mechinterp_assets.interventions.experiment_context import (
    Chosen,
    ExperimentContext,
    NothingToRun,
)
from mechinterp_assets.interventions.experiments import (
    edges_of_a_head,
    edges_together,
    parallel_sets,
    serial_sets,
)
from mechinterp_assets.interventions.kinds.edge import EditEdge
from mechinterp_assets.interventions.published_experiment import Published
from mechinterp_assets.interventions.published_sets import published_entries
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.terms import Head, Scope, Watched

ROOTS = 4
WRITERS = 2
SCOPES: tuple[Scope, ...] = ("local", "global")
SIDES = ("destination", "source")
_AS_PUBLISHED = "published for a model of this shape"


@dataclass(frozen=True)
class Reader:
    """A head and the roles of a pair that it attends over, and why it was chosen."""

    head: Head
    destination_role: str
    source_role: str
    reason: str

    @property
    def key(self) -> dict[str, object]:
        """Values of the columns that tell this pair from others."""
        values = (*self.head, self.destination_role, self.source_role)
        return dict(zip(PAIR_KEY, values, strict=True))

    def __str__(self) -> str:
        return f"L{self.head[0]}H{self.head[1]} {self.destination_role} <- {self.source_role}"


# ---- single edges: Fig. 6, 7 ---------------------------------------------------------------------


def _edges_in(context: ExperimentContext) -> list[Chosen]:
    """Edges into every reader: ablated, boosted, random; local and global."""
    chosen = []
    for reader in readers(context):
        for side in SIDES:
            edges = edges_into(context, reader).filter(pl.col("side") == side)
            chosen += _singles(context, edges, reader.head, f"into {reader}: {side}", reader.reason)
    return _some(chosen, "no edge enters the chosen heads")


def _edges_out(context: ExperimentContext) -> list[Chosen]:
    """Edges out of the heaviest writer, and of published ones."""
    heads = dict(writers(context)[:1])
    for layer, head in published_entries("fc24-writers", "heads", context.shape):
        heads.setdefault((layer, head), _AS_PUBLISHED)
    chosen = []
    for head, reason in heads.items():
        edges = edges_out_of(context, head)
        chosen += _singles(context, edges, head, f"out of {_name(head)}", reason, out=True)
    return _some(chosen, "the chosen heads have no outgoing edge")


def _singles(
    context: ExperimentContext,
    edges: pl.DataFrame,
    head: Head,
    part: str,
    reason: str,
    *,
    out: bool = False,
) -> list[Chosen]:
    seed = context.settings.seed
    made = [
        one
        for one in edges_of_a_head(edges, head, out=out, seed=seed, occurrence="traced")
        if not one.is_control or _has_control(context, one)
    ]
    which = f"{reason}; its {edges.height} heaviest" if edges.height > 1 else reason
    return [Chosen(one, part, which) for one in made]


# ---- sets: Fig. 17-28 ----------------------------------------------------------------------------


def _parallel(context: ExperimentContext) -> list[Chosen]:
    """Edges into a reader together, edges out of writers together, and published sets."""
    chosen: list[Chosen] = []
    for reader in readers(context):
        edges, part = edges_into(context, reader), f"into {reader}"
        sets: list[Planned] = [
            one
            for scope in SCOPES
            for one in parallel_sets(
                edges,
                context.shape,
                scope=scope,
                occurrence="traced",
                watch=_watch(context, reader),
            )
        ]
        chosen += _with_members(sets, edges, part, f"{reader.reason}; its heaviest edges together")
    leading = writers(context)[:WRITERS]
    groups: list[tuple[tuple[Head, ...], str]] = [((head,), reason) for head, reason in leading]
    if len(leading) > 1:
        groups.append((tuple(head for head, _ in leading), "both of these writers"))
    for heads in published_entries("fc24-writers", "together", context.shape):
        groups.append((tuple((layer, head) for layer, head in heads), _AS_PUBLISHED))
    for heads, reason in groups:
        edges = pl.concat([edges_out_of(context, head) for head in heads])
        part = f"out of {', '.join(_name(head) for head in heads)}"
        chosen += _together(context, edges, "parallel", part, reason)
    for edges in _published_edges(context, "fc24-parallel-sets"):
        chosen += _together(context, edges, "parallel", "published sets", _AS_PUBLISHED)
    return _some(chosen, "no two edges enter, or leave, one of the chosen heads")


def _serial(context: ExperimentContext) -> list[Chosen]:
    """Two edges in a row."""
    chosen = []
    for edges, reason in serial_pairs(context):
        sets: list[Planned] = [
            one for scope in SCOPES for one in serial_sets(edges, scope=scope, occurrence="traced")
        ]
        first = edges.row(0, named=True)
        middle = (first["downstream_layer"], first["downstream_head"])
        chosen += _with_members(
            sets, edges, f"through {_name(middle)} to {_last_reader(edges)}", reason
        )
    return _some(chosen, "no traced edge enters a head that another traced edge leaves")


def _together(
    context: ExperimentContext, edges: pl.DataFrame, kind: str, part: str, reason: str
) -> list[Chosen]:
    """Edges as one set in every scope, and its members alone.

    The first edge, and all after it whose pairs were traced in a prompt that those before share.
    """
    traced = _prompts_of_pairs(context)
    common: set[int] = set()
    rows = []
    for number, key in enumerate(edges.select(PAIR_KEY).rows()):
        shared = (common or traced[key]) & traced[key]
        if shared:
            common = shared
            rows.append(number)
    edges = edges[rows]
    made = [
        edges_together(edges, kind, context.shape, scope=scope, occurrence="traced")
        for scope in SCOPES
    ]
    return _with_members([one for one in made if one is not None], edges, part, reason)


def _with_members(
    sets: Sequence[Planned], edges: pl.DataFrame, part: str, reason: str
) -> list[Chosen]:
    """Sets, and the ablations of their edges alone, which the sets are compared with."""
    if not sets:
        return []
    alone = edge_interventions(
        edges, modes=("ablate",), scopes=SCOPES, n_controls=0, occurrence="traced"
    )
    return [
        *(Chosen(one, part, reason) for one in sets),
        *(Chosen(one, part, f"{reason}: alone, to compare with") for one in alone),
    ]


# ---- magnitudes: Fig. 10-13 ----------------------------------------------------------------------


def _magnitudes(context: ExperimentContext) -> list[Chosen]:
    """Every edit of edges of the other experiments: single ones, their controls, and sets."""
    chosen: dict[str, Chosen] = {}
    for choose in (_edges_in, _edges_out, _parallel, _serial):
        try:
            made = choose(context)
        except NothingToRun:
            continue
        for one in made:
            part = "single edges" if one.planned.id.startswith(("ablate", "boost")) else "sets"
            chosen.setdefault(one.planned.id, Chosen(one.planned, part, one.chosen_by))
    return _some(list(chosen.values()), "no edge was chosen")


# ---- choosing ------------------------------------------------------------------------------------


def readers(context: ExperimentContext) -> list[Reader]:
    """Pairs of heads whose incoming edges are edited; see the module. Raises NothingToRun."""
    n_prompts = context.trace_edges["prompt"].n_unique()
    pairs = (
        _kept(context)
        .group_by(PAIR_KEY)
        .agg(
            pl.col("prompt").n_unique().alias("n_prompts"),
            pl.len().alias("n_edges"),
            pl.col("is_root").any(),
        )
    )

    def named(rows: pl.DataFrame, why: str) -> list[Reader]:
        return [
            Reader(
                (int(row["downstream_layer"]), int(row["downstream_head"])),
                row["destination_role"],
                row["source_role"],
                why.format(**row, of=n_prompts),
            )
            for row in rows.iter_rows(named=True)
        ]

    def most(by: str, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.sort(by, *PAIR_KEY, descending=[True, *[False] * len(PAIR_KEY)])

    roots = named(
        most("n_prompts", pairs.filter("is_root")).head(ROOTS),
        "root pair, traced in {n_prompts} of {of} traced prompts",
    )
    heads = {reader.head for reader in roots}
    others = named(
        most("n_edges", pairs.filter(~pl.col("is_root"))),
        "no root: most edges of all prompts, {n_edges}, enter it",
    )
    found = roots + [reader for reader in others if reader.head not in heads][:1]
    published = [
        Reader((layer, head), destination, source, _AS_PUBLISHED)
        for layer, head, destination, source in published_entries(
            "fc24-readers", "readers", context.shape
        )
    ]
    traced = set(pairs.select(PAIR_KEY).rows())
    known = {tuple(reader.key.values()) for reader in found}
    return found + [
        reader
        for reader in published
        if (key := tuple(reader.key.values())) in traced and key not in known
    ]


def edges_into(context: ExperimentContext, reader: Reader) -> pl.DataFrame:
    """The heaviest edges into a reader on each side: frame of key columns."""
    own = _kept(context).filter(**reader.key)
    return pl.concat(
        [
            _heaviest(own.filter(pl.col("side") == side), context.settings.published_edges)
            for side in SIDES
        ]
    )


def writers(context: ExperimentContext) -> list[tuple[Head, str]]:
    """Heads by the sum of the contributions of their edges, largest first, and why."""
    ranked = (
        _kept(context)
        .group_by("upstream_layer", "upstream_head")
        .agg(pl.col("contribution").sum(), pl.len().alias("n_edges"))
        .sort("contribution", "upstream_layer", "upstream_head", descending=[True, False, False])
    )
    return [
        (
            (int(layer), int(head)),
            f"number {place + 1} by the contribution of its edges, {weight:.3g} in {n} of them",
        )
        for place, (layer, head, weight, n) in enumerate(ranked.iter_rows())
    ]


def edges_out_of(context: ExperimentContext, head: Head) -> pl.DataFrame:
    """The heaviest edges out of a head: frame of key columns."""
    own = _kept(context).filter(upstream_layer=head[0], upstream_head=head[1])
    return _heaviest(own, context.settings.published_edges)


def serial_pairs(context: ExperimentContext) -> list[tuple[pl.DataFrame, str]]:
    """Pairs of edges in a row as frames of two rows, and why: heaviest and published ones."""
    kept = _kept(context).select("prompt", *EDGE_KEY)
    written_at = pl.when(pl.col("side") == "destination").then("destination_role")
    second = kept.with_columns(_at=written_at.otherwise("source_role")).rename(
        {name: f"{name}_2" for name in EDGE_KEY}
    )
    both = (
        kept.join(
            second,
            left_on=["prompt", "downstream_layer", "downstream_head", "destination_role"],
            right_on=["prompt", "upstream_layer_2", "upstream_head_2", "_at"],
            coalesce=False,
        )
        .group_by(*EDGE_KEY, *(f"{name}_2" for name in EDGE_KEY))
        .agg(pl.col("prompt").n_unique().alias("n_prompts"))
    )
    keys = [name for name in both.columns if name != "n_prompts"]
    ranked = both.sort("n_prompts", *keys, descending=[True, *[False] * len(keys)])
    found: list[tuple[pl.DataFrame, str]] = []
    for row in ranked.head(context.settings.published_edges).iter_rows(named=True):
        rows = [[row[f"{name}{end}"] for name in EDGE_KEY] for end in ("", "_2")]
        reason = f"both edges are kept in {row['n_prompts']} prompts"
        found.append((_edge_frame(kept, rows), reason))
    known = [edges.rows() for edges, _ in found]
    traced = _prompts_of_pairs(context)
    published = [
        edges
        for edges in _published_edges(context, "fc24-serial-sets")
        if set.intersection(*(traced[key] for key in edges.select(PAIR_KEY).rows()))
    ]
    return found + [(edges, _AS_PUBLISHED) for edges in published if edges.rows() not in known]


# ---- private -------------------------------------------------------------------------------------


def _kept(context: ExperimentContext) -> pl.DataFrame:
    """Kept edges between heads in the prompts that are run."""
    edges = context.trace_edges
    kept = edges.filter((pl.col("upstream_kind") == "head") & pl.col("kept"))
    if kept.is_empty():
        raise NothingToRun("no edge between heads was traced in the prompts that are run")
    return kept


def _heaviest(kept: pl.DataFrame, count: int) -> pl.DataFrame:
    return (
        kept.group_by(EDGE_KEY)
        .agg(pl.col("contribution").sum())
        .sort("contribution", *EDGE_KEY, descending=[True, *[False] * len(EDGE_KEY)])
        .head(count)
        .select(EDGE_KEY)
    )


def _published_edges(context: ExperimentContext, name: str) -> list[pl.DataFrame]:
    """Published sets of edges whose readers' pairs were all traced."""
    kept = _kept(context)
    traced = set(context.trace_edges.select(PAIR_KEY).unique().rows())
    sets = []
    for edges in published_entries(name, "edges", context.shape):
        frame = _edge_frame(kept, edges)
        if set(frame.select(PAIR_KEY).rows()) <= traced:
            sets.append(frame)
    return sets


def _edge_frame(like: pl.DataFrame, rows: Sequence[Sequence[object]]) -> pl.DataFrame:
    types = {name: like.schema[name] for name in EDGE_KEY}
    return pl.DataFrame([list(row) for row in rows], schema=types, orient="row")


def _prompts_of_pairs(context: ExperimentContext) -> dict[tuple[object, ...], set[int]]:
    """Pair (PAIR_KEY) -> prompts in which it was traced."""
    pairs = context.trace_edges.group_by(PAIR_KEY).agg(pl.col("prompt").unique())
    return {tuple(key): set(prompts) for *key, prompts in pairs.iter_rows()}


def _has_control(context: ExperimentContext, edge: EditEdge) -> bool:
    """Whether in some prompt as many slices as those of its pairs are left outside of them."""
    key = (edge.layer, edge.head, edge.destination_role, edge.source_role)
    sizes = (
        context.trace_edges.filter(**dict(zip(PAIR_KEY, key, strict=True)))
        .group_by("prompt")
        .agg(pl.col("slices").list.len().max())
    )
    return bool((2 * sizes["slices"] <= context.shape.d_head).any())


def _last_reader(edges: pl.DataFrame) -> Reader:
    layer, head, destination, source = edges.select(PAIR_KEY).row(-1)
    return Reader((layer, head), destination, source, "")


def _watch(context: ExperimentContext, reader: Reader) -> Watched | None:
    """The reader's pair, whose score is a metric then; None where a prompt lacks its roles."""
    if not {reader.destination_role, reader.source_role} <= context.prompt_roles:
        return None
    return Watched(
        layer=reader.head[0],
        head=reader.head[1],
        destination_role=reader.destination_role,
        source_role=reader.source_role,
    )


def _name(head: Head) -> str:
    return f"L{head[0]}H{head[1]}"


def _some(chosen: list[Chosen], why_not: str) -> list[Chosen]:
    """The interventions, each once in a part. Raises NothingToRun where there are none."""
    if not chosen:
        raise NothingToRun(why_not)
    return list({(one.part, one.planned.id): one for one in reversed(chosen)}.values())[::-1]


FC24_EXPERIMENTS: tuple[Published, ...] = (
    Published(
        name="fc24_edges_in",
        source="FC24 Fig. 6, 7",
        question=(
            "Does ablating an edge into a head of the circuit hurt the task and boosting it help, "
            "while random slices do neither?"
        ),
        choose=_edges_in,
    ),
    Published(
        name="fc24_edges_out",
        source="FC24 Fig. 17-28",
        question="What do the edges out of one head of the circuit do, one by one?",
        choose=_edges_out,
    ),
    Published(
        name="fc24_parallel_sets",
        source="FC24 Fig. 17-28",
        question="Do edges into one head, or out of one, add up when they are ablated together?",
        choose=_parallel,
    ),
    Published(
        name="fc24_serial_sets",
        source="FC24 Fig. 17-28",
        question="Do two edges in a row add up when they are ablated together?",
        choose=_serial,
    ),
    Published(
        name="fc24_magnitudes",
        source="FC24 Fig. 10-13",
        question="How little do these edits change the residual stream, in direction and in norm?",
        choose=_magnitudes,
    ),
)
