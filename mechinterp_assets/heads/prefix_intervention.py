"""Causal check of long-prefix induction on real text (K24 section 4.2, Fig. 4).

Belongs here: which cases are edited, the edits, attention before and after. Does not belong here:
finding cases (prefix_corpus.py).

A case is a pair (destination i, source s) of text whose match is p >= 2 tokens long and to which
the head attends. Each edit replaces one token by one that the sequence does not have, the same
token in all edits of a case:
  match         the token at s - 2: the match is broken, and a prefix of exactly 1 token is left;
  before_match  the token at s - 1 - p, right before the first copy: the match stays as it is;
  after_source  the token at s + 2, as far behind the source as the first is before it: likewise.
The last two are controls: what they change is not the match, so the drop under `match` beyond
theirs is due to the match. Only cases in which all three are possible are drawn.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.heads.datasets import DatasetError, ordinary_token_ids
from mechinterp_assets.heads.prefix_corpus import ATTENDS, AttendedCases
from mechinterp_assets.heads.prefix_induction import trimmed_batches
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import last_position
from mechinterp_assets.statistics.bootstrap import cluster_bootstrap

EDITS = ("match", "before_match", "after_source")
_DRAWS = 1000  # of a replacement token, before a text is called too small

PREFIX_INTERVENTION_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "edit": pl.String,
    "n": pl.Int64,
    "n_attended": pl.Int64,
    "n_editable": pl.Int64,
    "n_documents": pl.Int64,
    "mean_prefix_length": pl.Float64,
    "attention_before": pl.Float64,
    "attention_after": pl.Float64,
    "attention_after_ci_low": pl.Float64,
    "attention_after_ci_high": pl.Float64,
    "mean_drop": pl.Float64,
    "drop_ci_low": pl.Float64,
    "drop_ci_high": pl.Float64,
    "excess_drop": pl.Float64,
    "excess_ci_low": pl.Float64,
    "excess_ci_high": pl.Float64,
    "still_attended_rate": pl.Float64,
}
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class EditableCases:
    """Distinct cases whose three edits are possible, in the order of the text.

    sequence, destination, source, prefix_length [case]; of_entry [entry of AttendedCases]: which
    case each entry is, -1 for those that cannot be edited. prefix_length is not capped.
    """

    sequence: Integers
    destination: Integers
    source: Integers
    prefix_length: Integers
    of_entry: Integers

    def positions(self) -> Integers:
        """Position that each edit replaces [edit, case]."""
        s = self.source
        return np.stack([s - 2, s - 1 - self.prefix_length, s + 2])


def editable_cases(token_ids: Tensor, attended: AttendedCases, bos_token_id: int) -> EditableCases:
    """The cases that all edits can be made of.

    The token before the match must exist and not be BOS; the one behind the source must not be BOS
    and must lie before the second copy.
    """
    ids = token_ids.cpu().numpy()
    length = ids.shape[1]
    keys = (attended.sequence * length + attended.destination) * length + attended.source
    case, of_entry = np.unique(keys, return_inverse=True)
    sequence, destination, source = case // length**2, case // length % length, case % length
    p = _match_lengths(ids, sequence, destination, source, bos_token_id)
    before, after = source - 1 - p, source + 2
    possible = (before >= 1) & (after < destination - p + 1)
    possible &= ids[sequence, before.clip(min=0)] != bos_token_id
    possible &= ids[sequence, after.clip(max=length - 1)] != bos_token_id
    new_number = np.where(possible, np.cumsum(possible) - 1, -1)
    return EditableCases(
        sequence[possible],
        destination[possible],
        source[possible],
        p[possible],
        new_number[of_entry.ravel()],
    )


def edited_sequences(
    model: LanguageModel, token_ids: Tensor, cases: EditableCases, *, seed: int
) -> Tensor:
    """Token ids under each edit [edit, case, position].

    The new token is drawn uniformly from the ordinary tokens that occur in `token_ids` but not in
    the case's own sequence. Raises DatasetError where a sequence has them all.
    """
    ids = token_ids.cpu().numpy()
    pool = np.intersect1d(np.unique(ids), ordinary_token_ids(model).numpy())
    generator = np.random.default_rng([seed, 1])
    new = generator.choice(pool, size=len(cases.sequence))
    for _ in range(_DRAWS):
        taken = (ids[cases.sequence] == new[:, None]).any(axis=1)
        if not taken.any():
            break
        new[taken] = generator.choice(pool, size=int(taken.sum()))
    else:
        raise DatasetError(
            f"no replacement token was found for {int(taken.sum())} cases: the text has "
            f"{len(pool)} different tokens and a sequence almost all of them; give more text"
        )
    edited = np.repeat(ids[None, cases.sequence], len(EDITS), axis=0)
    place = cases.positions()[..., None]
    np.put_along_axis(edited, place, np.broadcast_to(new[None, :, None], place.shape), axis=2)
    return torch.from_numpy(edited)


def prefix_intervention(
    model: LanguageModel,
    token_ids: Tensor,
    attended: AttendedCases,
    heads: list[tuple[int, int]],
    *,
    documents: NDArray[np.int64] | None = None,
    n_cases: int = 100,
    batch_size: int = 64,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Attention to the source before and after each edit: the frame prefix_induction_intervention.

    One row per head of `heads` and edit. A head's cases are a random sample, at most `n_cases`, of
    those it attends to; heads that attend to the same cases share them (the cases have one random
    order), and one forward pass per edited case serves all of them. Raw weights. Intervals: 95%
    percentile bootstrap over documents, a case being of its destination's. documents [sequence,
    position]: as for prefix_corpus. A head without cases has n = 0 and NULLs.
    """
    cases = editable_cases(token_ids, attended, model.bos_token_id)
    order = np.random.default_rng([seed, 0]).permutation(len(cases.sequence))
    entries: list[Integers] = []
    for layer, head in heads:
        own = np.flatnonzero((attended.layer == layer) & (attended.head == head))
        own = own[cases.of_entry[own] >= 0]
        entries.append(own[np.argsort(order[cases.of_entry[own]], kind="stable")][:n_cases])
    chosen = np.unique(cases.of_entry[np.concatenate([*entries, np.zeros(0, np.int64)])])
    new_number = np.full(len(cases.sequence), -1)
    new_number[chosen] = np.arange(len(chosen))
    drawn = replace(
        cases,
        sequence=cases.sequence[chosen],
        destination=cases.destination[chosen],
        source=cases.source[chosen],
        prefix_length=cases.prefix_length[chosen],
    )
    edited = edited_sequences(model, token_ids, drawn, seed=seed)
    cluster = drawn.sequence
    if documents is not None:
        cluster = documents[drawn.sequence, drawn.destination]
    after = _attention(model, edited, drawn, batch_size)
    rows: list[dict[str, Any]] = []
    for (layer, head), own in zip(heads, entries, strict=True):
        is_head = (attended.layer == layer) & (attended.head == head)
        number = new_number[cases.of_entry[own]]
        counts = {
            "layer": layer,
            "head": head,
            "n": len(own),
            "n_attended": int(is_head.sum()),
            "n_editable": int((cases.of_entry[is_head] >= 0).sum()),
        }
        before = attended.attention[own]
        drops = before - after[:, number, layer, head]
        for edit, name in enumerate(EDITS):
            excess = (
                drops[edit] - drops[1:].mean(axis=0) if edit == 0 else np.full(len(own), np.nan)
            )
            values = _summary(
                before,
                np.stack([before - drops[edit], drops[edit], excess], axis=1),
                drawn.prefix_length[number],
                cluster[number],
                n_bootstrap=n_bootstrap,
                seed=seed,
            )
            rows.append({**counts, "edit": name, **values})
    return pl.DataFrame(rows, schema=PREFIX_INTERVENTION_SCHEMA).with_columns(
        pl.col(pl.Float64).fill_nan(None)
    )


