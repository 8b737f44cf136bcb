"""Tracing by ACC and ACC++: pairs of heads, what wrote them, and the pairs of those heads.

Belongs here: the recursion over layers from seeds, and its frames. Does not belong here: the rules
for one pair (acc.py), which pairs to begin with (acc_seeds.py), tracing by FC24's rule (trace.py).

A node is a head that reads one token for another: (layer, head, destination, source). An edge is a
writer of the node's query at `destination`, or of keys on the source side: an upstream head split
by the token that it read, which is a node itself, or an MLP, bias, embedding or offset, where
tracing ends. On the source side a writer may have written at another token than the source: what
lowers the score of another token raises attention to this one.

Nodes of one layer are worked on together, the last layer first, head by head: what a head reads of
all earlier ones is computed once for all prompts whose runs fit in memory together. An upstream
node is worked on if it fires: attention >= `firing_threshold` (ACC) or tau(d) (ACC++), position 0
left out; each once, whatever the number of paths that lead to it (path_multiplicity counts them).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import polars as pl
import torch

from mechinterp_assets.circuits.acc import (
    SideChoice,
    acc_plus_side,
    acc_side,
    firing_limit,
    relative_weight,
)
from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.circuits.columns import DOWNSTREAM, PAIR, PAIR_ROLES, UPSTREAM
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.score_model import ScoreModel, ScoreRun
from mechinterp_assets.circuits.score_terms import (
    KINDS,
    HeadReader,
    RowTerms,
    ScoreWriters,
    SideTerms,
)
from mechinterp_assets.circuits.settings import AccRule
from mechinterp_assets.circuits.slices import SIDES, RoleNames
from mechinterp_assets.model.agreement import ALLOWED
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.names import head_name
from mechinterp_assets.prompts.ioi import equal_length_groups

RULES: tuple[AccRule, ...] = get_args(AccRule)

PAIRS_SCHEMA: dict[str, pl.DataType] = {
    "trace_rule": pl.String(),
    **PAIR,
    **PAIR_ROLES,
    "uncapped_score": pl.Float64(),
    "relative_score": pl.Float64(),
    "attention": pl.Float64(),
    "attention_limit": pl.Float64(),
    "reaches_limit": pl.Boolean(),
    "terms_error": pl.Float64(),
    "is_root": pl.Boolean(),
    "path_multiplicity": pl.Float64(),
    "destination_slices": pl.List(pl.Int32()),
    "destination_attention_left": pl.Float64(),
    "destination_head_share": pl.Float64(),
    "source_slices": pl.List(pl.Int32()),
    "source_attention_left": pl.Float64(),
    "source_head_share": pl.Float64(),
}
EDGES_SCHEMA: dict[str, pl.DataType] = {
    "trace_rule": pl.String(),
    "prompt": pl.Int64(),
    **UPSTREAM,
    "written_at": pl.Int32(),
    "token_read": pl.Int32(),
    "written_role": pl.String(),
    "read_role": pl.String(),
    **DOWNSTREAM,
    "edge_weight": pl.Float64(),
    "edge_weight_share": pl.Float64(),
    "upstream_reaches_limit": pl.Boolean(),
    "is_root": pl.Boolean(),
    "path_multiplicity": pl.Float64(),
}
SEEDS_SCHEMA = PAIR
Node = tuple[int, int, int, int]  # row of the group, head, destination, source


@dataclass(frozen=True)
class AccTrace:
    """pairs: one row per worked-on pair and per seed. edges: writers that the rule keeps."""

    pairs: pl.DataFrame
    edges: pl.DataFrame


@dataclass
class _Wanted:
    """Nodes of one rule by layer: paths from seeds that arrive, and which are seeds."""

    paths: list[dict[Node, float]]
    roots: list[set[Node]]


@dataclass
class _Rows:
    pairs: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)


def node_limit(rule: AccRule, destination: int, firing_threshold: float) -> float:
    """Least attention of a pair with this destination that fires."""
    return firing_limit(destination) if rule == "acc++" else firing_threshold


@torch.no_grad()
def acc_batches(
    model: LanguageModel,
    prompts: pl.DataFrame,
    seeds: pl.DataFrame,
    rules: Sequence[AccRule] = RULES,
    *,
    firing_threshold: float = 0.5,
    contribution_fraction: float = 0.7,
    memory_mib: int = 512,
    score_model: ScoreModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Mapping[AccRule, AccTrace]]:
    """Trace `seeds` (SEEDS_SCHEMA, as acc_seeds gives them) in batches of prompts, by each rule.

    All rules read the same forward pass and terms. Memory does not grow with prompts. Raises
    CircuitError for seeds that do not exist and for models whose scores are no such sums.
    """
    check_prompts_fit(prompts, model)
    if not rules or set(rules) - set(RULES):
        raise CircuitError(f"rules {list(rules)}: name some of {', '.join(RULES)}")
    _check_seeds(model, prompts, seeds)
    if seeds.is_empty():
        return
    n_layers = int(seeds["layer"].to_numpy().max()) + 1
    score_model = score_model or ScoreModel(model)
    done = 0
    for groups in _batches(model, prompts, n_layers, memory_mib):
        together = pl.concat(group for group, _ in groups)
        runs = [score_model.run(ids, n_layers) for _, ids in groups]
        tracer = _Tracer(
            score_model, runs, together, seeds, rules, firing_threshold, contribution_fraction
        )
        yield tracer.traces()
        done += together.height
        if progress is not None:
            progress(done, prompts.height)


def acc_trace(
    model: LanguageModel,
    prompts: pl.DataFrame,
    seeds: pl.DataFrame,
    rule: AccRule,
    *,
    firing_threshold: float = 0.5,
    contribution_fraction: float = 0.7,
) -> AccTrace:
    """acc_batches of one rule, all prompts together."""
    parts = [
        part[rule]
        for part in acc_batches(
            model,
            prompts,
            seeds,
            [rule],
            firing_threshold=firing_threshold,
            contribution_fraction=contribution_fraction,
        )
    ]
    pairs, edges = pl.DataFrame(schema=PAIRS_SCHEMA), pl.DataFrame(schema=EDGES_SCHEMA)
    return AccTrace(
        pl.concat([pairs, *(part.pairs for part in parts)]),
        pl.concat([edges, *(part.edges for part in parts)]),
    )


def runs_per_batch(model: LanguageModel, n_layers: int, memory_mib: int) -> Callable[[int], int]:
    """By n_tokens: prompts whose runs with their cache fit into `memory_mib`, at least 1."""
    return lambda length: max(1, (memory_mib << 20) // _run_bytes(model, n_layers, length))


def _run_bytes(model: LanguageModel, n_layers: int, length: int) -> int:
    """Of one prompt's run with its cache."""
    config = model.config
    per_token = n_layers * (8 * config.d_model + 4 * config.d_z + 2 * config.n_heads * length)
    return int(per_token * length * 8)


