"""A reference file from a run.

Belongs here: which keys are written, rounding, the file's text. Does not belong here: tolerances,
which are measured by reruns and kept from the file before, or from the packaged study's.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from mechinterp_assets.reproduction.measures import Measured, Value
from mechinterp_assets.reproduction.reference_file import (
    Number,
    Reference,
    ReferenceFile,
    ReferenceFileError,
)

MOST_KEYS = 60
DIGITS = 5
HEADER = "# Written by `mechinterp reproduce {study} --write-reference`; tolerances are by hand.\n"


def updated(before: ReferenceFile, measured: Measured) -> ReferenceFile:
    """The same references with the values of `measured`. Raises ReferenceFileError.

    Keys stay those that the file names; one that is no longer measured is an error.
    """
    if before.kind == "published":
        raise ReferenceFileError(
            f"the reference file of {before.study} holds published numbers, which a run does not "
            "replace; name another file under `reference` in the study file"
        )
    filled = []
    for one in before.references:
        keys = list(one.values or one.heads)
        found = {key: measured.get(one.measure, {}).get(key) for key in keys}
        if missing := [key for key, value in found.items() if value is None]:
            raise ReferenceFileError(
                f"{one.id}: {one.measure} has no value for {missing[0]!r} any more; remove the key "
                "from the file, or materialize what it is computed from"
            )
        filled.append(_with(one, found))
    return before.model_copy(update={"references": filled})


def new(study: str, about: str, template: Sequence[Reference], measured: Measured) -> ReferenceFile:
    """References like those of `template`, with all keys that this study has a value for.

    At most MOST_KEYS keys of each; references without any are left out.
    """
    references = []
    for one in template:
        values = measured.get(one.measure, {})
        found = {key: value for key, value in values.items() if value is not None}
        if found:
            references.append(_with(one, dict(list(found.items())[:MOST_KEYS])))
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
        if one.tolerance is not None:
            # A tolerance of 0 is all defaults and is still one.
            written["tolerance"] = _Row(written["tolerance"] or {"absolute": 0})
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return HEADER.format(study=file.study) + text


def _with(one: Reference, found: dict[str, Value]) -> Reference:
    """A reference with measured values in place of its own; no interval, which was another's."""
    numbers = {k: Number(value=_rounded(v)) for k, v in found.items() if isinstance(v, float)}
    heads = {
        key: [(int(layer), int(head)) for layer, head in (name.split(".") for name in value)]
        for key, value in found.items()
        if isinstance(value, list)
    }
    return one.model_copy(update={"values": numbers, "heads": heads})


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
