"""The section `interventions` of a study.

Belongs here: its keys and the checks that concern it alone. Does not belong here: descriptions of
interventions (descriptions.py), running them.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from mechinterp_assets.settings.section import (
    Count,
    LocalPath,
    Positive,
    Section,
    resolved_path,
)


class ExperimentSettings(Section):
    """Interventions of the user's own on the prompts of one task (docs/interventions.md).

    Activations come from other variants than `variant`, means and resampled activations from
    `reference_variant`.
    """

    task: str = "ioi"
    """ioi or a task of this study."""
    variant: str = "base"
    """The variant that is run."""
    reference_variant: str = "ABC"
    """Where means and resampled activations come from."""
    prompts: Positive | None = None
    """The first prompts of the variant (default: as many as interventions.prompts)."""
    file: LocalPath | None = None
    """A YAML file that is a list of descriptions, in place of `interventions`."""
    interventions: list[dict[str, Any]] = []
    """Descriptions of interventions."""

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or data.get("file") is None:
            return data
        if data.get("interventions"):
            raise ValueError("give either interventions or file")
        file = resolved_path(data["file"], info)
        if not isinstance(file, str | Path):
            return data  # the field says what is wrong
        from mechinterp_assets.interventions.descriptions import read_descriptions

        # Their text becomes part of the settings, so that a changed file makes results stale.
        return {**data, "interventions": read_descriptions(Path(file))}

    @model_validator(mode="after")
    def _descriptions_are_valid(self) -> "ExperimentSettings":
        if not self.interventions:
            raise ValueError("nothing would run: give interventions or file")
        _ = self.source_variants
        return self

    @cached_property
    def source_variants(self) -> list[str]:
        """Variants that activations are taken from. Raises InterventionError for what is invalid.

        What needs the model's shape (does this head exist?) is checked before the run.
        """
        from mechinterp_assets.interventions.descriptions import expand
        from mechinterp_assets.interventions.sets import members

        planned = expand(self.interventions)
        sources = [one.source for many in planned for one in members(many)]
        return sorted({source for source in sources if source is not None})


class InterventionSettings(Section):
    """Ablations of heads and edits of traced edges that run by default, on IOI prompts, and more.

    An experiment that the study has no heads, edges, SAEs or variants for is left out.
    """

    head_ablations: list[Literal["zero", "mean_counterfactual"]] = ["zero", "mean_counterfactual"]
    """What replaces every head, one at a time."""
    edges: Count = 10
    """Traced edges that are edited, the heaviest ones."""
    prompts: Positive = 64
    """IOI prompts of the ablations and edits."""
    published: Literal["all"] | list[str] = "all"
    """Experiments of the papers, by name (interventions/published.py)."""
    published_prompts: Positive = 32
    """The first IOI prompts, which they run on."""
    published_edges: Positive = 3
    """Edges of each chosen head in them."""
    published_active_features: Count = 1000
    """All SAE features of a layer that are active at S2 are ablated one by one, in layers that have
    no more than this many together, those with the largest attribution first."""
    published_features: Positive = 3
    """Features of each other layer: those with the largest attribution in ABBA prompts, and as many
    in BABA prompts."""
    bootstrap: Positive = 1000
    """Resamples of prompts behind the intervals."""
    seed: int = 0
    """Seed of draws and resamples."""
    experiments: list[ExperimentSettings] = []
    """Interventions of the user's own, on IOI or another task."""

    @field_validator("published")
    @classmethod
    def _known_experiments(cls, names: Any) -> Any:
        if names and names != "all":
            from mechinterp_assets.interventions.published import published_experiments

            published_experiments(names)
        return names

    @model_validator(mode="after")
    def _something_to_do(self) -> "InterventionSettings":
        if not (self.head_ablations or self.edges or self.experiments or self.published):
            raise ValueError(
                "nothing would run: name a mode in head_ablations, an experiment in published, or "
                "set edges"
            )
        return self
