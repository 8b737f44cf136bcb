"""Singular vector tracing: which heads wrote what makes a head attend, followed upstream.

Belongs here: contributions of writers to (destination, source) pairs, the 70% rule, the recursion
over layers, table trace_edges. Does not belong here: aggregating edges to a graph (graph.py),
choosing roots (roots.py).

Algorithm, per group of prompts of equal length, after one forward pass:
  1. roots: pair (END, source) of each root head, IO unless it names another, where it fires
  2. layers from the last to the first; all wanted pairs of a layer together:
     slices S of each pair; contribution of each upstream writer's output o on each side,
       destination: sum_{k in S} e_k sqrt(sigma_k) u_k . o_i / s_i
       source:      sum_{k in S} e_k sqrt(sigma_k) v_k . o_j / s_j
     per side, keep the smallest set of heads, largest first, that reaches 70% of all heads' sum;
     none where that sum is not positive
  3. a kept head wrote at position p: its firing pairs with destination p are wanted
Each (prompt, layer, head, destination, source) is worked on once. Downstream layers are complete
before a layer is worked on, so the number of paths from roots to a pair (path multiplicity) is a
sum over its kept parents: what the published code counts by recursing again on each path.

One rule holds for all pairs of a trace (TraceSettings.trace_rule):
  fc24      fires: attention >= 0.5, score >= 0, source >= 1. Its score is traced
  relative  fires: attention >= 0.5, source >= 1. Traced is the score minus the mean score of the
            destination's other sources p: S is chosen from its terms, and what was written at p
            counts on the source side with -1 / (number of the others). Items of the 70% rule are
            then (head, position written at), so that a head is followed from where it wrote

Variants (TraceSettings): near-firing roots; heads that contribute against the slices (negative);
all slices in place of S; and `fc24_code`, the rule of the published code, which appends a 1 to
every head's output, so that the constant of the appended 1 is added to every head, and keeps the
largest head where the sum is not positive.

Source: Franco & Crovella 2024 (arXiv 2410.00340), sections 4 and 5, equation 8 (head outputs
without the appended 1). Relative attention: the same authors' ACC (acc.py); as a rule of this trace
it is this project's. The exact bilinear effect and the non-head writers are additions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.circuits.columns import DOWNSTREAM, PAIR, PAIR_ROLES, UPSTREAM
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.residual import (
    WRITER_KINDS,
    ResidualStream,
    Writers,
    attention_scales,
    residual_stream,
)
from mechinterp_assets.circuits.settings import TraceSettings
from mechinterp_assets.circuits.slices import (
    SIDES,
    PairBlock,
    RoleNames,
    firing_pairs,
    mean_other_keys,
    pair_slices,
    prompts_per_batch,
    slices_frame,
)
from mechinterp_assets.model.identities import identities_of
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.names import head_name
from mechinterp_assets.prompts.ioi import equal_length_groups
from mechinterp_assets.prompts.roles import END, role_names, role_positions


class Root(NamedTuple):
    """A head to trace from, and the role of the token its END -> source pair attends to."""

    layer: int
    head: int
    source: str = "IO"


EDGES_SCHEMA: dict[str, pl.DataType] = {
    "prompt": pl.Int64(),
    **UPSTREAM,
    **DOWNSTREAM,
    "written_at": pl.Int32(),
    "written_role": pl.String(),
    "trace_rule": pl.String(),
    "slices": pl.List(pl.Int32()),
    "contribution": pl.Float64(),
    "exact_effect": pl.Float64(),
    "contribution_share": pl.Float64(),
    "head_share": pl.Float64(),
    "kept": pl.Boolean(),
    "is_root": pl.Boolean(),
    "path_multiplicity": pl.Float64(),
}

CONTRAST_SCHEMA: dict[str, pl.DataType] = {
    **PAIR,
    **PAIR_ROLES,
    "side": pl.String(),
    "trace_rule": pl.String(),
    "n_slices": pl.Int32(),
    "n_kept": pl.Int32(),
    "n_kept_all_slices": pl.Int32(),
    "n_kept_both": pl.Int32(),
    "effective_heads": pl.Float64(),
    "effective_heads_all_slices": pl.Float64(),
    "correlation": pl.Float64(),
}
_CONTRAST = tuple(CONTRAST_SCHEMA)[10:]
_PAIR_TYPES = {name: EDGES_SCHEMA[name] for name in ("prompt", "source")}

# Items per token and round of _contract, and memory of the outputs that one product reads.
_ROUND = 8
_ROUND_BYTES = 64 << 20


@dataclass(frozen=True)
class Trace:
    """slices: table attention_slices (traced pairs and all root pairs). edges: trace_edges.

    roots: layer, head, source, n_prompts (that have this role), n_firing: in how many of them the
    root pair fires (nearly fires, where that was asked for). contrast: table
    attention_slice_contrast, empty unless asked for.
    """

    slices: pl.DataFrame
    edges: pl.DataFrame
    roots: pl.DataFrame
    contrast: pl.DataFrame


@dataclass
class _Rows:
    """Arrays of edge rows, one entry per block and side; `pair` numbers pairs over all blocks.

    written_at: position, -1 where several are in one row.
    """

    pair: list[np.ndarray] = field(default_factory=list)
    side: list[np.ndarray] = field(default_factory=list)
    writer: list[np.ndarray] = field(default_factory=list)
    written_at: list[np.ndarray] = field(default_factory=list)
    contribution: list[np.ndarray] = field(default_factory=list)
    exact: list[np.ndarray] = field(default_factory=list)
    kept: list[np.ndarray] = field(default_factory=list)
    contrast: list[np.ndarray] = field(default_factory=list)
    contrasted: list[np.ndarray] = field(default_factory=list)
    n_pairs: int = 0

    def add(
        self,
        number: Tensor,
        side: int,
        position: Tensor,
        contribution: Tensor,
        exact: Tensor,
        kept: Tensor,
        shown: Tensor,
    ) -> None:
        """Rows where `shown` [pair, slot, writer]; number [pair], position [pair, slot]."""
        pair, slot, writer = shown.nonzero(as_tuple=True)
        self.pair.append(number[pair].cpu().numpy())
        self.side.append(np.full(len(pair), side))
        self.writer.append(writer.cpu().numpy())
        self.written_at.append(position[pair, slot].cpu().numpy())
        for values, to in (
            (contribution, self.contribution),
            (exact, self.exact),
            (kept, self.kept),
        ):
            to.append(values[pair, slot, writer].cpu().numpy())

    def add_others(
        self,
        number: Tensor,
        side: int,
        found: "_Effects",
        contribution: Tensor,
        exact: Tensor,
        is_head: Tensor,
    ) -> None:
        """Writers that are not heads: a row of the side's own token and one of all others."""
        pair = torch.arange(len(number), device=number.device)
        none = torch.zeros(len(number), 1, len(is_head), dtype=torch.bool, device=number.device)
        shown = none | ~is_head
        own = [values[pair, found.own][:, None] for values in (contribution, exact)]
        at = found.position[pair, found.own][:, None]
        self.add(number, side, at, own[0], own[1], none, shown)
        if found.position.shape[1] > 1:
            rest = [
                values.sum(1, keepdim=True) - mine
                for values, mine in zip((contribution, exact), own, strict=True)
            ]
            self.add(number, side, torch.full_like(at, -1), rest[0], rest[1], none, shown)


