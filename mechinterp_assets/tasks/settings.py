"""The section `task_effects` of a study: heads ablated on tasks.

Belongs here: its keys and the checks that concern it alone. Does not belong here: the ablation
(ablation.py), the comparison of tasks (reuse.py).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mechinterp_assets.settings.section import Fraction, Positive, Section

SweepRole = Literal["all_but_bos", "END"]


class TaskEffectSettings(Section):
    """Ablation of every head on tasks (K24 sec. 4.1.1, Fig. 3), and whether tasks share heads."""

    tasks: Literal["auto"] | list[str] = "auto"
    """Which; auto takes ioi and those of tasks.names and tasks.own, others (prompt families) must
    be named."""
    ablations: list[Literal["zero", "mean_leave_one_out", "uniform_attention"]] = [
        "zero",
        "mean_leave_one_out",
    ]
    """What replaces a head's output (ablation/modes.py)."""
    position_role: SweepRole = "all_but_bos"
    """Where: at every position from 1 on, or at END alone, which costs a fraction and misses what
    heads do at earlier positions. component_reuse_faithfulness ablates everywhere either way."""
    prompts: Positive = 32
    """The first base prompts of each task, which are scored; all of them make the mean."""
    null_prompts: Annotated[int, Field(ge=16)] = 16
    """Random prompts that are KL's null."""
    bootstrap: Positive = 1000
    """Resamples of prompts behind the intervals."""
    top_shares: list[Fraction] = [0.05, 0.1, 0.2]
    """Sizes of the top sets that are compared, as shares of all heads."""
    kept_share: Fraction = 0.2
    """Size of the sets that are kept alone in component_reuse_faithfulness, which is empty unless
    mean_leave_one_out is among the ablations."""
    seed: int = 0
    """Seed of random prompts and resamples."""

    @field_validator("tasks", "ablations", "top_shares")
    @classmethod
    def _distinct(cls, values: Any, info: ValidationInfo) -> Any:
        if values != "auto" and len(set(values)) != len(values):
            raise ValueError("name each once")
        if info.field_name != "tasks" and not values:
            raise ValueError("name at least one")
        return values
