"""Scaling of a head's output.

Belongs here: kind head_scaling. Does not belong here: zero ablation (head_ablation.py), of which it
is the continuous form.

z -> alpha z of one head, or of one of its d_head channels. alpha = 1 changes nothing, 0 is zero
ablation, negative values turn the head's output around.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from mechinterp_assets.interventions.spec import Intervention, Site
from mechinterp_assets.interventions.terms import ALL_POSITIONS, Head, Index
from mechinterp_assets.model.shape import ModelShape

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs


class ScaleHead(Intervention):
    """z of `head` of `layer` at `position_role` times alpha; `channel`: one dimension of it alone.

    cosine and norm ratio are those of the residual stream after the layer's attention.
    """

    kind: Literal["head_scaling"] = "head_scaling"
    head: Index
    channel: Index | None = None

    @property
    def edited_site(self) -> str:
        return "z"

    @property
    def label(self) -> str:
        channel = "" if self.channel is None else f"C{self.channel}"
        return f"scale:L{self.layer}H{self.head}{channel}:{self.position_role}"

    @property
    def sites(self) -> tuple[Site, ...]:
        own = Site(
            what="z",
            layer=self.layer,
            head=self.head,
            role=self.position_role,
            part=self.channel,
        )
        return (own,)

    def check_shape(self, shape: ModelShape) -> None:
        super().check_shape(shape)
        if self.channel is not None:
            self.check_indices([("channel", self.channel, shape.d_head)])

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        import torch

        from mechinterp_assets.interventions.runs import weights_of
        from mechinterp_assets.interventions.sites import Places, Scale, edit_of

        model, run = context.model, runs.of(None, self.view)
        factor = torch.full((model.config.d_head,), self.alpha, device=run.logits.device)
        if self.channel is not None:
            factor = torch.ones_like(factor)
            factor[self.channel] = self.alpha
        places = Places.of(run.group, self.position_role)
        step = Scale("z", self.layer, self.head, places, factor)
        return edit_of(run, step, weights_of(model, self.view))


def head_scalings(
    heads: Iterable[Head],
    alphas: Iterable[float],
    *,
    position_roles: Iterable[str] = (ALL_POSITIONS,),
) -> list[ScaleHead]:
    """Every head by every factor at every role."""
    factors, roles = list(alphas), list(position_roles)
    return [
        ScaleHead(layer=layer, head=head, alpha=alpha, position_role=role)
        for layer, head in heads
        for alpha in factors
        for role in roles
    ]
