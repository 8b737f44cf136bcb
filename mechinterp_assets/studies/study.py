"""Studies: the validated form of the YAML files that say what is computed.

Belongs here: a study as a whole and what its sections must agree on. Does not belong here: the
sections (each package's settings.py), reading a file (study_file.py), the registry of all studies
(registry.py), how anything is computed, and Dagster.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr, field_validator, model_validator

from mechinterp_assets.activations.settings import ActivationSettings
from mechinterp_assets.attribution.settings import QkFeatureSettings, RdfaSettings
from mechinterp_assets.circuits.settings import IoiSettings
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.explore.settings import PromptSettings
from mechinterp_assets.faithfulness.settings import CircuitSettings
from mechinterp_assets.features.settings import ComparisonSettings, FeatureSettings
from mechinterp_assets.heads.settings import HeadSettings, PrefixInductionSettings
from mechinterp_assets.interventions.settings import InterventionSettings
from mechinterp_assets.model.settings import ModelSettings
from mechinterp_assets.prompts.settings import TaskSettings
from mechinterp_assets.sae.settings import ResidualSaeSettings, SaeSettings, SweepSettings
from mechinterp_assets.settings.section import LocalPath, Section
from mechinterp_assets.studies.settings import CheckSettings
from mechinterp_assets.tasks.settings import TaskEffectSettings

STUDY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class StudyError(ValueError):
    """A study that cannot be used; each line of the message names file, key, value and remedy."""


class Study(Section):
    """One model on one corpus, with every setting that its results depend on."""

    study: str
    """Its name: lower-case letters, digits, '-' and '_'; it becomes the partition key."""
    description: str
    """What it is, for people."""
    automation: bool = False
    """Whether Dagster's daemon makes by itself what is missing or stale, while it runs."""
    model: ModelSettings
    """Which language model."""
    corpus: CorpusSettings
    """Documents and how they become token sequences."""
    activations: ActivationSettings = ActivationSettings()
    """The activation cache."""
    sae: SaeSettings
    """Attention-output SAEs, one per layer."""
    sweep: SweepSettings = SweepSettings()
    """SAEs of several sparsities per layer."""
    residual_sae: ResidualSaeSettings = ResidualSaeSettings()
    """SAEs on the residual stream, trained elsewhere."""
    features: FeatureSettings = FeatureSettings()
    """What is kept of each feature."""
    rdfa: RdfaSettings = RdfaSettings()
    """Trees from features down to tokens."""
    heads: HeadSettings = HeadSettings()
    """Head scores."""
    prefix_induction: PrefixInductionSettings = PrefixInductionSettings()
    """Induction by prefix length."""
    ioi: IoiSettings = IoiSettings()
    """Indirect object identification and tracing."""
    tasks: TaskSettings = TaskSettings()
    """Prompts with answers beside IOI."""
    task_effects: TaskEffectSettings = TaskEffectSettings()
    """Heads ablated on tasks."""
    interventions: InterventionSettings = InterventionSettings()
    """Causal experiments."""
    circuits: CircuitSettings = CircuitSettings()
    """Circuit quality."""
    qk_features: QkFeatureSettings = QkFeatureSettings()
    """Attention scores split into pairs of SAE features."""
    prompts: PromptSettings = PromptSettings()
    """Prompts of one's own, explored and kept as tables."""
    checks: CheckSettings = CheckSettings()
    """Bounds of the asset checks."""
    comparisons: list[ComparisonSettings] = Field(default_factory=list)
    """Other SAEs that each layer's SAE is matched with."""
    labels: list[LocalPath] = Field(default_factory=list)
    """CSV files in which people say what features mean (labels/features.py has the format)."""
    head_labels: list[LocalPath] = Field(default_factory=list)
    """CSV files in which people say what heads do (labels/heads.py)."""
    reference: LocalPath | None = None
    """A file of numbers that results are compared with (reproduction/reference_file.py); studies of
    the package have theirs there."""
    _file: Path = PrivateAttr(default=Path())
    _n_layers: int = PrivateAttr(default=0)

    @field_validator("study")
    @classmethod
    def _is_a_key(cls, name: str) -> str:
        if not STUDY_NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits, '-' and '_'; it becomes a partition")
        return name

    @model_validator(mode="before")
    @classmethod
    def _keys_are_split_by_the_residual_saes(cls, data: Any) -> Any:
        """qk_features without residual SAEs of its own has those of the study."""
        if not isinstance(data, Mapping):
            return data
        given, own = data.get("residual_sae"), data.get("qk_features", {})
        if not isinstance(given, Mapping) or not isinstance(own, Mapping):
            return data
        path, centre = given.get("path"), given.get("centre", False)
        # What is wrong with these is answered once, where it stands.
        if not isinstance(path, str) or "{layer}" not in path or not isinstance(centre, bool):
            return data
        if own.get("residual_sae") is not None:
            return data
        taken = {"residual_sae": path, "centre_residual": centre}
        return {**data, "qk_features": {**own, **taken}}

    @model_validator(mode="after")
    def _mean_ablation_has_a_reference(self) -> "Study":
        mean = "mean_counterfactual"
        if mean in self.interventions.head_ablations and "ABC" not in self.ioi.variants:
            raise ValueError(
                f"interventions.head_ablations has {mean}, whose reference are the ABC prompts; "
                "add ABC to ioi.variants or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _experiments_have_prompts(self) -> "Study":
        for number, experiment in enumerate(self.interventions.experiments):
            where = f"interventions.experiments.{number}"
            self._require_tasks(f"{where}.task", [experiment.task])
            wanted = [experiment.variant, *experiment.source_variants]
            unknown = [name for name in wanted if name not in self.ioi.variants]
            if experiment.task == "ioi" and unknown:
                raise ValueError(
                    f"{where}: variant {unknown[0]!r} is not among ioi.variants "
                    f"({', '.join(self.ioi.variants)}); add it there"
                )
        return self

    @model_validator(mode="after")
    def _named_tasks_exist(self) -> "Study":
        if self.task_effects.tasks != "auto":
            self._require_tasks("task_effects.tasks", self.task_effects.tasks)
        self._require_tasks("circuits.tasks", self.circuits.tasks)
        self._require_tasks("qk_features.task", [self.qk_features.task])
        return self

    def _require_tasks(self, key: str, names: list[str]) -> None:
        known = ["ioi", *self.tasks.known]
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"{key} names {unknown[0]!r}, which is no task of this study; known: "
                f"{', '.join(known)}"
            )

    @model_validator(mode="after")
    def _circuits_have_a_counterfactual(self) -> "Study":
        variants = [name for name in self.ioi.variants if name != "base"]
        if "ioi" in self.circuits.tasks and self.circuits.counterfactual not in variants:
            raise ValueError(
                f"circuits.counterfactual {self.circuits.counterfactual!r} is none of ioi.variants "
                f"({', '.join(variants)}); add it there or name another"
            )
        return self

    @property
    def file(self) -> Path:
        """The YAML file this study came from."""
        return self._file

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self._n_layers

    @cached_property
    def layers(self) -> list[int]:
        """Layers with an activation cache and an SAE."""
        chosen = self.activations.layers
        return list(range(self.n_layers)) if chosen == "all" else sorted(chosen)

    def fingerprint(self, section: str) -> str:
        """Hash of one section's settings, 16 hex digits: changes when any of its values does."""
        value = getattr(self, section)
        text = (
            value.model_dump_json()
            if isinstance(value, BaseModel)
            else json.dumps(self.model_dump(mode="json", include={section}), sort_keys=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def sites(self) -> list[str]:
        """Partition keys of the per-layer assets."""
        return [site_key(self.study, layer) for layer in self.layers]


def site_key(study: str, layer: int) -> str:
    """Partition key of a layer of a study: `organism.L02`."""
    return f"{study}.L{layer:02d}"


def parse_site(key: str) -> tuple[str, int]:
    """Study and layer of a site key."""
    study, _, layer = key.rpartition(".L")
    return study, int(layer)