def _batches(
    model: LanguageModel, prompts: pl.DataFrame, n_layers: int, memory_mib: int
) -> Iterator[list[tuple[pl.DataFrame, torch.Tensor]]]:
    """Groups of equal length, as many together as fit into `memory_mib`."""
    held: list[tuple[pl.DataFrame, torch.Tensor]] = []
    size = 0
    for group, ids in equal_length_groups(prompts, runs_per_batch(model, n_layers, memory_mib)):
        own = group.height * _run_bytes(model, n_layers, ids.shape[1])
        if held and size + own > memory_mib << 20:
            yield held
            held, size = [], 0
        held.append((group, ids))
        size += own
    if held:
        yield held


def _check_seeds(model: LanguageModel, prompts: pl.DataFrame, seeds: pl.DataFrame) -> None:
    known = seeds.join(prompts.select("prompt", "n_tokens"), on="prompt", how="left")
    config = model.config
    right = (
        pl.col("layer").is_between(0, config.n_layers - 1)
        & pl.col("head").is_between(0, config.n_heads - 1)
        & (pl.col("source") >= 0)
        & (pl.col("source") <= pl.col("destination"))
        & (pl.col("destination") < pl.col("n_tokens"))
    )
    wrong = known.filter(~right.fill_null(value=False))
    if wrong.height:
        row = wrong.row(0, named=True)
        raise CircuitError(
            f"seed {head_name(row['layer'], row['head'])} at ({row['destination']}, "
            f"{row['source']}) of prompt {row['prompt']} does not exist; {model.source} has "
            f"{config.n_layers} layers of {config.n_heads} heads, and a source lies at or before "
            "its destination"
        )


