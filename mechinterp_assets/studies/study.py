"""Studies: the validated form of the YAML files that say what is computed.

Belongs here: a study as a whole, how its paths are resolved and the errors a wrong file gives. Does
not belong here: the sections (each package's settings.py), where files are found (registry.py), how
anything is computed, and Dagster.

Every check that needs no weights runs at load:
unknown keys, types, layers that the model does not have, paths that do not exist. What depends on
the machine (does an SAE of this width fit its memory?) is checked before work starts.
"""

import difflib
import hashlib
import json
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from mechinterp_assets.activations.settings import ActivationSection
from mechinterp_assets.attribution.settings import QkFeatureSettings, RdfaSettings
from mechinterp_assets.circuits.settings import IoiSection
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.faithfulness.settings import CircuitsSection
from mechinterp_assets.features.settings import ComparisonSection, FeatureSection
from mechinterp_assets.files.yaml_reader import YamlError, read_yaml
from mechinterp_assets.heads.settings import HeadSettings, PrefixInductionSettings
from mechinterp_assets.interventions.settings import InterventionSection
from mechinterp_assets.model.settings import ModelSection
from mechinterp_assets.model.shape import ModelError, read_shape
from mechinterp_assets.prompts.settings import TasksSection
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.settings import EXTERNAL, SaeSettings, SweepSettings
from mechinterp_assets.settings.section import Section
from mechinterp_assets.studies.settings import CheckSection
from mechinterp_assets.tasks.settings import TaskEffectSection

STUDY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class StudyError(ValueError):
    """A study that cannot be used; each line of the message names file, key, value and remedy."""


class Study(Section):
    """One model on one corpus, with every setting that its results depend on.

    `labels`: CSV files in which people say what features mean (features/labels.py has the format);
    `head_labels`: what heads do (heads/labels.py). `reference`: a file of numbers that results are
    compared with (reproduction/reference_file.py); studies of the package have theirs there.
    """

    study: str
    description: str
    model: ModelSection
    corpus: CorpusSettings
    activations: ActivationSection = ActivationSection()
    sae: SaeSettings
    sweep: SweepSettings = SweepSettings()
    features: FeatureSection = FeatureSection()
    rdfa: RdfaSettings = RdfaSettings()
    heads: HeadSettings = HeadSettings()
    prefix_induction: PrefixInductionSettings = PrefixInductionSettings()
    ioi: IoiSection = IoiSection()
    tasks: TasksSection = TasksSection()
    task_effects: TaskEffectSection = TaskEffectSection()
    interventions: InterventionSection = InterventionSection()
    circuits: CircuitsSection = CircuitsSection()
    qk_features: QkFeatureSettings = QkFeatureSettings()
    checks: CheckSection = CheckSection()
    comparisons: list[ComparisonSection] = Field(default_factory=list)
    labels: list[Path] = Field(default_factory=list)
    head_labels: list[Path] = Field(default_factory=list)
    reference: Path | None = None
    _file: Path = PrivateAttr(default=Path())
    _n_layers: int = PrivateAttr(default=0)

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
            known = ["ioi", *self.tasks.to_ablate, *self.tasks.known]
            if experiment.task not in known:
                raise ValueError(
                    f"{where}: task {experiment.task!r} is no task of this study; known: "
                    f"{', '.join(dict.fromkeys(known))}"
                )
            wanted = [experiment.variant, *experiment.source_variants]
            unknown = [name for name in wanted if name not in self.ioi.variants]
            if experiment.task == "ioi" and unknown:
                raise ValueError(
                    f"{where}: variant {unknown[0]!r} is not among ioi.variants "
                    f"({', '.join(self.ioi.variants)}); add it there"
                )
        return self

    @model_validator(mode="after")
    def _ablated_tasks_exist(self) -> "Study":
        known = [*self.tasks.to_ablate, *self.tasks.known]
        named = self.task_effects.tasks
        if named != "auto" and (unknown := [name for name in named if name not in known]):
            raise ValueError(
                f"task_effects.tasks names {unknown[0]!r}, which is no task of this study; known: "
                f"{', '.join(known)}"
            )
        return self

    @model_validator(mode="after")
    def _circuits_have_prompts(self) -> "Study":
        known = ["ioi", *self.tasks.known]
        if unknown := [name for name in self.circuits.tasks if name not in known]:
            raise ValueError(
                f"circuits.tasks names {unknown[0]!r}, which is no task of this study; known: "
                f"{', '.join(known)}"
            )
        variants = [name for name in self.ioi.variants if name != "base"]
        if "ioi" in self.circuits.tasks and self.circuits.counterfactual not in variants:
            raise ValueError(
                f"circuits.counterfactual {self.circuits.counterfactual!r} is none of ioi.variants "
                f"({', '.join(variants)}); add it there or name another"
            )
        return self

    @model_validator(mode="after")
    def _split_scores_have_prompts(self) -> "Study":
        known = ["ioi", *self.tasks.known]
        if self.qk_features.task not in known:
            raise ValueError(
                f"qk_features.task {self.qk_features.task!r} is no task of this study; known: "
                f"{', '.join(known)}"
            )
        return self

    @field_validator("study")
    @classmethod
    def _is_a_key(cls, name: str) -> str:
        if not STUDY_NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits, '-' and '_'; it becomes a partition")
        return name

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


