"""Path patching from heads to heads' queries, keys or values, and to the logits.

Belongs here: kind path_patching and its sweep over senders. Does not belong here: the frozen pass
(frozen.py) and what receivers are given (receivers.py).

Wang et al. 2022 (section 3.1, appendix B): the senders' outputs are taken from the other run, all
other heads' outputs are frozen, MLPs recomputed or frozen (`via_mlp`). What the receivers read then
is put into the run, everything behind them is recomputed. Noise: the clean prompt with the corrupt
run's senders; denoise: the corrupt prompt with the clean run's.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from mechinterp_assets.ablation.modes import reference_of
from mechinterp_assets.interventions.path_fields import Inputs, PathIntervention
from mechinterp_assets.interventions.terms import ALL_POSITIONS, Head, Heads, Role, heads_text
from mechinterp_assets.model.shape import ModelShape

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs


class PatchPath(PathIntervention):
    """z of the heads `senders` at `position_role` from the run of `source_variant`, as receivers
    see it.

    layer is the first sender's and need not be given.
    """

    kind: Literal["path_patching"] = "path_patching"
    mode: Literal["denoise", "noise"] = "noise"
    senders: Heads
    source_variant: Role

    @model_validator(mode="before")
    @classmethod
    def _layer_of_the_senders(cls, data: Any) -> Any:
        if isinstance(data, dict) and "layer" not in data:
            try:
                return {**data, "layer": min(int(layer) for layer, _ in data["senders"])}
            except (KeyError, TypeError, ValueError):
                return {**data, "layer": 0}  # what is wrong with senders is said of senders
        return data

    @model_validator(mode="after")
    def _senders_fit(self) -> "PatchPath":
        if len(set(self.senders)) < len(self.senders):
            raise ValueError(f"senders {heads_text(self.senders)} are not distinct")
        if self.layer != self.first_sender:
            raise ValueError(
                f"layer is that of the first sender, {self.first_sender}; leave it out"
            )
        last = max(layer for layer, _ in self.senders)
        if early := [head for head in self.receivers or () if head[0] <= last]:
            raise ValueError(
                f"receiver {heads_text(early)} does not lie behind the sender in layer {last}"
            )
        return self

    @property
    def first_sender(self) -> int:
        return min(layer for layer, _ in self.senders)

    @property
    def label(self) -> str:
        sent_from = f"{heads_text(self.senders)}:{self.position_role}"
        return f"{self.mode}:path:{sent_from}>{self.to}:{self.source_variant}"

    @property
    def source(self) -> str | None:
        return self.source_variant

    @property
    def reference(self) -> str | None:
        return reference_of("counterfactual_pair")

    @property
    def edits_source(self) -> bool:
        return self.mode == "denoise"

    @property
    def columns(self) -> dict[str, object]:
        """Sender and receiver stand in the columns of single heads where there is one of each."""
        own = {**super().columns, "senders": heads_text(self.senders)}
        if len(self.senders) == 1:
            own["upstream_layer"], own["upstream_head"] = self.senders[0]
        own["layer"], own["head"] = None, None
        if self.receivers is not None and len(self.receivers) == 1:
            own["layer"], own["head"] = self.receivers[0]
        return own

    def check_shape(self, shape: ModelShape) -> None:
        super().check_shape(shape)
        self.check_heads("senders", self.senders, shape)

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        from mechinterp_assets.interventions.receivers import exchanged, path_edit

        edited, other = runs.of(None, self.view), runs.of(self.source, self.view)
        if self.edits_source:
            edited, other = other, edited
        heads: dict[int, list[int]] = {}
        for layer, head in self.senders:
            heads.setdefault(layer, []).append(head)
        changes = {
            layer: exchanged(context.model, edited, other, layer, own, self.position_role)
            for layer, own in sorted(heads.items())
        }
        return path_edit(context.model, edited, changes, **self.reading)


def path_sweep(
    n_layers: int,
    n_heads: int,
    *,
    receiver: Inputs,
    receivers: Sequence[Head] | None = None,
    receiver_role: str | None = None,
    position_roles: Iterable[str] = (ALL_POSITIONS,),
    source_variant: str = "ABC",
    mode: Literal["denoise", "noise"] = "noise",
    via_mlp: bool = True,
) -> list[PatchPath]:
    """Every head before the first receiver as the only sender."""
    end = n_layers if receivers is None else min(layer for layer, _ in receivers)
    return [
        PatchPath(
            mode=mode,
            layer=layer,
            senders=((layer, head),),
            position_role=role,
            receiver=receiver,
            receivers=None if receivers is None else tuple(receivers),
            receiver_role=receiver_role,
            source_variant=source_variant,
            via_mlp=via_mlp,
        )
        for layer in range(end)
        for role in position_roles
        for head in range(n_heads)
    ]
