"""Unedited runs, and what an edit is: the vocabulary that kinds and runner share.

Belongs here: runs of a group of prompts and of what belongs to them (counterfactuals, donors), the
protocol of steps. Does not belong here: what a kind changes (its own file), stacking edits and
metrics (runner.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor

from mechinterp_assets.interventions.prompts import PromptGroup, Source
from mechinterp_assets.interventions.terms import Watched
from mechinterp_assets.interventions.terms import Weights as View
from mechinterp_assets.model.bridge import AnalysisBridge
from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.kept_keys import KeptKeys
from mechinterp_assets.model.kept_run import run_and_keep_keys
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64
from mechinterp_assets.model.weights import Weights

Progress = Callable[[int, int], None]
HOOKS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "z": "attn.hook_z",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "attn_scores": "attn.hook_attn_scores",
    "scale": "ln1.hook_scale",
}
KEPT = ("resid_pre", "resid_mid", "z")


def hook_name(site: str, layer: int) -> str:
    """TransformerLens's name of an activation of a layer; "final" is what the last norm reads."""
    if site == "final":
        return "ln_final.hook_in"
    return f"blocks.{layer}.{HOOKS[site]}"


def bridge_of(model: LanguageModel, view: View) -> AnalysisBridge:
    """The model with raw or processed weights."""
    return model.raw if view == "raw" else model.processed


def has_resid_mid(model: LanguageModel, view: View) -> bool:
    """Whether the residual stream between attention and MLP is read by the MLP.

    Not where both read the same stream side by side (GPT-NeoX, GPT-J, Phi, Falcon).
    """
    return hook_name("resid_mid", 0) in bridge_of(model, view).hook_dict


def weights_of(model: LanguageModel, view: View) -> Weights:
    """Its weights."""
    return model.raw_weights if view == "raw" else model.weights


@dataclass(frozen=True)
class CleanRun:
    """Activations of one group of prompts, unedited.

    kept: site -> [layer], None where a layer's was not kept. resid_pre, resid_mid, attn_out,
    mlp_out [row, position, d_model]; z [row, position, head, d_head]; attn_scores [row, head,
    destination, source], after division by sqrt(d_head). last [row, position, d_model] is the
    residual stream behind the last layer, logits [row, d_vocab] those at END. keys: for passes over
    later positions alone, None for a model without such passes.
    """

    group: PromptGroup
    view: View
    kept: dict[str, list[Tensor]]
    last: Tensor
    logits: Tensor
    keys: KeptKeys | None = None

    @property
    def resid_pre(self) -> list[Tensor]:
        """[layer][row, position, d_model]."""
        return self.kept["resid_pre"]

    @property
    def resid_mid(self) -> list[Tensor]:
        """[layer][row, position, d_model]."""
        return self.kept["resid_mid"]

    @property
    def z(self) -> list[Tensor]:
        """[layer][row, position, head, d_head]."""
        return self.kept["z"]

    @property
    def attn_scores(self) -> list[Tensor]:
        """[layer][row, head, destination, source]."""
        return self.kept["attn_scores"]

    def before(self, layer: int) -> Tensor:
        """Residual stream before a layer; n_layers stands for the end of the last one."""
        return self.last if layer == len(self.resid_pre) else self.resid_pre[layer]

    def at(self, site: str, layer: int) -> Tensor:
        """An activation of a layer [row, position, ...]."""
        if site == "resid_post":
            return self.before(layer + 1)
        return self.kept[site][layer]


@torch.no_grad()
def clean_run(
    model: LanguageModel,
    group: PromptGroup,
    *,
    view: View = "processed",
    keep: Sequence[str] = (*KEPT, "attn_scores"),
) -> CleanRun:
    """Run a group unedited and keep the activations `keep` of every layer.

    resid_mid of a model whose attention and MLP read the stream side by side is what would be
    there if attention alone had written.
    """
    layers = range(model.config.n_layers)
    asked = dict.fromkeys([*KEPT, *keep])
    sites = list(asked)
    if "resid_mid" in asked and not has_resid_mid(model, view):
        sites = list(dict.fromkeys([*(s for s in asked if s != "resid_mid"), "attn_out"]))
    names = {site: [hook_name(site, layer) for layer in layers] for site in sites}
    last = hook_name("resid_post", layers[-1])
    logits, kept, keys = run_and_keep_keys(
        bridge_of(model, view), group.token_ids, [*chain(*names.values()), last]
    )
    values = {site: [kept[name] for name in own] for site, own in names.items()}
    if "resid_mid" not in values:
        both = zip(values["resid_pre"], values["attn_out"], strict=True)
        values["resid_mid"] = [before + added for before, added in both]
    return CleanRun(
        group,
        view,
        {site: values[site] for site in asked},
        kept[last],
        logits,
        keys,
    )


class Runs:
    """Unedited runs of one group of prompts and of what belongs to each prompt, made when asked.

    groups: None for the prompts themselves, the name of a variant for their counterfactuals, a Draw
    for the prompts that resampling takes activations from; rows correspond.
    """

    def __init__(
        self,
        model: LanguageModel,
        groups: Mapping[Source, PromptGroup],
        keep: Sequence[str] = (*KEPT, "attn_scores"),
    ) -> None:
        self.model = model
        self.groups = groups
        self._keep = keep
        self._runs: dict[tuple[Source, View], CleanRun] = {}

    @property
    def group(self) -> PromptGroup:
        """The prompts themselves."""
        return self.groups[None]

    def of(self, source: Source = None, view: View = "processed") -> CleanRun:
        """The run of the prompts (None), of a variant or of donors."""
        if (source, view) not in self._runs:
            self._runs[source, view] = clean_run(
                self.model, self.groups[source], view=view, keep=self._keep
            )
        return self._runs[source, view]


