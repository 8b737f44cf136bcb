"""Activation patching between a prompt and its counterfactual.

Belongs here: kind activation_patching and its sweeps. Does not belong here: patching of single
paths (path_patching.py), making counterfactuals (prompts/).

Noise: the clean prompt is run with an activation of the corrupt run (corrupt into clean). Denoise:
the corrupt prompt is run with an activation of the clean run (clean into corrupt). Metrics always
use the clean prompt's answers; recovered = (patched - corrupt) / (clean - corrupt). The corrupt run
is that of the prompt of `source_variant` with the same pair_id. Activations go from role to role,
so lengths may differ where a role is named. Variants that replace the conjunction are run on
prompts with no second one alone (K24 Table 4: exactly one).

Kissane et al. 2024 (section 4, Fig. 5) normalise noising by zero ablation, (patched - zero) /
(clean - zero): versus "zero" zeroes the same site at the same positions, "zero_all" at all of them,
as the published code does, "mean_counterfactual" puts the mean over reference prompts there.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from mechinterp_assets.ablation.modes import reference_of
from mechinterp_assets.interventions.kinds.head_ablation import AblateHead
from mechinterp_assets.interventions.kinds.layer_ablation import AblateLayer
from mechinterp_assets.interventions.spec import Intervention, Site, residual_site
from mechinterp_assets.interventions.terms import ALL_POSITIONS, Index, Role, Versus

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs

PatchSite = Literal["z", "attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post"]


class PatchActivation(Intervention):
    """x -> x + alpha (other run's x - x) at `site` of `layer` at `position_role`.

    site z may name a `head`; without it z of all heads is patched. source_variant: variant of the
    corrupt prompt. cosine and norm ratio: residual stream of the edited run at the site.
    """

    kind: Literal["activation_patching"] = "activation_patching"
    mode: Literal["denoise", "noise"]
    site: PatchSite
    head: Index | None = None
    source_variant: Role
    versus: Versus | None = None

    @model_validator(mode="after")
    def _fields_fit(self) -> "PatchActivation":
        if self.head is not None and self.site != "z":
            raise ValueError(f"head belongs to site 'z'; {self.site} has no heads")
        if self.versus is not None and self.site.startswith("resid"):
            raise ValueError(
                f"an ablation of {self.site} is nothing to compare with; use versus with z, "
                "attn_out or mlp_out"
            )
        return self

    @property
    def edited_site(self) -> str:
        return self.site

    @property
    def label(self) -> str:
        head = "" if self.head is None else f"H{self.head}"
        where = f"{self.site}:L{self.layer}{head}:{self.position_role}"
        return f"{self.mode}:{where}:{self.source_variant}"

    @property
    def sites(self) -> tuple[Site, ...]:
        if self.site == "z":
            return (Site(what="z", layer=self.layer, head=self.head, role=self.position_role),)
        return (residual_site(self.site, self.layer, self.position_role),)

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
    def needs(self) -> tuple[str, ...]:
        return () if self.site == "resid_post" else (self.site,)

    @property
    def ablated_edit(self) -> Intervention | None:
        if self.versus is None:
            return None
        role = ALL_POSITIONS if self.versus == "zero_all" else self.position_role
        shared = {
            "mode": "zero" if self.versus == "zero_all" else self.versus,
            "layer": self.layer,
            "position_role": role,
            "weights": self.weights,
            "watch": self.watch,
        }
        if self.site == "z" and self.head is not None:
            return AblateHead.model_validate({**shared, "head": self.head})
        return AblateLayer.model_validate({**shared, "site": self.site})

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        from mechinterp_assets.interventions.prompts import CONJUNCTION, with_one_conjunction
        from mechinterp_assets.interventions.runs import weights_of
        from mechinterp_assets.interventions.sites import Blend, Places, at_places, edit_of

        edited, other = runs.of(None, self.view), runs.of(self.source, self.view)
        if self.edits_source:
            edited, other = other, edited
        places = Places.of(edited.group, self.position_role)
        theirs = Places.of(other.group, self.position_role)
        target = at_places(other.at(self.site, self.layer), theirs, self.head)
        step = Blend(self.site, self.layer, self.head, places, target, self.alpha)
        edit = edit_of(edited, step, weights_of(context.model, self.view))
        if not self.source_variant.startswith(CONJUNCTION):
            return edit
        base = other if self.edits_source else edited
        keep = with_one_conjunction(base.group)
        return edit.of_rows(keep) if len(keep) else None


def patching_sweep(
    n_layers: int,
    n_heads: int,
    *,
    mode: Literal["denoise", "noise"],
    source_variant: str,
    sites: Iterable[PatchSite] = ("attn_out", "mlp_out", "resid_pre"),
    position_roles: Iterable[str] = (ALL_POSITIONS,),
    versus: Versus | None = None,
) -> list[PatchActivation]:
    """Every layer at every site and role; site z is swept over heads."""
    return [
        PatchActivation(
            mode=mode,
            site=site,
            layer=layer,
            head=head,
            position_role=role,
            source_variant=source_variant,
            versus=None if site.startswith("resid") else versus,
        )
        for layer in range(n_layers)
        for site in sites
        for role in position_roles
        for head in (range(n_heads) if site == "z" else (None,))
    ]
