"""Prompts with answers beside IOI, in one form for every task."""

from mechinterp_assets.defs.tasks.suites import study_suite
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables


@tables("task_prompts", reads=["language_model"], settings=["tasks"], files=["tasks.own"])
def task_prompts(run: Run) -> Made:
    """Assemble the prompts of every task from segments, with every role's position."""
    built = study_suite(run)
    for name, reason in built.skipped.items():
        run.log.warning(f"{name} is left out: {reason}")
    counts = built.prompts["task"].value_counts(sort=True)
    return run.made(
        {"task_prompts": built.prompts},
        {
            "task_prompts": {
                **{f"prompts_{task}": float(n) for task, n in counts.iter_rows()},
                "left_out": ", ".join(built.skipped) or "none",
            }
        },
    )