@dataclass
class LiveRun:
    """What an edited run has computed so far; clean values for layers before a row entered it.

    index [row]: the clean run's row behind each stacked row. first: the first position that it
    computes; all activations that it gives or changes begin there. frozen: what was set back to
    its clean value: (q, k or v; layer; head; first stacked row).
    """

    clean: CleanRun
    index: Tensor
    first: int = 0
    seen: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    frozen: set[tuple[str, int, int, int]] = field(default_factory=set)

    def at(self, site: str, layer: int, rows: slice) -> Tensor:
        """An activation of a layer for stacked rows [row, position, ...]."""
        seen = self.seen.get((site, layer))
        if seen is not None and rows.stop <= len(seen):
            return seen[rows]
        return self.clean.at(site, layer)[self.index[rows], self.first :]

    def z(self, layer: int, rows: slice) -> Tensor:
        """z of a layer for stacked rows [row, position, head, d_head]."""
        return self.at("z", layer, rows)

    def scale(self, layer: int, rows: slice) -> Tensor:
        """Scale of the norm before attention [row, position, 1]."""
        return self.seen["scale", layer][rows]


def earliest(positions: Tensor) -> int:
    """The first of positions [place]; 0 where there is none."""
    return int(positions.min()) if len(positions) else 0


class Step(Protocol):
    """One change to a forward pass, for the rows of its edit."""

    @property
    def first_layer(self) -> int:
        """First layer whose computation changes."""
        ...

    @property
    def first_position(self) -> int:
        """No earlier position is read or changed."""
        ...

    @property
    def reads(self) -> tuple[tuple[str, int], ...]:
        """Activations it reads from the edited run: (site, layer)."""
        ...

    def hooks(self, rows: slice, live: LiveRun) -> list[NamedHook]:
        """Hooks that make the change to the stacked rows `rows`.

        Positions of what hooks are given, and of what `live` gives, begin at `live.first`.
        """
        ...

    def select(self, keep: Tensor) -> "Step":
        """The same change for the edit's rows `keep` [row], renumbered from 0."""
        ...


@dataclass(frozen=True)
class Pairs:
    """(destination, source) pairs of one head whose attention score is a metric.

    row, destination, source [pair]; rows are those of the edit. A row with several pairs scores
    their mean.
    """

    layer: int
    head: int
    row: Tensor
    destination: Tensor
    source: Tensor

    def behind(self, first: int) -> "Pairs":
        """The same pairs where destinations are counted from `first` on."""
        return replace(self, destination=self.destination - first)

    def mean_scores(self, scores: Tensor, n_rows: int) -> Tensor:
        """[row] mean score over each row's pairs; scores [row, head, destination, source]."""
        values = float64(scores[self.row, self.head, self.destination, self.source])
        row = self.row.to(values.device)
        total = values.new_zeros(n_rows).index_add_(0, row, values)
        return total / torch.bincount(row, minlength=n_rows)


def watched_pairs(watch: Watched, group: PromptGroup, members: Tensor) -> Pairs:
    """The pair of roles that is watched, in the rows `members` of a group."""
    return Pairs(
        watch.layer,
        watch.head,
        torch.arange(len(members), device=members.device),
        group.positions[watch.destination_role][members],
        group.positions[watch.source_role][members],
    )


@dataclass(frozen=True)
class Edit:
    """An intervention worked out for the prompts of one group that it applies to.

    run: the unedited run that is edited. members [row]: its rows. cosine, norm_ratio [row]: between
    the residual stream at the edited site with and without the edit, mean over edited positions.
    n_slices [row] for edges. idle [row] (boolean): where the edit changes nothing at all, such as
    taking out a feature that is not active; None: not known.
    """

    run: CleanRun
    members: Tensor
    steps: tuple[Step, ...]
    cosine: Tensor
    norm_ratio: Tensor
    n_slices: Tensor | None = None
    pairs: Pairs | None = None
    idle: Tensor | None = None

    def of_rows(self, keep: Tensor) -> "Edit":
        """The same of some of its rows alone; keep: their indices."""
        assert self.pairs is None  # chosen by the runner, behind this
        own = keep.to(self.members.device)
        return replace(
            self,
            members=self.members[own],
            steps=tuple(step.select(own) for step in self.steps),
            cosine=self.cosine[own],
            norm_ratio=self.norm_ratio[own],
            n_slices=None if self.n_slices is None else self.n_slices[own],
            idle=None if self.idle is None else self.idle[own],
        )

    @property
    def first_layer(self) -> int:
        """First layer whose computation changes."""
        return min(step.first_layer for step in self.steps)

    @property
    def first_position(self) -> int:
        """First position that a run of this edit computes: attention looks back alone."""
        if self.run.keys is None:
            return 0
        positions = [step.first_position for step in self.steps]
        if self.pairs is not None:
            positions.append(earliest(self.pairs.destination))
        return min(positions)