def load_study(file: Path) -> Study:
    """Read and validate one study file. Raises StudyError with file, key, value and remedy."""
    try:
        data = read_yaml(file)
    except YamlError as error:
        raise StudyError(str(error)) from None
    if not isinstance(data, dict):
        what = "nothing" if data is None else f"a {type(data).__name__}"
        raise StudyError(
            f"{file}: a study is a mapping of keys to values, and this file holds {what}; "
            "start from docs/studies.md or `mechinterp new`"
        )
    try:
        study = Study.model_validate(_resolve_paths(data, file.parent))
    except ValidationError as error:
        raise StudyError(_explain(file, error)) from None
    study._file = file
    study._n_layers = _check_model(file, study.model)
    _check_layers(file, study)
    _check_task_roots(file, study)
    _check_movers(file, study)
    _check_reference_heads(file, study)
    _check_saes(file, study)
    _check_path(file, "corpus.path", study.corpus.path)
    for number, task in enumerate(study.tasks.own):
        _check_path(file, f"tasks.own.{number}.path", task.path)
    _check_feature_settings(file, study)
    return study


# ---- private -------------------------------------------------------------------------------------


def _resolve_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make `path` keys absolute: relative to the study file, with ~ and $VARIABLE expanded."""

    def resolve(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        path = Path(os.path.expanduser(os.path.expandvars(value)))
        return str(path if path.is_absolute() else (folder / path).resolve())

    resolved = dict(data)
    for section in ("model", "corpus"):
        part = resolved.get(section)
        if isinstance(part, dict) and "path" in part:
            resolved[section] = {**part, "path": resolve(part["path"])}
    sae = resolved.get("sae")
    if isinstance(sae, dict) and "path" in sae:
        path = sae["path"]
        if isinstance(path, dict):
            path = {layer: resolve(value) for layer, value in path.items()}
        resolved["sae"] = {**sae, "path": resolve(path)}
    split = resolved.get("qk_features")
    if isinstance(split, dict) and "residual_sae" in split:
        resolved["qk_features"] = {**split, "residual_sae": resolve(split["residual_sae"])}
    for name in ("labels", "head_labels"):
        if isinstance(files := resolved.get(name), list):
            resolved[name] = [resolve(path) for path in files]
    if "reference" in resolved:
        resolved["reference"] = resolve(resolved["reference"])
    causal = resolved.get("interventions")
    if isinstance(causal, dict) and isinstance(given := causal.get("experiments"), list):
        resolved["interventions"] = {
            **causal,
            "experiments": [
                {**one, "file": resolve(one["file"])}
                if isinstance(one, dict) and "file" in one
                else one
                for one in given
            ],
        }
    tasks = resolved.get("tasks")
    if isinstance(tasks, dict) and isinstance(own := tasks.get("own"), list):
        resolved["tasks"] = {
            **tasks,
            "own": [
                {**task, "path": resolve(task["path"])}
                if isinstance(task, dict) and "path" in task
                else task
                for task in own
            ],
        }
    return resolved


def _explain(file: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
        if problem["type"] == "extra_forbidden":
            known = _known_keys(problem["loc"][:-1])
            close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
            lines.append(f"{file}: {key}: unknown key (value {problem['input']!r}); {hint}")
        elif problem["type"] == "missing":
            lines.append(f"{file}: {key}: required key is missing; add it")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            value = problem["input"]
            shown = f" (value {value!r})" if not isinstance(value, dict) else ""
            lines.append(f"{file}: {key}: {message}{shown}")
    return "\n".join(lines)


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model: Any = Study
    for part in location:
        if not isinstance(part, str):
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _check_path(file: Path, key: str, path: Path | None) -> None:
    if path is not None and not path.exists():
        raise StudyError(
            f"{file}: {key}: {path} does not exist; correct the path (relative paths start at the "
            "study file's folder)"
        )


def _check_model(file: Path, model: ModelSection) -> int:
    """Number of layers; declared sizes must agree with a local config."""
    _check_path(file, "model.path", model.path)
    if model.hub is not None:
        assert model.n_layers is not None
        return model.n_layers
    try:
        shape = read_shape(model.source)
    except ModelError as error:
        raise StudyError(f"{file}: model.path: {error}") from error
    for name in ("n_layers", "n_heads", "d_head"):
        declared, real = getattr(model, name), getattr(shape, name)
        if declared is not None and declared != real:
            raise StudyError(
                f"{file}: model.{name}: {declared} is not what {model.source} has ({real}); "
                "correct it or leave it out"
            )
    return shape.n_layers


def _check_saes(file: Path, study: Study) -> None:
    try:
        if study.sae.architecture == EXTERNAL:
            _check_external(file, study)
        else:
            _check_every_layer(study.sae, study.layers, "sae")
        for i, variant in enumerate(study.sweep.of(study.sae).values()):
            _check_every_layer(variant, study.layers, f"sweep.variants[{i}]")
    except SaeError as error:
        raise StudyError(f"{file}: {error}") from None


def _check_every_layer(sae: SaeSettings, layers: list[int], key: str) -> None:
    for layer in sae.d_sae_by_layer:
        if layer not in layers:
            raise SaeError(
                f"{key}.d_sae_by_layer: layer {layer} has no SAE; the study's layers are {layers}"
            )
    for layer in layers:
        sae.for_layer(layer)


def _check_external(file: Path, study: Study) -> None:
    folders = {layer: study.sae.external_folder(layer) for layer in study.layers}
    for layer, folder in folders.items():
        if not (folder / "cfg.json").is_file():
            raise StudyError(
                f"{file}: sae.path: layer {layer}: {folder} has no cfg.json; name a folder in "
                "SAELens's format (relative paths start at the study file's folder), or leave the "
                "layer out of activations.layers"
            )
        if twice := [other for other in folders if other < layer and folders[other] == folder]:
            raise StudyError(
                f"{file}: sae.path: layers {twice[0]} and {layer} have the same folder {folder}; "
                "write {layer} where the names differ"
            )


def _check_layers(file: Path, study: Study) -> None:
    if study.activations.layers != "all":
        for layer in study.activations.layers:
            if layer >= study.n_layers:
                raise StudyError(
                    f"{file}: activations.layers: layer {layer} does not exist; "
                    f"{study.model.source} has layers 0..{study.n_layers - 1}"
                )
    if not isinstance(study.ioi.roots, str):
        for layer, *_ in study.ioi.roots:
            if layer >= study.n_layers:
                raise StudyError(
                    f"{file}: ioi.roots: layer {layer} does not exist; "
                    f"{study.model.source} has layers 0..{study.n_layers - 1}"
                )


def _check_task_roots(file: Path, study: Study) -> None:
    for task, roots in study.tasks.roots.items():
        for layer, *_ in roots:
            if not 0 <= layer < study.n_layers:
                raise StudyError(
                    f"{file}: tasks.roots.{task}: layer {layer} does not exist; "
                    f"{study.model.source} has layers 0..{study.n_layers - 1}"
                )


def _check_movers(file: Path, study: Study) -> None:
    if study.heads.movers == "auto":
        return
    for layer, _ in study.heads.movers:
        if not 0 <= layer < study.n_layers:
            raise StudyError(
                f"{file}: heads.movers: layer {layer} does not exist; "
                f"{study.model.source} has layers 0..{study.n_layers - 1}"
            )


def _check_reference_heads(file: Path, study: Study) -> None:
    for name, heads in study.ioi.reference_heads.items():
        if not heads:
            raise StudyError(f"{file}: ioi.reference_heads.{name}: name at least one [layer, head]")
        for layer, head in heads:
            if not (0 <= layer < study.n_layers and head >= 0):
                raise StudyError(
                    f"{file}: ioi.reference_heads.{name}: head {layer}.{head} does not exist; "
                    f"{study.model.source} has layers 0..{study.n_layers - 1}"
                )


def _check_feature_settings(file: Path, study: Study) -> None:
    """Label files exist; layers that proxies, comparisons and trees name do."""
    for key, paths in (("labels", study.labels), ("head_labels", study.head_labels)):
        for number, path in enumerate(paths):
            _check_path(file, f"{key}.{number}", path)
            if path.is_dir():
                raise StudyError(f"{file}: {key}.{number}: {path} is a folder; name a CSV file")
        names = [path.name for path in paths]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise StudyError(f"{file}: {key}: two files are called {', '.join(twice)}; rename one")
    for number, proxy in enumerate(study.features.proxies):
        if unknown := sorted(set(proxy.features or ()) - set(study.layers)):
            raise StudyError(
                f"{file}: features.proxies.{number}.features: layer {unknown[0]} has no SAE; "
                f"layers with one: {', '.join(map(str, study.layers))}"
            )
    for number, feature in enumerate(study.rdfa.features):
        if feature.layer not in study.layers:
            raise StudyError(
                f"{file}: rdfa.features.{number}.layer: layer {feature.layer} has no SAE; layers "
                f"with one: {', '.join(map(str, study.layers))}"
            )
    for number, comparison in enumerate(study.comparisons):
        own = comparison.with_study in {None, study.study}
        if own and comparison.layer is None and comparison.version is None:
            raise StudyError(
                f"{file}: comparisons.{number}.with: {comparison.with_study!r} is this study; give "
                "layer or version too, or another study"
            )
        if own and isinstance(comparison.layer, int) and comparison.layer not in study.layers:
            raise StudyError(
                f"{file}: comparisons.{number}.layer: layer {comparison.layer} has no SAE; layers "
                f"with one: {', '.join(map(str, study.layers))}"
            )
