"""Interventions as validated data: what is changed, where, in which way.

Belongs here: what all kinds have in common, sets, stable ids, and the checks that need only the
model's shape and the prompts' roles. Does not belong here: the fields of one kind (its own file),
hooks and runs (runner.py).

Conventions, for every kind:
  alpha     strength of the edit; 0 changes nothing, 1 is the full edit (head_scaling: the factor
            itself, so that 1 changes nothing)
  ablate    removes: x - alpha h        boost    adds: x + alpha h
  zero      x -> (1 - alpha) x          mean, resample, noise, denoise   x -> x + alpha (other - x)
  clean     the prompt as it stands     corrupt  the counterfactual prompt of the same pair
  weights   processed (LayerNorm folded, writing weights centred, b_V folded into b_O) or raw; SAEs
            are trained on raw z, Omega is a matter of processed weights
Everything after the edit is recomputed, MLPs and LayerNorms included, unless a kind says otherwise.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from mechinterp_assets.model.shape import ModelShape

Mode = Literal["zero", "mean", "resample", "ablate", "boost", "denoise", "noise", "splice"]
Side = Literal["destination", "source"]
Scope = Literal["local", "global"]
Receiver = Literal["q", "k", "v", "qkv", "logits"]
Weights = Literal["raw", "processed"]
ReferenceMode = Literal["zero", "zero_all", "mean"]
ALL_POSITIONS = "all"

Index = Annotated[int, Field(ge=0)]
Head = tuple[Index, Index]
Role = Annotated[str, Field(min_length=1)]


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


class Intervention(Frozen):
    """One edit. Every kind is a class of its own; `parse_intervention` finds it by `kind`.

    layer: the edited layer (that of the reader where a kind has one). position_role: role of the
    edited position, "all" for every one. watch: a head and pair whose attention score is a metric
    too. weights: the view of the model, by default that of the kind.
    """

    kind: str
    layer: Index
    position_role: Role = ALL_POSITIONS
    alpha: float = Field(default=1.0, allow_inf_nan=False)
    weights: Weights | None = None
    watch: Watched | None = None

    kinds: ClassVar[dict[str, type["Intervention"]]] = {}
    default_weights: ClassVar[Weights] = "processed"
    possible_weights: ClassVar[tuple[Weights, ...]] = ("processed", "raw")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if (kind := cls.model_fields["kind"].default) is not None and isinstance(kind, str):
            Intervention.kinds[kind] = cls

    @model_validator(mode="after")
    def _weights_are_possible(self) -> "Intervention":
        if self.weights is not None and self.weights not in self.possible_weights:
            raise ValueError(
                f"kind {self.kind!r} runs on {self.possible_weights[0]} weights; leave weights out"
            )
        return self

    # ---- what a kind says about itself -----------------------------------------------------------

    @property
    def edited_site(self) -> str:
        """What is edited, in TransformerLens's hook names, or a split input such as q_input."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """The id without the parts that all kinds share."""
        raise NotImplementedError

    @property
    def sites(self) -> tuple["Site", ...]:
        """What is edited, so that a set can tell that a site is edited twice."""
        raise NotImplementedError

    @property
    def edited_role(self) -> str:
        """Role of the position whose activations are edited."""
        return self.position_role

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that a prompt must have for this edit."""
        return (self.position_role,)

    @property
    def source(self) -> str | None:
        """Variant that activations come from, or whose run is edited."""
        return None

    @property
    def exchanged_roles(self) -> tuple[str, ...]:
        """Roles that a counterfactual must have, "all" where every position is exchanged."""
        named = (role for role in self.roles if role != ALL_POSITIONS)
        return tuple(dict.fromkeys((self.position_role, *named)))

    @property
    def edits_source(self) -> bool:
        """Whether the counterfactual's run is edited (denoising) and not the clean one."""
        return False

    @property
    def donor_seed(self) -> int | None:
        """Seed by which other prompts are drawn that activations come from."""
        return None

    @property
    def needs(self) -> tuple[str, ...]:
        """Activations of unedited runs that it takes, beside the residual stream and z."""
        return ()

    @property
    def reference_edit(self) -> "Intervention | None":
        """The intervention whose run recovered fractions are normalised by."""
        return None

    @property
    def columns(self) -> dict[str, object]:
        """Columns of intervention_results that are not fields of the same name."""
        return {}

    def check_shape(self, shape: ModelShape) -> None:
        """Raise InterventionError for layers and heads that the model does not have."""
        named = [("layer", self.layer, shape.n_layers)]
        if isinstance(head := getattr(self, "head", None), int):
            named.append(("head", head, shape.n_heads))
        if self.watch is not None:
            named += [
                ("watch.layer", self.watch.layer, shape.n_layers),
                ("watch.head", self.watch.head, shape.n_heads),
            ]
        self.check_indices(named)

    def check_indices(self, named: Sequence[tuple[str, int, int]]) -> None:
        """Raise InterventionError for the first (name, value, size) out of range."""
        for name, value, size in named:
            if value >= size:
                raise InterventionError(
                    f"{self.id}: {name} {value} does not exist; the model has 0..{size - 1}"
                )

    # ---- the same for all kinds ------------------------------------------------------------------

    @property
    def view(self) -> Weights:
        """Weights that it runs on."""
        return self.weights or self.default_weights

    @property
    def id(self) -> str:
        """Stable identifier: the same for the same intervention in every run."""
        parts = [self.label]
        if self.alpha != 1.0:
            parts.append(f"alpha={self.alpha:g}")
        if self.view != self.default_weights:
            parts.append(self.view)
        if getattr(self, "reference", None) is not None:
            parts.append(f"vs-{getattr(self, 'reference')}")  # noqa: B009
        if self.watch is not None:
            parts.append(f"watch={self.watch}")
        return ":".join(parts)


