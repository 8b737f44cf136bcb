"""Words that interventions and the machinery that runs them share.

Belongs here: types of fields, heads and roles as data, the error of this package. Does not belong
here: interventions (spec.py) and anything that needs torch.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mechinterp_assets.ablation.modes import ALL_BUT_BOS

Side = Literal["destination", "source"]
Scope = Literal["local", "global"]
Weights = Literal["raw", "processed"]
Versus = Literal["zero", "zero_all", "mean_counterfactual"]
ALL_POSITIONS = "all"
EVERYWHERE = (ALL_POSITIONS, ALL_BUT_BOS)  # position roles that are no role of a prompt

Index = Annotated[int, Field(ge=0)]
Head = tuple[Index, Index]
Role = Annotated[str, Field(min_length=1)]


class Draw(NamedTuple):
    """Other prompts of the same cell that activations come from, drawn with `seed`.

    own: from the prompts that are run, else from the reference prompts.
    """

    own: bool
    seed: int


class InterventionError(ValueError):
    """An intervention that cannot be run; the message names the value and the remedy."""


class Frozen(BaseModel):
    """Data that forbids unknown keys and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Watched(Frozen):
    """A head and a pair of roles whose attention score (q . k / sqrt(d_head)) is a metric."""

    layer: Index
    head: Index
    destination_role: Role
    source_role: Role

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}:{self.destination_role}<-{self.source_role}"


def heads_text(heads: Sequence[Head]) -> str:
    """Heads as in ids: L0H1+L2H3."""
    return "+".join(f"L{layer}H{head}" for layer, head in heads)


def sorted_heads(value: object) -> object:
    """Heads in one order, so that an id does not depend on the order they are given in."""
    if isinstance(value, list | tuple) and all(isinstance(h, list | tuple) for h in value):
        return tuple(sorted(map(tuple, value)))
    return value


Heads = Annotated[tuple[Head, ...], BeforeValidator(sorted_heads), Field(min_length=1)]