def keep_heads(contributions: Tensor, fraction: float = 0.7, *, always_one: bool = False) -> Tensor:
    """Mask [..., head]: the smallest set, largest first, that exceeds `fraction` of the total.

    The total is over all heads; where it is not positive none is kept, or with always_one (the
    published code) the largest. Ties go to the lower index. Where no prefix exceeds it (fraction 1)
    all positive ones are kept.
    """
    if contributions.shape[-1] == 0:
        return torch.zeros_like(contributions, dtype=torch.bool)
    total = contributions.sum(-1, keepdim=True)
    ordered, order = contributions.sort(dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(-1) > fraction * total
    # A head is kept when no shorter prefix has reached the goal.
    kept = (reached.cumsum(-1) - reached.long() == 0) & (ordered > 0) & (total > 0)
    if always_one:
        kept[..., :1] |= total <= 0
    return torch.zeros_like(kept).scatter(-1, order, kept)


@torch.no_grad()
def trace_circuit(
    model: LanguageModel,
    prompts: pl.DataFrame,
    roots: Sequence[Root] | Sequence[tuple[int, int]],
    settings: TraceSettings | None = None,
    *,
    omega: ModelOmega | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Trace `roots` upstream in every prompt; processed weights.

    prompts: rows of ioi_prompts, or of any task in the common form (prompts/common.py). A root
    (layer, head) starts at its pair (END, IO); a Root may name any other role as its source.
    Prompts without that role are not traced from it.

    A root pair that does not fire in a prompt is recorded in `slices` (fires = False) and not
    traced. Raises PromptError and CircuitError before the first forward pass, and CircuitError when
    the model's residual stream or scores do not follow the decomposition.
    """
    rules = [settings or TraceSettings()]
    batches = trace_batches(model, prompts, roots, rules, omega=omega, progress=progress)
    parts = [part for (part,) in batches]
    return Trace(
        pl.concat([part.slices for part in parts]),
        pl.concat([part.edges for part in parts]),
        counted_roots([part.roots for part in parts]),
        pl.concat([part.contrast for part in parts]),
    )


def counted_roots(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Trace.roots over batches, each with those of its own prompts."""
    roots = pl.concat(parts).group_by("layer", "head", "source", maintain_order=True)
    return roots.agg(pl.all().sum())


@torch.no_grad()
def trace_batches(
    model: LanguageModel,
    prompts: pl.DataFrame,
    roots: Sequence[Root] | Sequence[tuple[int, int]],
    rules: Sequence[TraceSettings],
    *,
    omega: ModelOmega | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Trace, ...]]:
    """trace_circuit batch by batch, so that memory does not grow with prompts; a trace per rule.

    All rules read the same forward pass. Each prompt is in exactly one of the batches. Errors as
    trace_circuit, at the first batch.
    """
    if not rules:
        raise CircuitError("no rules to trace by; pass at least one TraceSettings")
    memory_mib = min(settings.memory_mib for settings in rules)
    check_prompts_fit(prompts, model)
    roots = [Root(*root) for root in roots]
    _check_roots(model, prompts, roots)
    omega = omega or ModelOmega(model)
    n_layers = max(root.layer for root in roots) + 1
    if any(settings.trace_rule == "relative" for settings in rules):
        _check_window(model, prompts, n_layers)
    scales, writers = attention_scales(model), Writers.of(model, n_layers - 1)
    done = 0
    batch = prompts_per_batch(model, n_layers, memory_mib)
    for group, ids in equal_length_groups(prompts, batch):
        stream = residual_stream(model, ids, n_layers, device=omega.device)
        names = RoleNames(group, after_bos=model.bos.prepended)
        traces = []
        for settings in rules:
            rows = _Rows()
            blocks = _trace_group(omega, stream, group, roots, settings, rows)
            slices = slices_frame(group, blocks, names, scales, settings.trace_rule)
            traces.append(
                Trace(
                    slices,
                    _edges_frame(slices, rows, writers, group, names),
                    _roots_frame(slices, roots, group, settings),
                    _contrast_frame(slices, rows),
                )
            )
        del stream  # before the next one is made
        yield tuple(traces)
        done += group.height
        if progress is not None:
            progress(done, prompts.height)


def _check_window(model: LanguageModel, prompts: pl.DataFrame, n_layers: int) -> None:
    longest = int(prompts["n_tokens"].to_numpy().max())
    for layer, form in enumerate(identities_of(model).attention[:n_layers]):
        if form.window is not None and form.window < longest:
            raise CircuitError(
                f"layer {layer} of {model.source} sees {form.window} tokens, prompts have up to "
                f"{longest}; the rule relative takes means over all earlier sources: trace by fc24"
            )


def _check_roots(model: LanguageModel, prompts: pl.DataFrame, roots: Sequence[Root]) -> None:
    if not roots:
        raise CircuitError("no root heads; name some as (layer, head) or use find_roots")
    known = role_names(prompts)
    if END not in known:
        raise CircuitError(f"prompts have no position of role END, only {known}; add it")
    for layer, head, source in roots:
        if source not in known:
            raise CircuitError(
                f"root head {head_name(layer, head)} has source {source!r}; "
                f"roles of these prompts: {', '.join(known)}"
            )
        if not (0 <= layer < model.config.n_layers and 0 <= head < model.config.n_heads):
            raise CircuitError(
                f"root head {head_name(layer, head)} does not exist; {model.source} has "
                f"{model.config.n_layers} layers of {model.config.n_heads} heads"
            )
    if len(set(roots)) != len(roots):
        raise CircuitError(f"root heads {list(roots)} are not distinct")


# ---- one group of prompts ------------------------------------------------------------------------


def _trace_group(
    omega: ModelOmega,
    stream: ResidualStream,
    group: pl.DataFrame,
    roots: Sequence[Root],
    settings: TraceSettings,
    rows: _Rows,
) -> list[PairBlock]:
    device = omega.device
    n, length = stream.outputs.shape[:2]
    n_heads = stream.pattern[0].shape[1]
    end = torch.tensor(role_positions(group, END), device=device)
    at = _root_sources(group, roots, device)
    # Paths that arrive at a head's output at a position: [layer, prompt, head, position].
    paths = torch.zeros(len(stream.pattern), n, n_heads, length, dtype=torch.float64, device=device)
    blocks: list[PairBlock] = []
    for layer in reversed(range(len(stream.pattern))):
        pattern, score, any_score = stream.pattern[layer], stream.score[layer], settings.any_score
        fires = firing_pairs(pattern, score, settings.firing_threshold, any_score=any_score)
        starts = fires
        if settings.near is not None:
            starts = firing_pairs(pattern, score, settings.near, any_score=any_score)
            starts &= pattern < settings.firing_threshold
        is_root = torch.zeros_like(fires)
        for root in (root for root in roots if root.layer == layer):
            has, source = at[root.source]
            is_root[has, root.head, end[has], source] = True
        multiplicity = paths[layer][..., None] * fires + (is_root & starts)
        wanted = (multiplicity > 0) | is_root
        block = _trace_layer(
            omega, stream, layer, wanted, fires, is_root, multiplicity, settings, paths, rows
        )
        if block is not None:
            blocks.append(block)
    return blocks


def _root_sources(
    group: pl.DataFrame, roots: Sequence[Root], device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    """Role -> (rows of the prompts that have it, its positions there)."""
    here = set(role_names(group))
    found = {}
    for role in {root.source for root in roots}:
        positions = role_positions(group, role) if role in here else [-1] * group.height
        every = torch.tensor(positions, device=device)
        has = (every >= 0).nonzero()[:, 0]
        found[role] = (has, every[has])
    return found


def _trace_layer(
    omega: ModelOmega,
    stream: ResidualStream,
    layer: int,
    wanted: Tensor,
    fires: Tensor,
    is_root: Tensor,
    multiplicity: Tensor,
    settings: TraceSettings,
    paths: Tensor,
    rows: _Rows,
) -> PairBlock | None:
    """Work on the wanted pairs of one layer: add to `rows`, pass paths on to upstream layers."""
    head, prompt, i, j = wanted.transpose(0, 1).nonzero(as_tuple=True)
    n = len(head)
    if n == 0:
        return None
    at_pair = (prompt, head, i, j)
    x, length = stream.normalised(layer), wanted.shape[-1]
    relative = settings.trace_rule == "relative"
    rank = omega.inner(layer, length)[1].shape[-1]
    terms = x.new_empty(n, rank)
    selected = torch.empty(n, rank, dtype=torch.bool, device=x.device)
    kinds = 2 + settings.slice_contrast
    reading = torch.empty(n, 2, kinds, x.shape[-1], dtype=stream.outputs.dtype, device=x.device)
    coefficients = x.new_empty(n, 2, kinds, rank)
    whole, constant = x.new_empty(n, 2), x.new_empty(n, 2)
    starts = torch.searchsorted(head, torch.arange(wanted.shape[1] + 1, device=head.device))
    for at, (low, high) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        if low == high:
            continue
        b, d, s = prompt[low:high], i[low:high], j[low:high]
        pairs = pair_slices(
            omega,
            layer,
            at,
            x[b, d],
            x[b, s],
            d - s,
            length,
            reading_dtype=stream.outputs.dtype,
            every_slice=settings.every_slice,
            contrast=settings.slice_contrast,
            other_keys=mean_other_keys(omega, layer, at, x, b, d, s) if relative else None,
        )
        terms[low:high], selected[low:high] = pairs.terms, pairs.selected
        reading[low:high], coefficients[low:high] = pairs.reading, pairs.coefficients
        whole[low:high], constant[low:high] = pairs.whole[..., 0], pairs.constant[..., 0]

    count = multiplicity[at_pair]
    live = count > 0
    is_head = torch.from_numpy(stream.writers.is_head(layer)).to(x.device)
    first, again = live.nonzero()[:, 0], (head[live], prompt[live], i[live], j[live])
    totals = np.full((n, 2, 4), np.nan)
    kept_count = np.full((n, 2), -1)
    contrasts: list[np.ndarray] = []
    for side in range(len(SIDES)):
        if relative and side == 1:
            found = _relative_source_effects(
                omega, stream, layer, again, reading[live, 1], coefficients[live, 1]
            )
        else:
            found = _effects(stream, layer, again[1], again[2 + side], reading[live, side])
        # Contributions [live pair, position written at, writer].
        contribution, exact = found.effects[:, :, 0], found.effects[:, :, 1]
        fixed = constant[live, side]
        if relative and side == 1:
            fixed = whole[live, side] - contribution.sum((1, 2))
        if settings.fc24_code:
            scale = stream.scale(layer)[again[1][:, None], found.position]
            contribution[..., is_head] += (fixed[:, None] / scale)[..., None]
        of_heads = contribution[..., is_head]
        kept_heads = _kept(of_heads.flatten(1), settings)
        kept = torch.zeros_like(contribution, dtype=torch.bool)
        kept[..., is_head] = kept_heads.view_as(of_heads)

        # Kept heads wrote at a position: their pairs with that destination receive these paths.
        pair, slot, writer = kept.nonzero(as_tuple=True)
        up_layer = torch.from_numpy(stream.writers.layer).to(x.device)[writer]
        up_head = torch.from_numpy(stream.writers.head).to(x.device)[writer]
        target = (up_layer, again[1][pair], up_head, found.position[pair, slot])
        paths.index_put_(target, count[live][pair], accumulate=True)

        if settings.slice_contrast:
            every = found.effects[:, :, 2][..., is_head].flatten(1)
            kept_of_every = _kept(every, settings)
            contrasts.append(_contrast(of_heads.flatten(1), kept_heads, every, kept_of_every))
        shown = kept.clone()
        if settings.keep_all:
            shown |= is_head & found.seen[..., None]
        rows.add(first + rows.n_pairs, side, found.position, contribution, exact, kept, shown)
        if settings.other_writers:
            rows.add_others(first + rows.n_pairs, side, found, contribution, exact, is_head)

        size = of_heads.abs().sum((1, 2))
        of_all = contribution.abs().sum((1, 2)) + fixed.abs()
        sums = (of_heads.sum((1, 2)), contribution.sum((1, 2)), whole[live, side], size / of_all)
        at_live = live.cpu().numpy()
        totals[at_live, side] = torch.stack(sums, -1).cpu().numpy()
        kept_count[at_live, side] = kept_heads.sum(-1).cpu().numpy()
    if settings.slice_contrast:
        rows.contrast.append(np.stack(contrasts, 1))
        rows.contrasted.append((first + rows.n_pairs).cpu().numpy())
    rows.n_pairs += n
    return PairBlock(
        row=prompt.cpu().numpy(),
        layer=layer,
        head=head.cpu().numpy(),
        destination=i.cpu().numpy(),
        source=j.cpu().numpy(),
        score=stream.score[layer][at_pair].double().cpu().numpy(),
        attention=stream.pattern[layer][at_pair].double().cpu().numpy(),
        fires=fires[at_pair].cpu().numpy(),
        terms=terms.cpu().numpy(),
        selected=selected.cpu().numpy(),
        is_root=is_root[at_pair].cpu().numpy(),
        path_multiplicity=count.cpu().numpy(),
        totals=totals,
        kept=kept_count,
    )


@dataclass(frozen=True)
class _Effects:
    """effects [pair, slot, kind, writer]: contributions on one side of what was written at position
    [pair, slot]. own [pair]: slot of the side's own token; seen [pair, slot]: not after the
    destination.
    """

    effects: Tensor
    position: Tensor
    own: Tensor
    seen: Tensor


def _effects(
    stream: ResidualStream, layer: int, prompt: Tensor, position: Tensor, reading: Tensor
) -> _Effects:
    """What was written at one position per pair; reading [pair, kind, d_model]."""
    token = prompt * stream.outputs.shape[1] + position
    n_writers = stream.writers.before(layer)
    flat = _contract(reading, token, stream.outputs.flatten(0, 1), n_writers)
    effects = flat.double() / stream.scale(layer)[prompt, position][:, None, None]
    one = torch.zeros_like(position)
    return _Effects(effects[:, None], position[:, None], one, torch.ones_like(one)[:, None] > 0)


def _relative_source_effects(
    omega: ModelOmega,
    stream: ResidualStream,
    layer: int,
    pairs: tuple[Tensor, Tensor, Tensor, Tensor],
    reading: Tensor,
    coefficients: Tensor,
) -> _Effects:
    """What was written at the source, less the mean of what was written at the other sources.

    pairs: head, prompt, destination, source [pair]; reading [pair, kind, d_model] of the source's
    own offset, coefficients [pair, kind, k] of v_k. One prompt at a time, so that its writers'
    outputs are not copied.
    """
    head, prompt, i, j = pairs
    length, n_writers = stream.outputs.shape[1], stream.writers.before(layer)
    every = torch.arange(length, device=head.device)
    seen = every <= i[:, None]
    weight = torch.where(every == j[:, None], 1.0, -1.0 / i.double().clamp(min=1)[:, None]) * seen
    weight = weight / stream.scale(layer)[prompt]
    effects = reading.new_zeros(len(head), length, reading.shape[1], n_writers, dtype=torch.float64)
    for at in sorted(set(prompt.tolist())):
        mine = (prompt == at).nonzero()[:, 0]
        read = reading[mine][:, None].expand(-1, length, -1, -1)
        if omega.rotary:
            read = _turned(omega, layer, head[mine], i[mine], j[mine], coefficients[mine], read)
        vectors = read.permute(1, 3, 0, 2).flatten(2)  # [position, d_model, pair and kind]
        products = stream.outputs[at, :, :n_writers] @ vectors
        found = products.reshape(length, n_writers, len(mine), -1).permute(2, 0, 3, 1)
        effects[mine] = found.double() * weight[mine][..., None, None]
    return _Effects(effects, every.expand(len(head), -1), j, seen)


def _turned(
    omega: ModelOmega,
    layer: int,
    head: Tensor,
    i: Tensor,
    j: Tensor,
    coefficients: Tensor,
    like: Tensor,
) -> Tensor:
    """Reading vectors at every source's own offset [pair, position, kind, d_model]."""
    length = like.shape[1]
    offset = (i[:, None] - torch.arange(length, device=i.device)).clamp(min=0)
    _, S, v = omega.inner(layer, length)
    # Coefficients have the sigma of the pair's own offset.
    own = S[i - j, head].clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    ratio = S[offset, head[:, None]] / own
    inner = (coefficients[:, None] * ratio[:, :, None]) @ v[offset, head[:, None]].mT
    Q = omega.factors(layer).Q_key[:, :-1]
    rows = (Q - Q.mean(1, keepdim=True) if omega.centred else Q).to(like.dtype)
    found = torch.empty_like(like, memory_format=torch.contiguous_format)
    for at in sorted(set(head.tolist())):
        of = (head == at).nonzero()[:, 0]
        found[of] = inner[of].to(like.dtype) @ rows[at].T
    return found


def _kept(of_heads: Tensor, settings: TraceSettings) -> Tensor:
    if settings.sign == "negative":
        of_heads = (-of_heads).clamp(min=0)
    fraction, published = settings.contribution_fraction, settings.fc24_code
    return keep_heads(of_heads, fraction, always_one=published)


def _contrast(some: Tensor, kept: Tensor, every: Tensor, kept_of_every: Tensor) -> np.ndarray:
    """Numbers of _CONTRAST [pair, number] for contributions through S and through all slices."""

    def effective(values: Tensor) -> Tensor:
        return values.abs().sum(-1).square() / values.square().sum(-1)

    a, b = some - some.mean(-1, keepdim=True), every - every.mean(-1, keepdim=True)
    correlation = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    counts = [mask.sum(-1).double() for mask in (kept, kept_of_every, kept & kept_of_every)]
    numbers = torch.stack([*counts, effective(some), effective(every), correlation], -1)
    return np.asarray(numbers.cpu().numpy())


def _contract(vectors: Tensor, token: Tensor, outputs: Tensor, n_writers: int) -> Tensor:
    """Dot products of `vectors` [item, kind, d_model] with all writers' outputs at `token` [item].

    outputs [token, writer, d_model] -> [item, kind, writer < n_writers]. Items of one token share a
    matrix product: round r takes the items numbered r * _ROUND to (r + 1) * _ROUND - 1 of every
    token, so a token's outputs are read once per round and not once per item.
    """
    items, kinds, width = vectors.shape
    result = vectors.new_empty(items, kinds, n_writers)
    if items == 0:
        return result
    order = token.argsort(stable=True)
    counts = token.bincount(minlength=len(outputs))
    ordered = token[order]
    within = torch.arange(items, device=token.device) - (counts.cumsum(0) - counts)[ordered]
    step = max(1, _ROUND_BYTES // (n_writers * width * vectors.element_size()))
    for start in range(0, int(counts.max()), _ROUND):
        busy = (counts > start).nonzero()[:, 0]
        for part in torch.split(busy, step):
            # Neighbouring tokens are read in place; only scattered ones are copied together.
            low, high = int(part[0]), int(part[-1]) + 1
            dense = high - low <= 2 * len(part)
            of = slice(low, high) if dense else part
            first, last = torch.searchsorted(ordered, torch.tensor([low, high]).to(ordered))
            mine = torch.arange(int(first), int(last), device=token.device)
            slot = within[mine] - start
            mine, slot = mine[(slot >= 0) & (slot < _ROUND)], slot[(slot >= 0) & (slot < _ROUND)]
            row = ordered[mine] - low if dense else torch.searchsorted(part, ordered[mine])
            item = order[mine]
            packed = vectors.new_zeros(high - low if dense else len(part), _ROUND, kinds, width)
            packed[row, slot] = vectors[item]
            products = torch.bmm(packed.flatten(1, 2), outputs[of, :n_writers].mT)
            result[item] = products.reshape(-1, _ROUND, kinds, n_writers)[row, slot]
    return result


# ---- frames --------------------------------------------------------------------------------------


def _edges_frame(
    slices: pl.DataFrame, rows: _Rows, writers: Writers, group: pl.DataFrame, names: RoleNames
) -> pl.DataFrame:
    if not rows.pair:
        return pl.DataFrame(schema=EDGES_SCHEMA)
    pair, side = np.concatenate(rows.pair), np.concatenate(rows.side)
    writer, contribution = np.concatenate(rows.writer), np.concatenate(rows.contribution)
    written_at = np.concatenate(rows.written_at)
    columns = ["prompt", "destination", "source", "destination_role", "source_role", "slices"]
    columns += ["trace_rule", "is_root", "path_multiplicity"]
    of_pair = slices[pair].select(
        *columns,
        downstream_layer="layer",
        downstream_head="head",
    )
    row_of = {prompt: row for row, prompt in enumerate(group["prompt"])}
    row = np.array([row_of[prompt] for prompt in of_pair["prompt"]], dtype=np.int64)
    role = names(row, np.maximum(written_at, 0))
    heads = np.stack([slices[f"{name}_heads"].to_numpy()[pair] for name in SIDES], 1)
    head_share = np.stack([slices[f"{name}_head_share"].to_numpy()[pair] for name in SIDES], 1)
    each = np.arange(len(pair))
    total = heads[each, side]
    # A part of a sum that is not positive is no share.
    share = np.full(len(pair), np.nan)
    np.divide(contribution, total, out=share, where=total > 0)
    is_head = writers.kind[writer] == WRITER_KINDS.index("head")
    layer, head = writers.layer[writer], writers.head[writer]
    return (
        of_pair.with_columns(
            upstream_kind=pl.Series(WRITER_KINDS).gather(writers.kind[writer]),
            upstream_layer=pl.Series(layer),
            upstream_head=pl.Series(head),
            side=pl.Series(SIDES).gather(side),
            written_at=pl.Series(written_at),
            written_role=role,
            contribution=pl.Series(contribution),
            exact_effect=pl.Series(np.concatenate(rows.exact)),
            contribution_share=pl.Series(np.where(is_head, share, np.nan)).fill_nan(None),
            head_share=pl.Series(head_share[each, side]).fill_nan(None),
            kept=pl.Series(np.concatenate(rows.kept)),
        )
        .with_columns(written_role=pl.when(pl.col("written_at") >= 0).then("written_role"))
        .with_columns(
            pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name)
            for name in ("upstream_layer", "upstream_head", "written_at")
        )
        .select(pl.col(name).cast(dtype) for name, dtype in EDGES_SCHEMA.items())
    )


def _contrast_frame(slices: pl.DataFrame, rows: _Rows) -> pl.DataFrame:
    if not rows.contrast:
        return pl.DataFrame(schema=CONTRAST_SCHEMA)
    numbers = np.concatenate(rows.contrast)
    pair = np.repeat(np.concatenate(rows.contrasted), len(SIDES))
    side = np.tile(np.arange(len(SIDES)), len(numbers))
    columns = [name for name in CONTRAST_SCHEMA if name in slices.columns]
    return (
        slices[pair]
        .select(columns)
        .with_columns(
            pl.Series(SIDES).gather(side).alias("side"),
            *(
                pl.Series(name, numbers[..., at].ravel()).fill_nan(None)
                for at, name in enumerate(_CONTRAST)
            ),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in CONTRAST_SCHEMA.items())
    )


def _roots_frame(
    slices: pl.DataFrame, roots: Sequence[Root], group: pl.DataFrame, settings: TraceSettings
) -> pl.DataFrame:
    traced = pl.col("path_multiplicity") > 0
    if settings.near is not None:  # a nearly firing pair may be reached from downstream as well
        traced &= pl.col("attention") < settings.firing_threshold
    firing = slices.filter(pl.col("is_root") & traced)
    n_prompts, n_firing = [], []
    for root in roots:
        has, positions = _root_sources(group, [root], torch.device("cpu"))[root.source]
        # By position: where two roles share one, it is named by the other.
        prompts = group["prompt"].gather(has.tolist())
        pairs = pl.DataFrame(
            {"prompt": prompts, "source": positions.numpy()}, schema_overrides=_PAIR_TYPES
        )
        of_root = firing.filter(layer=root.layer, head=root.head)
        n_prompts.append(len(has))
        n_firing.append(of_root.join(pairs, on=list(_PAIR_TYPES)).height)
    return pl.DataFrame(
        {
            "layer": [root.layer for root in roots],
            "head": [root.head for root in roots],
            "source": [root.source for root in roots],
            "n_prompts": n_prompts,
            "n_firing": n_firing,
        },
        schema_overrides={"layer": pl.Int32(), "head": pl.Int32()},
    )
