"""The settings of interventions.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mechinterp_assets.settings.section import Positive, Section


class ExperimentSection(Section):
    """Interventions of the user's own on the prompts of one task (docs/interventions.md).

    `interventions`: descriptions, or `file`, a YAML file that is a list of them. `task`: ioi or a
    task of this study. The first `prompts` prompts of `variant` are run (default: as many as
    interventions.prompts); activations come from the other variants, means and resampled
    activations from `reference_variant`.
    """

    task: str = "ioi"
    variant: str = "base"
    reference_variant: str = "ABC"
    prompts: Positive | None = None
    file: Path | None = None
    interventions: list[dict[str, Any]] = []

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("file") is None:
            return data
        from mechinterp_assets.interventions.descriptions import read_descriptions

        if data.get("interventions"):
            raise ValueError("give either interventions or file")
        # Their text becomes part of the settings, so that a changed file makes results stale.
        return {**data, "interventions": read_descriptions(Path(data["file"]))}

    @model_validator(mode="after")
    def _descriptions_are_valid(self) -> "ExperimentSection":
        if not self.interventions:
            raise ValueError("nothing would run: give interventions or file")
        _ = self.source_variants
        return self

    @property
    def source_variants(self) -> list[str]:
        """Variants that activations are taken from. Raises InterventionError for what is invalid.

        What needs the model's shape (does this head exist?) is checked before the run.
        """
        from mechinterp_assets.interventions.descriptions import expand
        from mechinterp_assets.interventions.sets import members

        planned = expand(self.interventions)
        sources = [one.source for many in planned for one in members(many)]
        return sorted({source for source in sources if source is not None})


class InterventionSection(Section):
    """Ablations of heads and edits of traced edges that run by default, on `prompts` IOI prompts.

    `published`: experiments of the papers, by name (interventions/published.py), on the first
    `published_prompts` IOI prompts, with up to `published_edges` edges of each chosen head and
    `published_features` SAE features per layer. `experiments`: interventions of the user's own, on
    IOI or another task. `bootstrap` resamples of prompts give the intervals.
    """

    head_ablations: list[Literal["zero", "mean_counterfactual"]] = ["zero", "mean_counterfactual"]
    edges: Annotated[int, Field(ge=0)] = 10
    prompts: Positive = 64
    published: Literal["all"] | list[str] = "all"
    published_prompts: Positive = 32
    published_edges: Positive = 3
    published_features: Positive = 3
    bootstrap: Positive = 1000
    seed: int = 0
    experiments: list[ExperimentSection] = []

    @field_validator("published")
    @classmethod
    def _known_experiments(cls, names: Any) -> Any:
        if names and names != "all":
            from mechinterp_assets.interventions.published import published_experiments

            published_experiments(names)
        return names

    @model_validator(mode="after")
    def _something_to_do(self) -> "InterventionSection":
        if not (self.head_ablations or self.edges or self.experiments or self.published):
            raise ValueError(
                "nothing would run: name a mode in head_ablations, an experiment in published, or "
                "set edges"
            )
        return self
