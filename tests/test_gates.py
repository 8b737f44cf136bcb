"""Gates let no NaN through: `if not x <= limit: raise`, since `x > limit` is false of NaN.

A gate is an `if` that raises where a real number is compared with a limit. The comparison must be
one that holds of what may pass.
"""

import ast
import math
import re
from collections.abc import Iterator

import polars as pl
import pytest
import torch

from mechinterp_assets.defs.activations.activation_cache import HarvestError, check_difference
from mechinterp_assets.faithfulness.curve_areas import trapezoid
from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
from mechinterp_assets.model.agreement import disagreement
from mechinterp_assets.reproduction.comparison import failures
from tests.test_layers import modules

_LIMIT = re.compile(r"tolerance|limit\b|error|difference|\bgap\b", re.IGNORECASE)
_REFUSING = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def gates(tree: ast.AST) -> Iterator[ast.If]:
    """Every `if` whose body raises at once."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
            yield node


def lets_nan_through(condition: ast.expr, negated: bool = False) -> bool:
    """Whether a comparison of real numbers stands there that is false of NaN, and so raises not."""
    if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not):
        return lets_nan_through(condition.operand, not negated)
    if isinstance(condition, ast.Compare):
        orders = any(isinstance(operator, _REFUSING) for operator in condition.ops)
        return orders and not negated and _is_real(condition)
    return any(
        lets_nan_through(child, negated)
        for child in ast.iter_child_nodes(condition)
        if isinstance(child, ast.expr)
    )


def _is_real(comparison: ast.Compare) -> bool:
    constants = [n.value for n in ast.walk(comparison) if isinstance(n, ast.Constant)]
    names = [n.id for n in ast.walk(comparison) if isinstance(n, ast.Name)]
    names += [n.attr for n in ast.walk(comparison) if isinstance(n, ast.Attribute)]
    return any(isinstance(value, float) for value in constants) or any(map(_LIMIT.search, names))


@pytest.mark.parametrize("module", sorted(modules()))
def test_gates_refuse_nan(module: str) -> None:
    for gate in gates(ast.parse(modules()[module].read_text())):
        assert not lets_nan_through(gate.test), (
            f"{module}, line {gate.lineno}: {ast.unparse(gate.test)} is false of NaN; "
            "write `if not <what may pass>:`"
        )


@pytest.mark.parametrize(
    ("condition", "through"),
    [
        ("x > tolerance", True),
        ("(gap > 5e-3 * size).any()", True),
        ("bool((gap > 5e-3).any())", True),
        ("found and error >= limit", True),
        ("not x <= tolerance", False),
        ("not bool((gap <= 5e-3 * size).all())", False),
        ("n < 1", False),
        ("value != expected", False),
    ],
)
def test_what_a_gate_lets_through(condition: str, through: bool) -> None:
    assert lets_nan_through(ast.parse(condition, mode="eval").body) is through


def test_a_harvest_that_cannot_be_compared_is_refused() -> None:
    check_difference("tiny.L00", 1e-4, allowed=1e-3)
    for difference in (2e-3, math.inf, math.nan):
        with pytest.raises(HarvestError, match=r"tiny\.L00: harvested z differs"):
            check_difference("tiny.L00", difference, allowed=1e-3)


def test_zero_equals_itself_and_nothing_equals_nan() -> None:
    zero, one, odd = torch.zeros(3), torch.ones(3), torch.tensor([1.0, math.nan, 1.0])
    assert disagreement(zero, zero) == 0
    assert disagreement(one, zero) == math.inf
    assert disagreement(1.5 * one, one) == 0.5
    assert disagreement(odd, one) == disagreement(one, odd) == math.inf


def test_a_comparison_without_a_verdict_is_a_failure() -> None:
    rows = pl.DataFrame({"tolerance": [0.1, 0.1, None], "judgement": ["within", None, None]})
    assert failures(rows).height == 1


def test_circuit_sizes_that_are_no_numbers_have_no_area() -> None:
    with pytest.raises(FaithfulnessError, match="increasing circuit sizes"):
        trapezoid([0.1, math.nan, 1.0], [0.0, 0.5, 1.0])
