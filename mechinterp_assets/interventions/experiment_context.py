"""What published experiments choose from: a model's heads, edges, features and measured effects.

Belongs here: the context that every published experiment is given, the roles' fallbacks, and what a
choice consists of. Does not belong here: the experiments (published_k24.py, published_fc24.py),
their list (published.py), measuring (measured_context.py) and reading tables (defs/).

No head, layer or feature is named here: roles come from scores, edges from a trace, features from
attribution. Where a model has no head with a role, the strongest heads by a score stand in, and the
reason says so. Published indices are data (published_sets.yaml) and serve models of their shape.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.terms import Head, InterventionError
from mechinterp_assets.model.shape import ModelShape

# Role -> scores of head_scores and ioi_head_scores by which heads stand in for it, first the one
# that says most; a score without positive values passes the choice on to the next.
STAND_INS: dict[str, tuple[str, ...]] = {
    "name_mover": ("ioi_attention_io", "ioi_direct_effect"),
    "negative_mover": ("ioi_negative_effect",),
    "backup_mover": ("ioi_backup_effect", "ioi_direct_effect"),
    "s_inhibition": ("ioi_s_inhibition", "ioi_attention_s2"),
    "induction": ("induction",),
    "duplicate_token": ("duplicate_token",),
    "previous_token": ("previous_token",),
}


class NothingToRun(Exception):
    """An experiment that this model or study gives nothing to run for; the message says why."""


@dataclass(frozen=True)
class Chosen:
    """An intervention of an experiment.

    part: what is compared within the experiment (a layer, a variant, an edge, a feature).
    chosen_by: why this head, layer, edge or feature, for someone who reads the table alone.
    """

    planned: Planned
    part: str
    chosen_by: str


class PublishedSizes(Protocol):
    """How much published experiments run; see interventions/settings.py."""

    @property
    def published_edges(self) -> int:
        """Edges of each chosen head."""
        ...

    @property
    def published_features(self) -> int:
        """SAE features per layer and order of names, by attribution."""
        ...

    @property
    def published_active_features(self) -> int:
        """SAE features, all layers together, up to which all active ones of a layer are taken."""
        ...

    @property
    def seed(self) -> int:
        """Seed of draws."""
        ...


@dataclass(frozen=True)
class HeadChoice:
    """Heads for a role, and why these; by_role: they have it, and are not stand-ins."""

    heads: tuple[Head, ...]
    reason: str
    by_role: bool


@dataclass(frozen=True)
class ExperimentContext:
    """A model and task ioi as published experiments see them.

    variants: of the IOI prompts, in their order. prompt_roles: roles of positions that every base
    prompt has. with_role: role -> heads. scores: rows of head_scores and ioi_head_scores (layer,
    head, score, value). trace_edges: rows of trace_edges, task ioi, of the prompts that are
    run; trace_graph: of trace_graph, of all traced prompts. sae_layers: layers that have an
    SAE.
    attribution: position role -> frame of feature_attribution.py over all of them. mean_effects:
    interventions -> id -> mean change of the logit difference, of those that can be run; both on
    the prompts that are run. check: raises InterventionError for interventions that cannot be.
    """

    shape: ModelShape
    variants: tuple[str, ...]
    prompt_roles: frozenset[str]
    with_role: Mapping[str, Sequence[Head]]
    scores: pl.DataFrame
    trace_edges: pl.DataFrame
    trace_graph: pl.DataFrame
    sae_layers: tuple[int, ...]
    attribution: Callable[[str], pl.DataFrame]
    mean_effects: Callable[[Sequence[Planned]], Mapping[str, float]]
    settings: PublishedSizes
    check: Callable[[Sequence[Planned]], None] = lambda planned: None

    def heads(self, role: str, *, at_most: int = 3) -> HeadChoice:
        """The heads with a role (all of them), or at most `at_most` stand-ins, strongest first.

        Raises InterventionError for a role without a stand-in, NothingToRun where no head has the
        role and no score is positive.
        """
        if role not in STAND_INS:
            raise InterventionError(f"unknown role {role!r}; one of {', '.join(STAND_INS)}")
        if own := tuple(self.with_role.get(role, ())):
            return HeadChoice(own, f"heads with the role {role} (head_roles)", True)
        for score in STAND_INS[role]:
            ranked = (
                self.scores.filter((pl.col("score") == score) & (pl.col("value") > 0))
                .sort(["value", "layer", "head"], descending=[True, False, False])
                .head(at_most)
            )
            if not ranked.is_empty():
                heads = tuple((int(a), int(b)) for a, b in ranked.select("layer", "head").rows())
                which = "head" if len(heads) == 1 else f"{len(heads)} heads"
                reason = f"no head has the role {role}: the {which} with the largest {score}"
                return HeadChoice(heads, reason, False)
        raise NothingToRun(
            f"no head has the role {role}, and none has a positive {' or '.join(STAND_INS[role])}"
        )
