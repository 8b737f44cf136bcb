"""Reference files: numbers and sets of heads that a study's results are compared with.

Belongs here: the format, its checks, where a study's file is. Does not belong here: the comparison.

A file is of kind `published` (numbers from papers, which another corpus, prompt set or SAE may
honestly miss) or `measured` (a run of this platform, which a rerun must meet). Only measured
references have a tolerance, and only a tolerance can fail.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mechinterp_assets.circuits.reference_heads import published_circuits
from mechinterp_assets.files.yaml_reader import YamlError, read_yaml
from mechinterp_assets.model.names import head_name
from mechinterp_assets.reproduction.conditions import CONDITIONS, POSITION, STATISTIC
from mechinterp_assets.settings.messages import message_lines
from mechinterp_assets.settings.section import Index, NotNegative, Section, Text

PACKAGED_REFERENCES = Path(__file__).resolve().parent.parent / "references"


class ReferenceFileError(ValueError):
    """A reference file that is missing or wrong; the message names file, entry and remedy."""


class Tolerance(Section):
    """How far a rerun may be off: the larger of `absolute` and `relative` times the value.

    For sets of heads: `absolute` heads that are in one of both sets.
    """

    absolute: NotNegative = 0.0
    relative: NotNegative = 0.0

    def allowed(self, value: float) -> float:
        """The largest difference from `value` that is within."""
        return max(self.absolute, self.relative * abs(value))


class Number(Section):
    """A number and, where the source gives one or it follows from counts, its interval."""

    value: float
    interval: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Number":
        if self.interval is not None and not self.interval[0] <= self.value <= self.interval[1]:
            raise ValueError(f"interval {self.interval} does not hold the value {self.value}")
        return self


class PublishedHeads(Section):
    """Part of a circuit in circuits/reference_heads.yaml."""

    circuit: str
    part: str

    @model_validator(mode="after")
    def _exists(self) -> "PublishedHeads":
        circuits = published_circuits()
        if self.circuit not in circuits:
            raise ValueError(f"no circuit {self.circuit!r}; one of {', '.join(circuits)}")
        parts = circuits[self.circuit]["heads"]
        if self.part not in parts:
            raise ValueError(f"{self.circuit} has no part {self.part!r}; one of {', '.join(parts)}")
        return self

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Its heads as (layer, head)."""
        found = published_circuits()[self.circuit]["heads"][self.part]
        return [(int(layer), int(head)) for layer, head in found]


class Reference(Section):
    """Numbers or sets of heads of one measure (a file of sql/reproduce), by the measure's keys.

    what: one line for a table. source: paper, section, table or figure. statistic, position: what
    the source's number is, and where it was taken. condition: what else it depends on, by names of
    conditions.py; where a run has another one, the two are neither equal nor different. dataset:
    what the source computed it on. needs: what must be given for there to be an own value. reason:
    why ours may differ, as far as is known.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    what: str
    measure: str
    source: Text
    statistic: Text
    position: Text
    condition: dict[str, Text]
    dataset: str | None = None
    values: dict[str, Number] = Field(default_factory=dict)
    heads: dict[str, list[tuple[Index, Index]] | PublishedHeads] = Field(default_factory=dict)
    tolerance: Tolerance | None = None
    needs: str | None = None
    reason: str | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _plain_numbers(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            str(key): {"value": value} if isinstance(value, int | float) else value
            for key, value in values.items()
        }

    @field_validator("condition")
    @classmethod
    def _known_conditions(cls, condition: dict[str, str]) -> dict[str, str]:
        if unknown := [name for name in condition if name not in CONDITIONS]:
            raise ValueError(f"no condition {unknown[0]!r}; one of {', '.join(CONDITIONS)}")
        return condition

    @model_validator(mode="after")
    def _one_form(self) -> "Reference":
        if bool(self.values) == bool(self.heads):
            raise ValueError(f"{self.id}: give either values or heads")
        return self

    @property
    def depends_on(self) -> dict[str, str]:
        """Everything that is compared with a run's: statistic, position and the conditions."""
        return {STATISTIC: self.statistic, POSITION: self.position, **self.condition}

    def heads_of(self, key: str) -> list[str]:
        """Names of the heads of one key, in order."""
        found = self.heads[key]
        pairs = found.heads if isinstance(found, PublishedHeads) else found
        return [head_name(*pair) for pair in sorted(pairs)]


class ReferenceFile(Section):
    """References of a study, and of those that name its file too (`shared_with`).

    Ids are distinct; published ones have no tolerance.
    """

    study: str
    shared_with: list[str] = Field(default_factory=list)
    kind: Literal["published", "measured"]
    about: str
    references: list[Reference]

    @model_validator(mode="after")
    def _consistent(self) -> "ReferenceFile":
        ids = [one.id for one in self.references]
        if twice := [name for name in ids if ids.count(name) > 1]:
            raise ValueError(f"the id {twice[0]!r} is there twice; rename one")
        judged = [one.id for one in self.references if one.tolerance is not None]
        if self.kind == "published" and judged:
            raise ValueError(
                f"{judged[0]}: a published number has no tolerance, since it was computed on other "
                "data; give the source's interval instead, or make the file's kind measured"
            )
        return self

    def only(self, ids: list[str]) -> list[Reference]:
        """References of these ids, all without any. Raises ReferenceFileError for unknown ones."""
        known = [one.id for one in self.references]
        if unknown := [name for name in ids if name not in known]:
            raise ReferenceFileError(
                f"no reference {unknown[0]!r} of {self.study}; one of {', '.join(known)}"
            )
        return [one for one in self.references if not ids or one.id in ids]


def reference_path(study: str, named: Path | None) -> Path:
    """Where a study's reference file is, or would be: the one it names, else the packaged one."""
    return named or PACKAGED_REFERENCES / f"{study}.yaml"


def load_references(file: Path, study: str) -> ReferenceFile:
    """Read and check a reference file of a study. Raises ReferenceFileError."""
    if not file.is_file():
        raise ReferenceFileError(
            f"study {study!r} has no reference file ({file} does not exist): name one under "
            f"`reference` in the study file, and write it from a run with `mechinterp reproduce "
            f"{study} --write-reference`"
        )
    try:
        data = read_yaml(file)
    except YamlError as error:
        raise ReferenceFileError(str(error)) from None
    try:
        found = ReferenceFile.model_validate(data)
    except ValidationError as error:
        lines = [f"{file}: {line}" for line in message_lines(error, ReferenceFile)]
        raise ReferenceFileError("\n".join(lines)) from None
    if study not in (found.study, *found.shared_with):
        raise ReferenceFileError(
            f"{file}: study: {found.study!r} is not {study!r}, the study that names this file; add "
            "it to shared_with"
        )
    return found
