"""The settings of head ablation on tasks.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mechinterp_assets.settings.section import Fraction, Positive, Section


class TaskEffectSection(Section):
    """Ablation of every head on tasks (K24 Fig. 3), and whether tasks share heads.

    `tasks`: which; auto takes ioi and those of tasks.names and tasks.own, others (prompt families)
    must be named. `ablations`: modes of ablation/modes.py. The first `prompts`
    base prompts of each task are scored; all of them make the mean. `null_prompts` random prompts
    are KL's null. `bootstrap` resamples. `top_shares`: sizes of the top sets that are compared, as
    shares of all heads; `kept_share`: of the sets that are kept alone in
    component_reuse_faithfulness, which is empty unless mean_leave_one_out is among the ablations.
    """

    tasks: Literal["auto"] | list[str] = "auto"
    ablations: list[Literal["zero", "mean_leave_one_out", "uniform_attention"]] = [
        "zero",
        "mean_leave_one_out",
    ]
    prompts: Positive = 32
    null_prompts: Annotated[int, Field(ge=16)] = 16
    bootstrap: Positive = 1000
    top_shares: list[Fraction] = [0.05, 0.1, 0.2]
    kept_share: Fraction = 0.2
    seed: int = 0

    @field_validator("tasks", "ablations", "top_shares")
    @classmethod
    def _distinct(cls, values: Any, info: ValidationInfo) -> Any:
        if values != "auto" and len(set(values)) != len(values):
            raise ValueError("name each once")
        if info.field_name != "tasks" and not values:
            raise ValueError("name at least one")
        return values
