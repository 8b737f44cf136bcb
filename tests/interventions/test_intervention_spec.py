"""Interventions are validated data: ids are stable and errors name value and remedy."""

import pytest
from pydantic import ValidationError

from mechinterp_assets.interventions.kinds.edge import EditEdge
from mechinterp_assets.interventions.parsing import parse_intervention
from mechinterp_assets.interventions.sets import InterventionSet, validate
from mechinterp_assets.interventions.spec import Intervention
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.shape import ModelShape

SHAPE = ModelShape("gpt2", 4, 6, 6, 192, 32, 768, 4096, 128, "absolute", "LN", 1e-5)
GROUPED = ModelShape("llama", 4, 6, 2, 192, 32, 768, 4096, 128, "rotary", "RMS", 1e-5)
ROLES: dict[str, list[int]] = {"IO": [], "S2": [], "END": [], "PLACE": [3, 5]}


def zero(layer: int = 1, head: int = 2, role: str = "all", **more: object) -> Intervention:
    fields = {"kind": "head_ablation", "mode": "zero", "layer": layer, "head": head, **more}
    return parse_intervention({**fields, "position_role": role})


def edge(**changes: object) -> EditEdge:
    fields: dict[str, object] = {
        "kind": "edge",
        "mode": "ablate",
        "layer": 2,
        "head": 3,
        "upstream_layer": 0,
        "upstream_head": 5,
        "destination_role": "END",
        "source_role": "IO",
        "side": "destination",
        "scope": "local",
        "receiver": "q",
    }
    made = parse_intervention({**fields, **changes})
    assert isinstance(made, EditEdge)
    return made


def test_ids_are_stable_and_tell_interventions_apart() -> None:
    assert zero().id == "zero:L1H2:all"
    assert zero(role="END", alpha=0.5).id == "zero:L1H2:END:alpha=0.5"
    assert edge().id == "ablate:local-q:L0H5>L2H3:END<-IO:destination"
    control = edge(is_control=True, seed=7, scope="global", receiver=None, mode="boost")
    assert control.id == "boost:global:L0H5>L2H3:END<-IO:destination:control-7"
    assert control.edited_site == "attn_out"
    assert edge().edited_site == "q_input"
    assert edge().edited_role == "END"
    assert edge(side="source", receiver="k").edited_role == "IO"
    assert edge().model_copy() == edge()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "zero"}, r"mode: Input should be 'ablate', .* \(value 'zero'\)"),
        ({"side": None}, "side: Input should be 'destination' or 'source'"),
        ({"upstream_layer": 2}, "upstream layer 2 does not lie before layer 2"),
        ({"receiver": "k"}, r"destination side needs receiver in \('q', 'qkv'\)"),
        ({"scope": "global"}, "leave receiver out"),
        ({"is_control": True}, "seed is given exactly for a control"),
        ({"seed": 1}, "seed is given exactly for a control"),
        ({"position_role": "S2"}, "the edited position of this edge is END"),
        ({"alpha": float("nan")}, "finite number"),
        ({"layer": -1}, "greater than or equal to 0"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_contradictory_edges_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        edge(**changes)


def test_edge_fields_on_a_head_ablation_are_refused() -> None:
    with pytest.raises(InterventionError, match="head_ablation: side: Extra inputs"):
        zero(side="source")
    with pytest.raises(InterventionError, match=r"mode: Input should be .* \(value 'boost'\)"):
        zero(mode="boost")


def test_unknown_heads_and_roles_are_refused() -> None:
    with pytest.raises(InterventionError, match=r"zero:L1H6:all: head 6 does not exist.*0\.\.5"):
        validate([zero(head=6)], SHAPE, ROLES)
    with pytest.raises(InterventionError, match=r"layer 4 does not exist; the model has 0\.\.3"):
        validate([zero(layer=4)], SHAPE, ROLES)
    with pytest.raises(InterventionError, match="upstream_head 9 does not exist"):
        validate([edge(upstream_head=9)], SHAPE, ROLES)
    with pytest.raises(
        InterventionError, match=r"no role 'S3'; choose one of \['all', 'all_but_bos'"
    ):
        validate([zero(role="S3")], SHAPE, ROLES)
    with pytest.raises(InterventionError, match=r"2 prompts have no PLACE \(prompt 3"):
        validate([zero(role="PLACE")], SHAPE, ROLES)
    with pytest.raises(InterventionError, match="given more than once"):
        validate([zero(), zero()], SHAPE, ROLES)
    validate([zero(), zero(role="END"), edge()], SHAPE, ROLES)


def test_sets_edit_every_site_once() -> None:
    with pytest.raises(ValidationError, match=r"set 'x' edits z of L1H2 at END twice"):
        InterventionSet(name="x", members=(zero(), zero(role="END")))
    other_reader = edge(head=4, scope="global", receiver=None)
    with pytest.raises(ValidationError, match="edits the output of L0H5 at END twice"):
        InterventionSet(name="x", members=(edge(scope="global", receiver=None), other_reader))
    with pytest.raises(ValidationError, match="as read by L2H3 twice"):
        InterventionSet(name="x", members=(edge(), edge(mode="boost", source_role="S2")))
    with pytest.raises(ValidationError, match="give at least 2"):
        InterventionSet(name="x", members=(zero(),))
    parallel = InterventionSet(name="x", members=(edge(), edge(upstream_head=1), edge(head=4)))
    assert parallel.id == "set:x"
    assert len({zero(role="END"), zero(role="IO")}) == 2
