"""A reference file from a run.

Belongs here: which keys are written, rounding, the file's text. Does not belong here: tolerances,
which are measured by reruns and kept from the file before, or from the packaged study's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mechinterp_assets.model.names import named_head
from mechinterp_assets.reproduction.conditions import ALWAYS
from mechinterp_assets.reproduction.measures import NOTHING, Measure, Measured
from mechinterp_assets.reproduction.reference_file import (
    Number,
    Reference,
    ReferenceFile,
    ReferenceFileError,
)

MOST_KEYS = 60
DIGITS = 5
HEADER = "# Written by `mechinterp reproduce {study} --write-reference`; tolerances are by hand.\n"


def updated(
    before: ReferenceFile,
    measures: Mapping[str, Measure],
    measured: Measured,
    run: Mapping[str, str],
) -> ReferenceFile:
    """The same references with the values of `measured`. Raises ReferenceFileError.

    Keys stay those that the file names; one that is no longer measured is an error. Statistic,
    position and conditions become those of the measures and of the run.
    """
    if before.kind == "published":
        raise ReferenceFileError(
            f"the reference file of {before.study} holds published numbers, which a run does not "
            "replace; name another file under `reference` in the study file"
        )
    filled = []
    for one in before.references:
        keys = list(one.values or one.heads)
        values = measured.get(one.measure, {})
        found = {key: values.get(key, NOTHING).value for key in keys}
        if missing := [key for key, value in found.items() if value is None]:
            raise ReferenceFileError(
                f"{one.id}: {one.measure} has no value for {missing[0]!r} any more; remove the key "
                "from the file, or materialize what it is computed from"
            )
        filled.append(_with(one, found, measures[one.measure], run))
    return before.model_copy(update={"references": filled})


def new(
    study: str,
    about: str,
    template: Sequence[Reference],
    measures: Mapping[str, Measure],
    measured: Measured,
    run: Mapping[str, str],
) -> ReferenceFile:
    """References like those of `template`, with all keys that this study has a value for.

    At most MOST_KEYS keys of each; references without any are left out.
    """
    references = []
    for one in template:
        values = measured.get(one.measure, {})
        found = {key: one.value for key, one in values.items() if one.value is not None}
        if found:
            kept = dict(list(found.items())[:MOST_KEYS])
            references.append(_with(one, kept, measures[one.measure], run))
    if not references:
        raise ReferenceFileError(f"nothing of {study} is measured yet; materialize it first")
    return ReferenceFile(study=study, kind="measured", about=about, references=references)


def to_yaml(file: ReferenceFile) -> str:
    """The file's text; reading it gives the same references."""
    data = file.model_dump(mode="json", exclude_defaults=True)
    for one, written in zip(file.references, data["references"], strict=True):
        if one.values:
            written["values"] = {key: _plain(number) for key, number in written["values"].items()}
        if one.heads:
            written["heads"] = {key: _Row(heads) for key, heads in written["heads"].items()}
        written["condition"] = _Row(written["condition"])
        if one.tolerance is not None:
            # A tolerance of 0 is all defaults and is still one.
            written["tolerance"] = _Row(written["tolerance"] or {"absolute": 0})
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return HEADER.format(study=file.study) + text


def _with(
    one: Reference,
    found: Mapping[str, float | list[str] | None],
    measure: Measure,
    run: Mapping[str, str],
) -> Reference:
    """A reference with measured values in place of its own; no interval, which was another's."""
    own = measure.conditions(run)
    if unknown := [name for name in measure.of_run if name not in own]:
        raise ReferenceFileError(
            f"{one.id}: {measure.name} depends on {unknown[0]}, which is not known of this run; "
            "materialize language_model and attention_sae"
        )
    numbers = {k: Number(value=_rounded(v)) for k, v in found.items() if isinstance(v, float)}
    heads = {
        key: [_pair(one.id, name) for name in value]
        for key, value in found.items()
        if isinstance(value, list)
    }
    said = {name: own.pop(name) for name in ALWAYS}
    return one.model_copy(update={"values": numbers, "heads": heads, "condition": own, **said})


def _pair(reference: str, name: str) -> tuple[int, int]:
    """(layer, head) of a head as a measure names it."""
    if (found := named_head(name)) is None:
        raise ReferenceFileError(f"{reference}: its measure gives {name!r}, which names no head")
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _plain(number: dict[str, object]) -> object:
    if "interval" in number:
        return _Row(number)
    value = number["value"]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Row:
    """A list or mapping that is written in one line."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _Dumper(yaml.SafeDumper):
    pass


def _represent(dumper: yaml.SafeDumper, row: _Row) -> yaml.Node:
    if isinstance(row.content, dict):
        return dumper.represent_mapping("tag:yaml.org,2002:map", row.content, flow_style=True)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", row.content, flow_style=True)


_Dumper.add_representer(_Row, _represent)
