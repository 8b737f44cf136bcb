"""The settings of circuit quality.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mechinterp_assets.settings.section import Positive, Section


class CircuitsSection(Section):
    """Circuit quality: edge attribution, faithfulness of edge and head sets, the subspace check.

    `tasks`: ioi or tasks of this study that have corrupted prompts. IOI's counterfactual is the
    variant `counterfactual`, that of other tasks is their corrupt variant. `prompts` pairs are run;
    the first `exact_prompts` of them for exact patching of every edge, or of `exact_edges` edges
    drawn at random where the model has more (then exact effects rank no circuit). `ig_steps` points
    of EAP-IG by each of `ig_rules`; the first rule's ranking has a curve. `random_rankings` and
    `random_head_sets` are controls. `head_set_size`: heads of the trace's and of the ablation's
    set; sets of at most `minimality_heads` heads have minimality. `random_subsets` of each set are
    taken out for completeness. `subspace_features`: SAE features per layer and role whose decoder
    rows are patched, those that differ most between prompts and counterfactuals.
    """

    tasks: list[str] = ["ioi"]
    counterfactual: str = "ABC"
    prompts: Positive = 16
    ig_steps: Positive = 5
    ig_rules: list[Literal["library", "paper", "midpoint"]] = ["library", "paper", "midpoint"]
    exact_prompts: Positive = 4
    exact_edges: Positive = 5000
    random_rankings: Annotated[int, Field(ge=0)] = 3
    head_set_size: Positive = 8
    minimality_heads: Annotated[int, Field(ge=0)] = 12
    random_head_sets: Annotated[int, Field(ge=0)] = 5
    random_subsets: Annotated[int, Field(ge=0)] = 3
    subspace_features: Annotated[int, Field(ge=0)] = 2
    seed: int = 0

    @field_validator("tasks", "ig_rules")
    @classmethod
    def _distinct_and_some(cls, names: list[str]) -> list[str]:
        if not names or len(set(names)) < len(names):
            raise ValueError("name at least one, each once")
        return names