# ---- private -------------------------------------------------------------------------------------


def _match_lengths(
    ids: NDArray[Any], sequence: Integers, destination: Integers, source: Integers, bos: int
) -> Integers:
    """Number of tokens that match, going back from the destination and from the source - 1."""
    matched = np.zeros(len(sequence), dtype=np.int64)
    going = np.arange(len(sequence))
    while len(going):
        first = source[going] - 1 - matched[going]
        going, first = going[first >= 1], first[first >= 1]
        tokens = ids[sequence[going], first]
        second = ids[sequence[going], destination[going] - matched[going]]
        going = going[(tokens == second) & (tokens != bos)]
        matched[going] += 1
    return matched


@torch.no_grad()
def _attention(
    model: LanguageModel, edited: Tensor, cases: EditableCases, batch_size: int
) -> NDArray[np.float64]:
    """Attention destination -> source of all heads [edit, case, layer, head]."""
    n = len(cases.sequence)
    flat = edited.flatten(0, 1)
    destination = torch.from_numpy(cases.destination).repeat(len(EDITS))
    source = torch.from_numpy(cases.source).repeat(len(EDITS))
    shape = (model.config.n_layers, model.config.n_heads)
    found = torch.zeros(len(flat), *shape, dtype=torch.float64)

    for rows, ids in trimmed_batches(flat, destination, batch_size):

        def keep(pattern: Tensor, hook: Any, rows: Tensor = rows) -> None:
            row = torch.arange(len(rows), device=pattern.device)
            i, s = destination[rows].to(row.device), source[rows].to(row.device)
            found[rows, hook.layer()] = pattern[row, :, i, s].double().cpu()

        hooks = [
            (f"blocks.{layer}.attn.hook_pattern", keep) for layer in range(model.config.n_layers)
        ]
        model.raw.run_with_hooks(
            ids.to(model.device), fwd_hooks=[*hooks, ("unembed.hook_in", last_position)]
        )
    return np.asarray(found.view(len(EDITS), n, *shape).numpy())


def _summary(
    before: NDArray[np.float64],
    values: NDArray[np.float64],
    prefix_length: Integers,
    document: Integers,
    *,
    n_bootstrap: int,
    seed: int,
) -> dict[str, float]:
    """Means and intervals; values [case, 3]: attention after, drop, drop beyond the controls'."""
    if not len(before):
        return {"n_documents": 0}
    found, cluster = np.unique(document, return_inverse=True)
    sums = np.zeros((len(found), 3))
    np.add.at(sums, cluster, values)
    counts = np.bincount(cluster).astype(np.float64)[:, None]
    low, high = cluster_bootstrap(sums, counts, n_bootstrap=n_bootstrap, seed=seed)
    after, drop, excess = values.mean(axis=0)
    return {
        "n_documents": len(found),
        "mean_prefix_length": float(prefix_length.mean()),
        "attention_before": float(before.mean()),
        "attention_after": after,
        "attention_after_ci_low": low[0],
        "attention_after_ci_high": high[0],
        "mean_drop": drop,
        "drop_ci_low": low[1],
        "drop_ci_high": high[1],
        "excess_drop": excess,
        "excess_ci_low": low[2],
        "excess_ci_high": high[2],
        "still_attended_rate": float((values[:, 0] > ATTENDS).mean()),
    }
