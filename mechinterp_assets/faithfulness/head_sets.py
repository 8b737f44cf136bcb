"""Head sets: the logit difference when only some heads know their prompt.

Belongs here: runs with heads mean-ablated; faithfulness, completeness and minimality of a head set
(Wang et al. 2022, arXiv 2211.00593, sections 3.1 and 4). Does not belong here: edges
(edge_sets.py), how a set was found.

F(C) is the mean logit difference over prompts when z of every head outside C is replaced by its
mean over counterfactual prompts of the same cell, at every position (mode mean_counterfactual of
ablation/modes.py); MLPs stay. M is the set of all heads.

Why not the interventions' runner: F is needed of hundreds of sets of many heads on the same
prompts. Here sets are rows of one pass that computes z of every layer anyway and takes z or its
mean head by head, and sets that agree in all layers so far are one row; the runner would hook each
head of each set. Effects are the same (tests/ablation/test_engines.py).

    faithfulness   |F(C) - F(M)|: how much of the task the set does alone
    completeness   |F(C - K) - F(M - K)| for subsets K of C: large where the model has a way around
                   K that C lacks
    minimality     max over K of |F(C - K) - F(C - K - {v})| for every head v of C: small where v
                   changes nothing even when others are gone

Subsets K: none, the whole set, named ones (heads of one role) and random ones. Wang et al. also
search for the worst K greedily; here the largest of those tried is a lower bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.ablation.cells import Cell, prompt_cells
from mechinterp_assets.ablation.references import CounterfactualMeans
from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
from mechinterp_assets.faithfulness.prompt_pairs import (
    PromptBatch,
    check_size,
    logit_difference,
)
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.model.names import head_name
from mechinterp_assets.model.precision import float64
from mechinterp_assets.statistics.bootstrap import mean_interval

Head = tuple[int, int]
Heads = frozenset[Head]
Interval = tuple[float | None, float | None]
N_BOOTSTRAP = 1000

HEAD_SET_SCHEMA: dict[str, Any] = {
    "head_set": pl.String,
    "seed": pl.Int64,
    "quantity": pl.String,
    "subset": pl.String,
    "layer": pl.Int32,
    "head": pl.Int32,
    "n_set_heads": pl.Int64,
    "n_removed": pl.Int64,
    "m_circuit": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "m_other": pl.Float64,
    "gap": pl.Float64,
    "relative": pl.Float64,
    "m_full": pl.Float64,
    "m_empty": pl.Float64,
    "n_prompts": pl.Int64,
}


@dataclass(frozen=True)
class HeadSet:
    """A named set of heads; `subsets` are named groups within it that completeness takes out.

    detailed: completeness and, with `minimality`, minimality too; else faithfulness alone.
    """

    name: str
    heads: Heads
    subsets: Mapping[str, Heads]
    seed: int | None = None
    detailed: bool = True
    minimality: bool = True


@torch.no_grad()
def mean_z(
    model: SplitModel, reference: pl.DataFrame, *, batch_rows: int = 64
) -> CounterfactualMeans:
    """Average z over the reference prompts of every cell (task prompts of one variant)."""
    if reference.is_empty():
        raise FaithfulnessError("mean ablation needs reference prompts; none were given")
    check_size(model, reference)
    means = CounterfactualMeans()
    for _, prompts in reference.group_by("n_tokens", maintain_order=True):
        for part in prompts.iter_slices(batch_rows):
            ids = torch.tensor(part["token_ids"].to_list(), device=model.device)
            means.add(prompt_cells(part), model.run(ids).z)
    return means


class HeadSetRuns:
    """F of head sets on fixed prompts and means; every set is run once and remembered."""

    def __init__(
        self,
        model: SplitModel,
        pairs: PromptBatch,
        prompts: pl.DataFrame,
        reference: pl.DataFrame,
        *,
        batch_rows: int = 256,
    ) -> None:
        """prompts: task prompts that hold those of `pairs`; reference: those to average over.

        Raises AblationError when a prompt's cell has no reference prompt.
        """
        self._model, self._pairs = model, pairs
        self._batch_rows = model.rows_that_fit(pairs.clean.shape[1], batch_rows)
        self._known: dict[Heads, np.ndarray] = {}
        wanted = pl.DataFrame({"prompt": list(pairs.prompt)}, schema={"prompt": pl.Int64})
        rows = wanted.join(prompts, on="prompt", how="left", maintain_order="left")
        self._cells = prompt_cells(rows)
        self._means = mean_z(model, reference)
        self._means.check(rows)
        self.all_heads: Heads = frozenset(
            (layer, head)
            for layer in range(model.shape.n_layers)
            for head in range(model.shape.n_heads)
        )

    @property
    def n_prompts(self) -> int:
        """Prompts behind every F."""
        return len(self._pairs)

    def check(self, heads: Iterable[Head]) -> None:
        """Raise FaithfulnessError for heads that the model does not have."""
        if unknown := sorted(set(heads) - self.all_heads):
            shape = self._model.shape
            raise FaithfulnessError(
                f"head {head_name(*unknown[0])} does not exist; {self._model.source} has "
                f"layers 0..{shape.n_layers - 1} of {shape.n_heads} heads"
            )

    def run(self, sets: Iterable[Heads]) -> None:
        """Compute F of those sets that are not known yet, together."""
        new = [heads for heads in dict.fromkeys(sets) if heads not in self._known]
        for heads in new:
            self.check(heads)
        if not new:
            return
        self._known.update(zip(new, self.logit_differences(new), strict=True))

    def f(self, heads: Heads) -> float:
        """F(C)."""
        self.run([heads])
        return float(self._known[heads].mean())

    def interval(self, heads: Heads, *, n_bootstrap: int, seed: int) -> Interval:
        """95% percentile bootstrap interval over prompts of F(C); None with fewer than 2."""
        self.run([heads])
        return mean_interval(self._known[heads], n_bootstrap=n_bootstrap, seed=seed)

    @torch.no_grad()
    def logit_differences(self, sets: Sequence[Heads]) -> np.ndarray:
        """Logit difference of every prompt with all heads outside a set ablated [set, prompt]."""
        shape = self._model.shape
        kept = np.zeros((len(sets), shape.n_layers, shape.n_heads), dtype=bool)
        for number, heads in enumerate(sets):
            for layer, head in heads:
                kept[number, layer, head] = True
        # In this order sets that agree in the first layers run together.
        order = sorted(range(len(sets)), key=lambda number: kept[number].tobytes())
        keep = torch.from_numpy(kept[order]).to(self._model.device)
        values = np.empty((len(sets), len(self._pairs)))
        first = 0
        for batch in self._pairs.split(min(self._batch_rows, 32)):
            rows = slice(first, first + len(batch))
            means = self._targets(self._cells[rows], batch.clean.shape[1])
            size = max(1, self._batch_rows // len(batch))
            for start in range(0, len(sets), size):
                found = self._ablated(batch, means, keep[start : start + size])
                values[order[start : start + size], rows] = float64(found).cpu().numpy()
            first += len(batch)
        return values

    def _targets(self, cells: Sequence[Cell], length: int) -> list[Tensor]:
        """What replaces z [layer][b, T, head, d_head]; 0 behind END, where nothing is read."""
        model = self._model
        shape = (len(cells), length, model.shape.n_heads, model.shape.d_head)
        targets = []
        for layer in range(model.shape.n_layers):
            target = torch.zeros(shape, dtype=model.dtype, device=model.device)
            for row, cell in enumerate(cells):
                target[row, : cell.n_tokens] = self._means.mean(cell, layer).to(target)
            targets.append(target)
        return targets

    def _ablated(self, batch: PromptBatch, means: list[Tensor], keep: Tensor) -> Tensor:
        """Logit difference [set, b]; keep [set, layer, head]."""
        model, b = self._model, len(batch)
        last = model.shape.n_layers - 1
        x = model.embed(batch.clean)[None]  # [one, b, T, d_model]: sets that agree so far are one
        one_of = torch.zeros(len(keep), dtype=torch.long, device=keep.device)
        for layer in range(model.shape.n_layers):
            n_before = len(x)
            own, one_of = torch.unique(
                torch.cat([one_of[:, None], keep[:, layer].long()], 1), dim=0, return_inverse=True
            )
            before, own = own[:, 0], own[:, 1:, None].bool()
            end = batch.end.repeat(n_before)
            x = x.flatten(0, 1)
            y = model.normalise(x)
            k, v = (model.project(kind, layer, y) for kind in ("k", "v"))
            mean, at = means[layer], None
            if layer == last:
                at = end[:, None]
                rows = torch.arange(len(end), device=model.device)
                x, y = (t[rows, end][:, None] for t in (x, y))
                mean = mean[rows[:b], batch.end][:, None]
            z = model.attend(layer, model.project("q", layer, y, positions=at), k, v, at)
            x, z = (t.view(n_before, b, *t.shape[1:])[before] for t in (x, z))
            z = torch.where(own[:, None, None], z, mean)
            x = x + model.attention_output(layer, z)
            x = x + model.mlp(layer, model.normalise(x))
        return logit_difference(model, batch, x[one_of, :, 0])


def knockout_scores(runs: HeadSetRuns) -> np.ndarray:
    """F(M) - F(M without the head) [layer, head]: positive where the head helps."""
    heads = sorted(runs.all_heads)
    runs.run([runs.all_heads, *(runs.all_heads - {head} for head in heads)])
    full = runs.f(runs.all_heads)
    drops = [full - runs.f(runs.all_heads - {head}) for head in heads]
    n_layers = 1 + max(layer for layer, _ in heads)
    return np.array(drops).reshape(n_layers, -1)


def random_head_sets(
    runs: HeadSetRuns, size: int, *, count: int, seed: int, name: str
) -> list[HeadSet]:
    """`count` sets of `size` heads drawn at random, named random:<name>: faithfulness alone."""
    heads = sorted(runs.all_heads)
    found = []
    for number in range(count):
        chosen = np.random.default_rng([seed, number, size]).choice(len(heads), size, replace=False)
        drawn = frozenset(heads[i] for i in chosen.tolist())
        found.append(HeadSet(f"random:{name}", drawn, {}, number, detailed=False))
    return found


def head_set_quality(
    runs: HeadSetRuns,
    sets: Sequence[HeadSet],
    *,
    random_subsets: int = 3,
    seed: int = 0,
) -> pl.DataFrame:
    """Faithfulness, completeness and minimality of head sets: HEAD_SET_SCHEMA.

    random_subsets: subsets of half the heads of a set, drawn from `seed`, that are taken out beside
    the named ones. `relative` is value / |F(M)|; m_other is F(M) or F(M - K) for faithfulness and
    completeness, F(C - K - {v}) for minimality, of the subset with the largest change.
    """
    subsets_of = [_subsets(one, random_subsets, seed) for one in sets]
    needed = [runs.all_heads, frozenset[Head]()]
    for one, subsets in zip(sets, subsets_of, strict=True):
        for gone in subsets.values():
            needed += [one.heads - gone, runs.all_heads - gone]
            if one.detailed and one.minimality:
                for head in one.heads:
                    needed += [one.heads - (gone - {head}), one.heads - gone - {head}]
    runs.run(needed)
    rows: list[dict[str, Any]] = []
    full, empty = runs.f(runs.all_heads), runs.f(frozenset())
    for one, subsets in zip(sets, subsets_of, strict=True):
        shared = {
            "head_set": one.name,
            "seed": one.seed,
            "n_set_heads": len(one.heads),
            "m_full": full,
            "m_empty": empty,
            "n_prompts": runs.n_prompts,
        }
        for name, gone in subsets.items():
            alone, other = runs.f(one.heads - gone), runs.f(runs.all_heads - gone)
            interval = runs.interval(one.heads - gone, n_bootstrap=N_BOOTSTRAP, seed=seed)
            rows.append(
                {
                    **shared,
                    "ci_low": interval[0],
                    "ci_high": interval[1],
                    "quantity": "faithfulness" if name == "none" else "completeness",
                    "subset": name,
                    "n_removed": len(gone),
                    "m_circuit": alone,
                    "m_other": other,
                    "gap": abs(alone - other),
                }
            )
        if one.detailed and one.minimality:
            rows += [{**shared, **_minimality(runs, one, subsets, v)} for v in sorted(one.heads)]
    for row in rows:
        row["relative"] = row["gap"] / abs(full) if full else None
    return pl.DataFrame(rows, schema=HEAD_SET_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


def _subsets(one: HeadSet, count: int, seed: int) -> dict[str, Heads]:
    """Named subsets to take out; distinct, none first."""
    found: dict[str, Heads] = {"none": frozenset()}
    if not one.detailed:
        return found
    found["all"] = one.heads
    for name, heads in one.subsets.items():
        found[name] = heads & one.heads
    members = sorted(one.heads)
    for number in range(count):
        drawn = np.random.default_rng([seed, number, len(members)]).random(len(members)) < 0.5
        found[f"random {number}"] = frozenset(h for h, d in zip(members, drawn, strict=True) if d)
    distinct: dict[Heads, str] = {}
    for name, gone in found.items():
        distinct.setdefault(gone, name)
    return {name: gone for gone, name in distinct.items()}


def _minimality(
    runs: HeadSetRuns, one: HeadSet, subsets: Mapping[str, Heads], head: Head
) -> dict[str, Any]:
    """The subset that makes the head matter most; subsets that hold the head lose it first."""
    best: dict[str, Any] = {}
    for name, gone in subsets.items():
        without = gone - {head}
        here, there = runs.f(one.heads - without), runs.f(one.heads - without - {head})
        if not best or abs(here - there) > best["gap"]:
            best = {
                "quantity": "minimality",
                "subset": name,
                "layer": head[0],
                "head": head[1],
                "n_removed": len(without) + 1,
                "m_circuit": here,
                "m_other": there,
                "gap": abs(here - there),
            }
    return best
