"""Studies: the validated form of the YAML files that say what is computed.

Belongs here: the schema of a study, how its paths are resolved, the registry of all studies and the
errors a wrong file gives. Does not belong here: how anything is computed, and Dagster.

A study file is found in `mechinterp_assets/studies/` or in the folders named by the environment
variable MECHINTERP_STUDIES (separated like PATH). Every check that needs no weights runs at load:
unknown keys, types, layers that the model does not have, paths that do not exist. What depends on
the machine (does an SAE of this width fit its memory?) is checked before work starts.
"""

import difflib
import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from mechinterp_assets.model_shape import ModelError, read_shape
from mechinterp_assets.organism import ORGANISM_FOLDER

PACKAGED_STUDIES = Path(__file__).parent / "studies"
STUDIES_VARIABLE = "MECHINTERP_STUDIES"
STUDY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
EMBEDDED_MODEL = "organism"

Positive = Annotated[int, Field(gt=0)]
Root = tuple[int, int] | tuple[int, int, Literal["IO", "S1", "S2"]]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class StudyError(ValueError):
    """A study that cannot be used; the message names file, key, value and remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """Which model: exactly one of `embedded`, `path` and `hub`.

    `n_layers`, `n_heads`, `d_head` are needed for `hub`, whose config is not read at load; beside
    `path` they may be left out, and where they are given they must agree with its config.json.
    """

    embedded: Literal["organism"] | None = None
    path: Path | None = None
    hub: str | None = None
    n_layers: Positive | None = None
    n_heads: Positive | None = None
    d_head: Positive | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSection":
        given = [name for name in ("embedded", "path", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of embedded, path and hub (given: {given})")
        missing = [n for n in ("n_layers", "n_heads", "d_head") if getattr(self, n) is None]
        if self.hub is not None and missing:
            raise ValueError(
                f"a hub model's sizes are not known before it is loaded: add {missing}"
            )
        return self

    @property
    def source(self) -> str:
        """What LanguageModel.load is given."""
        if self.embedded is not None:
            return str(ORGANISM_FOLDER)
        return str(self.path) if self.path is not None else str(self.hub)


class CorpusSection(_Section):
    """Documents and how they become token sequences.

    `structured` documents are generated (`documents`, `seed`); the other formats are read from
    `path` (file, folder or, for huggingface, also a hub name in `dataset`). Documents are taken in
    a random order from a window of `shuffle_buffer`, since sources are often sorted.
    """

    format: Literal["structured", "parquet", "jsonl", "text", "huggingface"]
    path: Path | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    dataset_split: str = "train"
    text_column: str = "text"
    documents: Positive | None = None
    shuffle_buffer: Annotated[int, Field(ge=0)] = 10_000
    max_tokens: Positive = 2_000_000
    context_size: Annotated[int, Field(ge=8)] = 128
    held_out_fraction: Fraction = 0.1
    split_by: Literal["document", "title"] = "document"
    seed: int = 0

    @model_validator(mode="after")
    def _has_source(self) -> "CorpusSection":
        if self.format == "structured":
            if self.path is not None or self.dataset is not None:
                raise ValueError("structured text is generated: remove path and dataset")
        elif self.format == "huggingface":
            if (self.path is None) == (self.dataset is None):
                raise ValueError("give either path (a local dataset folder) or dataset (hub name)")
        elif self.path is None:
            raise ValueError(f"format {self.format!r} needs path")
        return self


class ActivationSection(_Section):
    """The activation cache: which layers, how many tokens, how they are stored."""

    layers: Literal["all"] | list[Annotated[int, Field(ge=0)]] = "all"
    max_tokens: Positive = 2_000_000
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    batch_size: Positive = 64
    sequences_per_shard: Positive = 4096

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: Any) -> Any:
        if layers != "all" and (not layers or len(set(layers)) != len(layers)):
            raise ValueError("name each layer once, or all")
        return layers


class SaeSection(_Section):
    """Attention-output SAEs (K24 section 2), one per layer."""

    architecture: Literal["topk", "standard"] = "topk"
    d_sae: Positive
    k: Positive = 16
    l1_coefficient: Annotated[float, Field(gt=0)] = 1.0
    training_tokens: Positive
    batch_size: Positive = 2048
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    dead_after_tokens: Positive = 250_000
    evaluation_tokens: Positive = 65_536
    seed: int = 0

    @model_validator(mode="after")
    def _k_below_width(self) -> "SaeSection":
        if self.architecture == "topk" and self.k > self.d_sae:
            raise ValueError(f"k={self.k} is larger than d_sae={self.d_sae}; lower k")
        return self


class FeatureSection(_Section):
    """What is kept of each feature; the `pages` most often active of a layer get a page.

    The first `dfa_examples` of the top examples have direct feature attribution, by head and by
    source; the first `dfa_matrix_examples` of those the whole head x source matrix.
    """

    max_tokens: Positive = 1_000_000
    top_examples: Positive = 20
    context_window: Positive = 24
    intervals: Positive = 10
    interval_examples: Positive = 5
    logit_tokens: Positive = 10
    dfa_examples: Positive = 5
    dfa_matrix_examples: Annotated[int, Field(ge=0)] = 2
    pages: Positive = 2048


class HeadSection(_Section):
    """Random repeated token sequences and random texts that head scores are measured on."""

    sequences: Positive = 64
    repeat_length: Positive = 50
    seed: int = 0


class IoiSection(_Section):
    """Indirect object identification: prompts and singular vector tracing (FC24).

    `roots` are [layer, head] at (END, IO), or [layer, head, S1 or S2]; auto takes the heads with
    the largest direct effect on the logit difference.
    """

    prompts: Positive = 128
    variants: list[str] = ["base", "ABC"]
    held_out_pairs: bool = False
    seed: int = 0
    roots: Literal["auto"] | list[Root] = "auto"
    max_roots: Positive = 3
    firing_threshold: Fraction = 0.5
    contribution_fraction: Fraction = 0.7

    @field_validator("variants")
    @classmethod
    def _known_variants(cls, variants: list[str]) -> list[str]:
        from mechinterp_assets.circuits.ioi import VARIANTS  # imports torch

        unknown = sorted(set(variants) - set(VARIANTS))
        if unknown or "base" not in variants:
            raise ValueError(f"name base and any of {', '.join(VARIANTS)}")
        return variants


class InterventionSection(_Section):
    """Ablations that run by default."""

    head_ablations: list[Literal["zero", "mean"]] = ["zero", "mean"]
    edges: Annotated[int, Field(ge=0)] = 10
    prompts: Positive = 64
    bootstrap: Positive = 1000
    seed: int = 0

    @model_validator(mode="after")
    def _something_to_do(self) -> "InterventionSection":
        if not self.head_ablations and not self.edges:
            raise ValueError("nothing would run: name a mode in head_ablations or set edges")
        return self


class CheckSection(_Section):
    """Bounds of the asset checks that block what lies downstream."""

    l0: tuple[float, float] = (0.5, 256.0)
    ce_recovered_min: float = 0.5
    ioi_accuracy_min: float | None = None


class Study(_Section):
    """One model on one corpus, with every setting that its results depend on."""

    study: str
    description: str
    model: ModelSection
    corpus: CorpusSection
    activations: ActivationSection = ActivationSection()
    sae: SaeSection
    features: FeatureSection = FeatureSection()
    heads: HeadSection = HeadSection()
    ioi: IoiSection = IoiSection()
    interventions: InterventionSection = InterventionSection()
    checks: CheckSection = CheckSection()
    _file: Path = PrivateAttr(default=Path())
    _n_layers: int = PrivateAttr(default=0)

    @model_validator(mode="after")
    def _mean_ablation_has_a_reference(self) -> "Study":
        if "mean" in self.interventions.head_ablations and "ABC" not in self.ioi.variants:
            raise ValueError(
                "interventions.head_ablations has mean, whose reference are the ABC prompts; add "
                "ABC to ioi.variants or leave mean out"
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
        text = getattr(self, section).model_dump_json()
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
        data = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise StudyError(f"{file}: not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise StudyError(
            f"{file}: a study is a mapping of keys to values, not {type(data).__name__}"
        )
    try:
        study = Study.model_validate(_resolve_paths(data, file.parent))
    except ValidationError as error:
        raise StudyError(_explain(file, error)) from None
    study._file = file
    study._n_layers = _check_model(file, study.model)
    _check_layers(file, study)
    _check_path(file, "corpus.path", study.corpus.path)
    return study


def study_files() -> list[Path]:
    """Study files of the package and of the folders in MECHINTERP_STUDIES."""
    files = sorted(PACKAGED_STUDIES.glob("*.yaml"))
    for name in filter(None, os.environ.get(STUDIES_VARIABLE, "").split(os.pathsep)):
        place = Path(name).expanduser()
        if place.is_dir():
            files += sorted(place.glob("*.yaml"))
        elif place.is_file():
            files.append(place)
        else:
            raise StudyError(f"{STUDIES_VARIABLE}: {place} does not exist; name a folder or a file")
    return files


def load_registry(files: list[Path] | None = None) -> dict[str, Study]:
    """All studies by name. Two files with one name are an error."""
    studies: dict[str, Study] = {}
    for file in study_files() if files is None else files:
        study = load_study(file)
        if study.study in studies:
            raise StudyError(
                f"{file}: study: the name {study.study!r} is taken by "
                f"{studies[study.study].file}; rename one of them"
            )
        studies[study.study] = study
    return studies


# ---- private -------------------------------------------------------------------------------------


def _resolve_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make `path` keys absolute: relative to the study file, with ~ and $VARIABLE expanded."""

    def resolve(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        path = Path(os.path.expandvars(value)).expanduser()
        return str(path if path.is_absolute() else (folder / path).resolve())

    resolved = dict(data)
    for section in ("model", "corpus"):
        part = resolved.get(section)
        if isinstance(part, dict) and "path" in part:
            resolved[section] = {**part, "path": resolve(part["path"])}
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
    return sorted(model.model_fields)


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


def _check_layers(file: Path, study: Study) -> None:
    if study.activations.layers != "all":
        for layer in study.activations.layers:
            if layer >= study.n_layers:
                raise StudyError(
                    f"{file}: activations.layers: layer {layer} does not exist; "
                    f"{study.model.source} has layers 0..{study.n_layers - 1}"
                )
    if study.ioi.roots != "auto":
        for layer, *_ in study.ioi.roots:
            if layer >= study.n_layers:
                raise StudyError(
                    f"{file}: ioi.roots: layer {layer} does not exist; "
                    f"{study.model.source} has layers 0..{study.n_layers - 1}"
                )