class Site(Frozen):
    """Something that can be edited once: an activation of a layer, of one head or all, at a role.

    what: any words that two edits of the same thing share; part: a channel or feature, None for
    all; detail: its only reader, where there is one.
    """

    what: str
    layer: int
    head: int | None = None
    role: str = ALL_POSITIONS
    part: int | None = None
    detail: str = ""

    def overlaps(self, other: "Site") -> bool:
        """Whether an edit of one touches what an edit of the other does."""
        roles = self.role == other.role or ALL_POSITIONS in (self.role, other.role)
        return roles and self.overlaps_at_one_position(other)

    def overlaps_at_one_position(self, other: "Site") -> bool:
        """Whether the two would overlap if their roles stood at the same position."""
        same = (self.what, self.layer, self.detail) == (other.what, other.layer, other.detail)
        heads = None in (self.head, other.head) or self.head == other.head
        parts = None in (self.part, other.part) or self.part == other.part
        return same and heads and parts

    def __str__(self) -> str:
        head = "" if self.head is None else f"H{self.head}"
        part = "" if self.part is None else f" ({self.part})"
        seen = f" as read by {self.detail}" if self.detail else ""
        return f"{self.what}{part} of L{self.layer}{head} at {self.role}{seen}"


def residual_site(site: str, layer: int, role: str) -> Site:
    """Site of an activation of the residual stream or of what is added to it.

    resid_post of one layer is resid_pre of the next.
    """
    if site == "resid_post":
        return Site(what="resid_pre", layer=layer + 1, role=role)
    return Site(what=site, layer=layer, role=role)


def parse_intervention(data: object) -> Intervention:
    """An intervention of the kind that `data` names; interventions are returned as they are.

    Raises InterventionError for an unknown kind and for fields that do not fit it.
    """
    if isinstance(data, Intervention):
        return data
    if not isinstance(data, Mapping):
        raise InterventionError(
            f"an intervention is a mapping of keys to values, not {type(data).__name__} {data!r}"
        )
    import mechinterp_assets.interventions.edit_context  # noqa: F401  (fills Intervention.kinds)

    kind = data.get("kind")
    if kind not in Intervention.kinds:
        raise InterventionError(
            f"unknown kind {kind!r}; one of {', '.join(sorted(Intervention.kinds))}"
        )
    try:
        return Intervention.kinds[str(kind)].model_validate(dict(data))
    except ValidationError as error:
        raise InterventionError(f"{kind}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """One line for a pydantic error: every key with what is wrong."""
    problems = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(problem["input"], Mapping) else f" (value {problem['input']!r})"
        problems.append(f"{key}: {message}{shown}" if key else message)
    return "; ".join(problems)


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


def reference_of(planned: Planned) -> Planned | None:
    """What is run to normalise recovered fractions: for a set, all its members' references."""
    references = [member.reference_edit for member in members(planned)]
    if any(reference is None for reference in references):
        return None
    if isinstance(planned, Intervention):
        return references[0]
    distinct = {one.id: one for one in references if one is not None}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    return InterventionSet(
        name="+".join(distinct), members=tuple(distinct.values()), watch=planned.watch
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
        for watch in watched(planned):
            check_roles(planned.id, (watch.destination_role, watch.source_role), roles)


def watched(planned: Planned) -> Iterator[Watched]:
    """What a planned intervention watches: at most one head and pair."""
    if planned.watch is not None:
        yield planned.watch


def check_roles(owner: str, needed: Sequence[str], roles: Mapping[str, Collection[int]]) -> None:
    """Raise InterventionError unless every prompt has the roles `needed` ("all" is no role)."""
    for role in needed:
        if role == ALL_POSITIONS:
            continue
        if role not in roles:
            raise InterventionError(
                f"{owner}: the prompts have no role {role!r}; "
                f"choose one of {[ALL_POSITIONS, *roles]}"
            )
        if lacking := sorted(roles[role]):
            raise InterventionError(
                f"{owner}: {len(lacking)} prompts have no {role} (prompt {lacking[0]}, "
                "for one); leave these prompts out or choose another role"
            )


def check_shared_keys(owner: str, receivers: str, heads: Sequence[int], shape: ModelShape) -> None:
    """Raise InterventionError where a key or value is edited that several heads share.

    receivers: letters among q, k and v.
    """
    if shape.n_kv_heads != shape.n_heads and set(receivers) & set("kv"):
        raise InterventionError(
            f"{owner}: receiver {receivers!r} edits a key or value of head {heads[0]}, but "
            f"{shape.n_heads // shape.n_kv_heads} heads of this model share each key "
            "(grouped-query attention); use receiver 'q', or scope 'global' for an edge"
        )


def heads_text(heads: Sequence[Head]) -> str:
    """Heads as in ids: L0H1+L2H3."""
    return "+".join(f"L{layer}H{head}" for layer, head in heads)


def sorted_heads(value: object) -> object:
    """Heads in one order, so that an id does not depend on the order they are given in."""
    if isinstance(value, list | tuple) and all(isinstance(h, list | tuple) for h in value):
        return tuple(sorted(map(tuple, value)))
    return value


Heads = Annotated[tuple[Head, ...], BeforeValidator(sorted_heads), Field(min_length=1)]
