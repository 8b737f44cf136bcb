"""Attention scores by what a carrier head brings to the query from an earlier position.

Belongs here: the decomposition of K24 App. K.3, Fig. 18: SAE features at S2, moved to END by the OV
circuit of an S-inhibition head, meet the keys of a name mover. Does not belong here: the query
split by the writers at its own position, and the key (qk_features.py); statistics over prompts
(qk_pairs.py).

Carrier (c, a) attends from the destination i to the position r of `carried_from` with weight A.
With A and the scales s of both norms held fixed, what it writes is linear in the stream x at r, a
sum of parts x_p:
  carried_p = A (centre(x_p) / s_r * gain W_V) W_O      (the value's biases are a part too)
  q_p       = centre(carried_p) / s_i * gain W_Q
The rest of the query, whatever wrote it, is one part (`not_carried`), so that pairs of query parts
and key parts sum to the model's score exactly, and shares of its variance are shares of the whole.

The two orders of names are kept apart, and keys are read at the first and at the second name:
Name1 is IO in ABBA prompts and S1 in BABA prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import torch

from mechinterp_assets.attribution.qk_features import (
    Head,
    QkFeatureError,
    ScoreSplitter,
    base_numbers,
    by_row,
    check_split,
    n_bases,
)
from mechinterp_assets.attribution.qk_pairs import PairTables, RolePairs, pair_tables
from mechinterp_assets.attribution.residual_parts import MappedParts, joined
from mechinterp_assets.attribution.settings import QkFeatureSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.names import head_name
from mechinterp_assets.sae.base import SparseAutoencoder

# Order of names -> role at the first and at the second name.
NAMES = {"ABBA": ("IO", "S1"), "BABA": ("S1", "IO")}
FIRST, SECOND = "Name1", "Name2"


@dataclass(frozen=True)
class Carrier:
    """A head whose query is split, and the earlier head that brings something to it."""

    head: Head
    carrier: Head


def qk_carried(
    model: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    prompts: pl.DataFrame,
    carriers: Sequence[Carrier],
    settings: QkFeatureSettings | None = None,
    *,
    residual_saes: Mapping[int, SparseAutoencoder] | None = None,
) -> PairTables:
    """Tables qk_carried_pairs, qk_carried_kinds and qk_carried_summary, without study and task.

    Args:
        model: its raw view runs the prompts, one at a time.
        saes: SAEs on raw z by layer, which split the stream at `carried_from` and the keys.
        prompts: rows of ioi_prompts, at least 4 of each order of names that occurs.
        carriers: heads with a carrier in an earlier layer, distinct.
        settings: as for qk_features; destination, carried_from, top_pairs and top_k are used.
        residual_saes: SAEs on hook_resid_pre, which then split the keys of heads of their layer.

    Raises:
        QkFeatureError: as for qk_features; a carrier that is not before its head; prompts without
            an order of names. PromptError, RdfaError: as for qk_features.
    """
    settings, residual_saes = settings or QkFeatureSettings(), residual_saes or {}
    heads = list(dict.fromkeys(one.head for one in carriers))
    _check(prompts, carriers)
    both = list(dict.fromkeys([*heads, *(one.carrier for one in carriers)]))
    check_split(model, saes, residual_saes, prompts, both)
    roles = list(dict.fromkeys(role for names in NAMES.values() for role in names))
    used = settings.with_changes(
        sources=list(dict.fromkeys([*roles, settings.carried_from])), contrasts=[]
    )
    layers = {one.carrier[0] for one in carriers}
    found: list[PairTables] = []
    for order in [name for name in NAMES if name in prompts["name_order"].to_list()]:
        own = prompts.filter(pl.col("name_order") == order)
        splitter = ScoreSplitter(model, saes, residual_saes, own, heads, used, layers)
        for one in carriers:
            tables = pair_tables(
                _role_pairs(splitter, one, order, used),
                splitter.numbers,
                top_pairs=settings.top_pairs,
                top_k=settings.top_k,
                bases=base_numbers(own),
                last=("not_carried",),
            )
            found.append(_labelled(tables, one, order))
    return PairTables(
        *(
            pl.concat([getattr(one, name) for one in found])
            for name in ("pairs", "kinds", "summary")
        )
    )


# ---- private -------------------------------------------------------------------------------------


def _role_pairs(
    splitter: ScoreSplitter, one: Carrier, order: str, settings: QkFeatureSettings
) -> list[RolePairs]:
    """Pairs at the first name, at the second, and their contrast."""
    layer, number = one.head
    query, key = _query(splitter, one, settings), splitter.side(one.head, "key")
    wrong = f"the carried parts of head {head_name(layer, number)} do not sum to its score"
    first, second = (
        replace(splitter.scored_pairs(one.head, query, key, role, wrong), role=name)
        for name, role in zip((FIRST, SECOND), NAMES[order], strict=True)
    )
    return [first, second, first.minus(second)]


def _query(splitter: ScoreSplitter, one: Carrier, settings: QkFeatureSettings) -> MappedParts:
    """Carried parts and the rest of the query, at the rows of the destination."""
    (layer, number), (below, a) = one.head, one.carrier
    frozen, streams = splitter.frozen, splitter.streams
    of_carrier = frozen.weights(below)
    sources = streams.rows(settings.carried_from)
    destination = streams.rows(settings.destination)
    W_V = of_carrier.W_V[a]
    value = streams.mapped(below, splitter.read(below, W_V), splitter.numbers)
    n_roles = len(streams.roles)
    kept = value.row % n_roles == sources[0] % n_roles
    row, vector = value.row[kept], value.vector[kept] / streams.scale[below][value.row[kept], None]
    constant = of_carrier.norm_bias @ W_V + of_carrier.b_V[a]
    parts = joined(
        [
            MappedParts(row // n_roles, value.part[kept], vector),
            MappedParts(
                torch.arange(len(sources)),
                torch.full((len(sources),), splitter.numbers.of("value_bias")),
                constant.expand(len(sources), -1),
            ),
        ]
    )
    d_head = W_V.shape[1]
    W_O = of_carrier.W_O[a * d_head : (a + 1) * d_head]
    read = W_O @ splitter.read(layer, frozen.query_key(layer).W_Q[number])
    attention = streams.attends[below][:, a, streams.roles.index(settings.carried_from)]
    factor = attention / streams.scale[layer][destination]
    carried = splitter.turned(
        layer,
        MappedParts(
            destination[parts.row],
            parts.part,
            (parts.vector @ read) * factor[parts.row, None],
        ),
    )
    whole = splitter.side(one.head, "query")
    rest = torch.stack(
        [
            total.sum(0) - brought.sum(0)
            for (_, total), (_, brought) in zip(
                by_row(whole, destination), by_row(carried, destination), strict=True
            )
        ]
    )
    other = torch.full((len(destination),), splitter.numbers.of("not_carried"))
    return joined([carried, MappedParts(destination, other, rest)])


def _labelled(tables: PairTables, one: Carrier, order: str) -> PairTables:
    return PairTables(
        *(
            frame.with_columns(
                pl.lit(one.carrier[0], pl.Int32).alias("carrier_layer"),
                pl.lit(one.carrier[1], pl.Int32).alias("carrier_head"),
                pl.lit(order).alias("name_order"),
            )
            for frame in (tables.pairs, tables.kinds, tables.summary)
        )
    )


def _check(prompts: pl.DataFrame, carriers: Sequence[Carrier]) -> None:
    if not carriers or len(set(carriers)) != len(carriers):
        raise QkFeatureError("carriers: name at least one head with its carrier, each pair once")
    for one in carriers:
        if not 0 <= one.carrier[0] < one.head[0]:
            raise QkFeatureError(
                f"carrier {head_name(*one.carrier)} does not come before head "
                f"{head_name(*one.head)}; choose a head of an earlier layer"
            )
    if "name_order" not in prompts.columns:
        raise QkFeatureError("the prompts have no order of names; give rows of ioi_prompts")
    for (order,), own in prompts.group_by("name_order", maintain_order=True):
        if order not in NAMES or n_bases(own) < 4:
            raise QkFeatureError(
                f"{n_bases(own)} base prompts with the order of names {order!r}; give at least 4 "
                f"of each, of {' and '.join(NAMES)}"
            )