class _Tracer:
    """Prompts whose runs are held together; a row is one of all groups."""

    def __init__(
        self,
        model: ScoreModel,
        runs: Sequence[ScoreRun],
        prompts: pl.DataFrame,
        seeds: pl.DataFrame,
        rules: Sequence[AccRule],
        firing_threshold: float,
        contribution_fraction: float,
    ) -> None:
        self.model, self.frame, self.rules = model, prompts, rules
        self.threshold, self.fraction = firing_threshold, contribution_fraction
        self.prompts = prompts["prompt"].to_list()
        # Row -> the run that has it, and where.
        self.run_of = [(run, row) for run in runs for row in range(len(run.pattern[0]))]
        n_layers = len(runs[0].pattern)
        self.wanted = {
            rule: _Wanted([{} for _ in range(n_layers)], [set() for _ in range(n_layers)])
            for rule in rules
        }
        row_of = {prompt: row for row, prompt in enumerate(self.prompts)}
        for prompt, layer, head, d, s in seeds.select(*SEEDS_SCHEMA).iter_rows():
            if prompt not in row_of:
                continue
            node = (row_of[prompt], head, d, s)
            for rule in rules:
                self.wanted[rule].roots[layer].add(node)
                if self._fires(rule, layer, node):
                    paths = self.wanted[rule].paths[layer]
                    paths[node] = paths.get(node, 0.0) + 1
        self.rows = {rule: _Rows() for rule in rules}

    def traces(self) -> dict[AccRule, AccTrace]:
        """Pairs and edges by rule."""
        some = self.run_of[0][0]
        for layer in reversed(range(len(some.pattern))):
            nodes = sorted(
                {n for w in self.wanted.values() for n in (*w.paths[layer], *w.roots[layer])},
                key=lambda node: (node[1], node[0], node[2], node[3]),
            )
            writers = ScoreWriters.before(some, layer)
            reader: HeadReader | None = None
            terms: RowTerms | None = None
            at: tuple[int, int] | None = None
            for node in nodes:
                row, head, d, _ = node
                if reader is None or reader.head != head:
                    reader, at = HeadReader(self.model, layer, head), None
                if at != (row, d):
                    terms, at = reader.row(*self.run_of[row], d), (row, d)
                assert terms is not None
                for rule in self.rules:
                    self._work(rule, layer, node, terms, writers)
        return {rule: AccTrace(*self._frames(rule)) for rule in self.rules}

    def _fires(self, rule: AccRule, layer: int, node: Node) -> bool:
        _, _, d, s = node
        return s >= 1 and self._attention(layer, node) >= node_limit(rule, d, self.threshold)

    def _attention(self, layer: int, node: Node) -> float:
        row, head, d, s = node
        run, own = self.run_of[row]
        return float(run.pattern[layer][own, head, d, s])

    def _work(
        self, rule: AccRule, layer: int, node: Node, terms: RowTerms, writers: ScoreWriters
    ) -> None:
        wanted = self.wanted[rule]
        is_root = node in wanted.roots[layer]
        paths = wanted.paths[layer].get(node, 0.0)
        if not (is_root or paths):
            return
        row, head, d, s = node
        limit = node_limit(rule, d, self.threshold)
        pair: dict[str, Any] = {
            "trace_rule": rule,
            "prompt": self.prompts[row],
            "row": row,
            "layer": layer,
            "head": head,
            "destination": d,
            "source": s,
            "uncapped_score": float(terms.row[s]),
            "relative_score": float(terms.sums[0] @ relative_weight(terms, s)),
            "attention": self._attention(layer, node),
            "attention_limit": limit,
            "reaches_limit": self._fires(rule, layer, node),
            "terms_error": terms.error,
            "is_root": is_root,
            "path_multiplicity": paths,
        }
        for part, side in zip(terms.sides, SIDES, strict=True):
            if not paths:
                break
            if rule == "acc++":
                choice = acc_plus_side(self.model, terms, part, s, limit)
                pair[f"{side}_attention_left"] = choice.left
            else:
                choice = acc_side(terms, part, s, self.fraction)
            pair[f"{side}_slices"] = choice.slices.nonzero()[:, 0].tolist()
            size = choice.effect.abs().cpu().numpy()
            is_head = writers.kind[part.writer.cpu().numpy()] == KINDS.index("head")
            total = float(size.sum())
            pair[f"{side}_head_share"] = float(size[is_head].sum()) / total if total else None
            self._add_edges(pair, side, part, choice, writers)
        self.rows[rule].pairs.append(pair)

    def _add_edges(
        self,
        pair: Mapping[str, Any],
        side: str,
        part: SideTerms,
        choice: SideChoice,
        writers: ScoreWriters,
    ) -> None:
        """Rows of the kept writers of one side; their nodes that fire are wanted."""
        rule: AccRule = pair["trace_rule"]
        row, paths = pair["row"], pair["path_multiplicity"]
        # ACC: share of score' through S. ACC++: share of the attention that removal takes.
        whole = choice.whole if rule == "acc" else choice.whole - choice.left
        items = choice.kept.nonzero()[:, 0]
        kept = (values[items].tolist() for values in (part.writer, part.position, part.token))
        for writer, position, token, effect in zip(
            *kept, choice.effect[items].tolist(), strict=True
        ):
            kind = KINDS[writers.kind[writer]]
            up_layer, up_head = int(writers.layer[writer]), int(writers.head[writer])
            fires = None
            if kind == "head":
                up = (row, up_head, position, token)
                fires = self._fires(rule, up_layer, up)
                if fires:
                    to = self.wanted[rule].paths[up_layer]
                    to[up] = to.get(up, 0.0) + paths
            self.rows[rule].edges.append(
                {
                    "trace_rule": rule,
                    "prompt": pair["prompt"],
                    "row": row,
                    "upstream_kind": kind,
                    "upstream_layer": up_layer if up_layer >= 0 else None,
                    "upstream_head": up_head if up_head >= 0 else None,
                    "written_at": position,
                    "token_read": token if token >= 0 else None,
                    "downstream_layer": pair["layer"],
                    "downstream_head": pair["head"],
                    "destination": pair["destination"],
                    "source": pair["source"],
                    "side": side,
                    "edge_weight": effect,
                    "edge_weight_share": effect / whole if whole else None,
                    "upstream_reaches_limit": fires,
                    "is_root": pair["is_root"],
                    "path_multiplicity": paths,
                }
            )

    def _frames(self, rule: AccRule) -> tuple[pl.DataFrame, pl.DataFrame]:
        names = RoleNames(self.frame, after_bos=self.model.model.bos.prepended)
        rows = self.rows[rule]
        worst = max((float(row["terms_error"]) for row in rows.pairs), default=0.0)
        if not worst <= ALLOWED[self.model.model.dtype]:
            raise CircuitError(
                f"terms of {self.model.model.source} miss its attention scores by up to {worst:.2g}"
                " of the largest score of a row; ACC would split something else"
            )
        pairs = _frame(rows.pairs, PAIRS_SCHEMA, names)
        return pairs, _frame(rows.edges, EDGES_SCHEMA, names)


_ROLES = {
    "destination": "destination_role",
    "source": "source_role",
    "written_at": "written_role",
    "token_read": "read_role",
}


def _frame(
    rows: Sequence[Mapping[str, Any]], schema: Mapping[str, pl.DataType], names: RoleNames
) -> pl.DataFrame:
    """Rows as a frame of the schema, with the roles of its positions."""
    if not rows:
        return pl.DataFrame(schema=schema)
    of = {name: dtype for name, dtype in schema.items() if name not in _ROLES.values()}
    found = pl.DataFrame(
        [{name: row.get(name) for name in of} for row in rows], schema=of, orient="row"
    )
    group = np.array([row["row"] for row in rows])
    for column, role in _ROLES.items():
        if role not in schema:
            continue
        known = found[column].is_not_null()
        at = found[column].fill_null(0).to_numpy()
        roles = names(group, at)
        found = found.with_columns(pl.when(known).then(roles).alias(role))
    return found.select(*schema)
