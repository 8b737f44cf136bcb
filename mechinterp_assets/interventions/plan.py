"""What of a list of interventions a model and its prompts can run, and why not the rest.

Belongs here: telling what can be run from what cannot, before anything runs. Does not belong here:
the checks (runner.py, sets.py, the kinds) and which interventions are asked for (published.py,
edge_choice.py, a study).

Nothing is computed: checks look at the model's shape, the prompts, traced edges and SAEs alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from mechinterp_assets.interventions.sets import Planned, members
from mechinterp_assets.interventions.terms import InterventionError, heads_text
from mechinterp_assets.model.shape import ModelShape

Decision = Literal["run", "changed", "left out"]
PLAN_SCHEMA = {
    "task": pl.String,
    "asked_by": pl.String,
    "intervention": pl.String,
    "decision": pl.String,
    "reason": pl.String,
}


@dataclass(frozen=True)
class Plan:
    """Interventions that can be run, in their order, and those that cannot with the reason."""

    runs: tuple[Planned, ...]
    left_out: tuple[tuple[Planned, str], ...] = ()

    @property
    def reasons(self) -> dict[str, str]:
        """Id of what is left out -> why."""
        return {one.id: reason for one, reason in self.left_out}


def fitting(planned: Sequence[Planned], check: Callable[[Sequence[Planned]], None]) -> Plan:
    """The part of `planned` that `check` lets pass.

    check: raises InterventionError for a list of which some part cannot be run. Whether one can be
    run does not depend on the others. The same intervention may not be given twice.
    """
    refused: dict[str, str] = {}
    waiting = [list(planned)] if planned else []
    while waiting:
        part = waiting.pop()
        try:
            check(part)
        except InterventionError as error:
            if len(part) == 1:
                refused[part[0].id] = str(error).removeprefix(f"{part[0].id}: ")
            else:
                waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
    return Plan(
        tuple(one for one in planned if one.id not in refused),
        tuple((one, refused[one.id]) for one in planned if one.id in refused),
    )


def plan_rows(
    plan: Plan, shape: ModelShape, *, task: str, asked_by: str
) -> list[dict[str, str | None]]:
    """Rows of PLAN_SCHEMA: what is run, what of it differs from what was asked, what is not."""
    shared = {"task": task, "asked_by": asked_by}
    rows: list[dict[str, str | None]] = []
    for one in plan.runs:
        change = _change(one, shape)
        decision: Decision = "run" if change is None else "changed"
        rows.append({**shared, "intervention": one.id, "decision": decision, "reason": change})
    for one, reason in plan.left_out:
        rows.append({**shared, "intervention": one.id, "decision": "left out", "reason": reason})
    return rows


def left_out(reason: str, *, task: str, asked_by: str) -> dict[str, str | None]:
    """The row of something that was asked for and is left out as a whole."""
    return {
        "task": task,
        "asked_by": asked_by,
        "intervention": None,
        "decision": "left out",
        "reason": reason,
    }


def without_rows(plan: pl.DataFrame, results: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The plan after the runs: what gave no row of intervention_results is left out.

    That is known only then: an edge's prompts may all lack slices for a control of equal size, and
    members of a set may have no prompt in common. Also returns these: task, intervention.
    """
    made = results.select("task", "intervention").unique()
    unmade = (
        plan.filter((pl.col("decision") != "left out") & pl.col("intervention").is_not_null())
        .select("task", "intervention")
        .unique()
        .join(made, on=["task", "intervention"], how="anti")
    )
    marked = plan.join(
        unmade.with_columns(_unmade=pl.lit(True)),
        on=["task", "intervention"],
        how="left",
        maintain_order="left",
    )
    none = pl.col("_unmade").fill_null(False)
    reason = pl.lit("it applies to none of the prompts: an edge without room for a control, say")
    return marked.with_columns(
        decision=pl.when(none).then(pl.lit("left out")).otherwise("decision"),
        reason=pl.when(none).then(reason).otherwise("reason"),
    ).drop("_unmade"), unmade


def _change(planned: Planned, shape: ModelShape) -> str | None:
    """How a run differs from what the intervention names, None where it does not."""
    seen = sorted({head for member in members(planned) for head in member.shared_with(shape)})
    if not seen:
        return None
    return (
        f"grouped-query attention: {shape.n_heads // shape.n_kv_heads} heads share each key and "
        f"value, so that {heads_text(seen)} see the edit too"
    )
