"""Interventions made together, and what holds of one intervention and of a set alike.

Belongs here: sets and their checks, the run that a planned intervention edits and those it is
compared with. Does not belong here: one intervention (spec.py) and running (runner.py).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Annotated

import polars as pl
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from mechinterp_assets.interventions.parsing import explain, parse_intervention
from mechinterp_assets.interventions.spec import Intervention, Site, check_roles
from mechinterp_assets.interventions.terms import Frozen, InterventionError, Watched
from mechinterp_assets.model.shape import ModelShape


class InterventionSet(Frozen):
    """Several interventions made together in one forward pass, under one name.

    A later member sees what an earlier one did: an edge's h is computed from the upstream head's
    output in the edited run.
    """

    name: Annotated[str, Field(min_length=1)]
    members: tuple[
        Annotated[SerializeAsAny[Intervention], BeforeValidator(parse_intervention)], ...
    ]
    watch: Watched | None = None

    @model_validator(mode="after")
    def _members_fit_together(self) -> "InterventionSet":
        if len(self.members) < 2:
            raise ValueError(f"set {self.name!r} has {len(self.members)} members; give at least 2")
        if watching := [member.id for member in self.members if member.watch is not None]:
            raise ValueError(
                f"member {watching[0]} of set {self.name!r} has a watch of its own; members run in "
                "one pass: give `watch` to the set"
            )
        seen: list[tuple[Site, Intervention]] = []
        for member in self.members:
            for site in member.sites:
                for other, by in seen:
                    if site.overlaps(other):
                        raise ValueError(
                            f"set {self.name!r} edits {site} twice, by {by.id} and {member.id}; "
                            "drop one of them"
                        )
            seen += [(site, member) for site in member.sites]
        self._agree("weights", {m.id: m.view for m in self.members}, "give `weights` to some")
        self._agree(
            "the run that is edited",
            {m.id: (m.source if m.edits_source else "clean") for m in self.members},
            "use one mode and one source_variant",
        )
        return self

    def _agree(self, what: str, values: Mapping[str, object], remedy: str) -> None:
        if len(set(values.values())) > 1:
            raise ValueError(f"members of set {self.name!r} differ in {what}: {values}; {remedy}")

    @property
    def id(self) -> str:
        """Stable identifier."""
        return f"set:{self.name}" + (f":watch={self.watch}" if self.watch is not None else "")


Planned = Intervention | InterventionSet


def parse_planned(data: object) -> Planned:
    """An intervention, or a set where `data` has the key `members`. Raises InterventionError."""
    if isinstance(data, InterventionSet):
        return data
    if isinstance(data, Mapping) and "members" in data:
        try:
            return InterventionSet.model_validate(dict(data))
        except ValidationError as error:
            why, name = explain(error), f"set {data.get('name')!r}"
            raise InterventionError(why if name in why else f"{name}: {why}") from None
    return parse_intervention(data)


def members(planned: Planned) -> tuple[Intervention, ...]:
    """The interventions made together: one, or those of a set."""
    return planned.members if isinstance(planned, InterventionSet) else (planned,)


def edited_source(planned: Planned) -> str | None:
    """Variant whose run is edited; None for the clean run."""
    first = members(planned)[0]
    return first.source if first.edits_source else None


def corrupt_source(planned: Planned) -> str | None:
    """Variant of the corrupt run that fractions are recovered from; None where there is none.

    Members of a set that take nothing from a counterfactual have no say.
    """
    sources = {member.source for member in members(planned)} - {None}
    return sources.pop() if len(sources) == 1 else None


def ablated_of(planned: Planned) -> Planned | None:
    """What is run to normalise recovered fractions: for a set, all its members' ablations."""
    ablations = [member.ablated_edit for member in members(planned)]
    if any(one is None for one in ablations):
        return None
    if isinstance(planned, Intervention):
        return ablations[0]
    distinct = {one.id: one for one in ablations if one is not None}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    return InterventionSet(
        name="+".join(distinct), members=tuple(distinct.values()), watch=planned.watch
    )


def reference_of_all(planned: Planned) -> str | None:
    """Reference of an ablation; of a set, where its members have the same."""
    references = {member.reference for member in members(planned)}
    return references.pop() if len(references) == 1 else None


def check_positions(planned: Sequence[Planned], prompts: pl.DataFrame, shape: ModelShape) -> None:
    """Raise InterventionError for a set that edits one site twice through two names of a position.

    prompts: in the common form. In "and John" after the first name, say, S1+1 and AND are one
    position.
    """
    clashing = [
        (one, first, second)
        for one in planned
        if isinstance(one, InterventionSet)
        for first, second in combinations(_sites(one, shape), 2)
        if first.role != second.role and first.overlaps_at_one_position(second)
    ]
    if not clashing:
        return
    for prompt, roles, positions in prompts.select("prompt", "roles", "positions").iter_rows():
        at = dict(zip(roles, positions, strict=True))
        for one, first, second in clashing:
            place = at.get(first.role)
            if place is not None and place == at.get(second.role):
                raise InterventionError(
                    f"{one.id}: {first} and {second} are one site in prompt {prompt}, where both "
                    f"roles are position {place}; drop one member, or leave out such prompts"
                )


def validate(
    interventions: Sequence[Planned], shape: ModelShape, roles: Mapping[str, Collection[int]]
) -> None:
    """Check interventions against a model's shape and the prompts; raises InterventionError.

    roles: role name -> ids of the prompts that lack it.
    """
    ids = [planned.id for planned in interventions]
    if doubled := sorted({i for i in ids if ids.count(i) > 1} if len(set(ids)) < len(ids) else ()):
        raise InterventionError(
            f"interventions {doubled} are given more than once; drop the copies"
        )
    for planned in interventions:
        for one in members(planned):
            one.check_shape(shape)
            check_roles(one.id, one.roles, roles)
        _check_shared_sites(planned, shape)
        for watch in watched(planned):
            check_roles(planned.id, (watch.destination_role, watch.source_role), roles)


def _sites(planned: InterventionSet, shape: ModelShape) -> list[Site]:
    return [site for member in planned.members for site in member.sites_in(shape)]


def _check_shared_sites(planned: Planned, shape: ModelShape) -> None:
    """Raise InterventionError for a set that edits a key or value of a query group twice."""
    if not isinstance(planned, InterventionSet):
        return
    for first, second in combinations(planned.members, 2):
        pairs = product(first.sites_in(shape), second.sites_in(shape))
        if twice := next((one for one, other in pairs if one.overlaps(other)), None):
            raise InterventionError(
                f"{planned.id}: {first.id} and {second.id} edit {twice} twice, because these heads "
                "share keys and values (grouped-query attention); drop one of them"
            )


def watched(planned: Planned) -> Iterator[Watched]:
    """What a planned intervention watches: at most one head and pair."""
    if planned.watch is not None:
        yield planned.watch
