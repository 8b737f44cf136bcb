"""The JSON schema that editors use is that of the sections, and every key explains itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mechinterp_assets.app.study_schema import MODELINE, SCHEMA_FILE, schema_text, write_schema
from mechinterp_assets.files.yaml_reader import read_yaml
from mechinterp_assets.studies.registry import PACKAGED_STUDIES

ROOT = Path(__file__).parents[2]
FILES = sorted(
    [
        *PACKAGED_STUDIES.glob("*.yaml"),
        *ROOT.glob("examples/*/*.yaml"),
        ROOT / "tests/studies/tiny.yaml",
    ]
)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


def test_the_file_is_up_to_date() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "a key changed: python -m mechinterp_assets.app.study_schema"
    )


def test_it_is_written_where_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "study.schema.json"
    assert write_schema(file)
    assert not write_schema(file)
    assert file.read_text(encoding="utf-8") == schema_text()
    assert SCHEMA_FILE.resolve() == ROOT / "docs" / "study.schema.json"


def sections(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "Study", schema
    yield from schema["$defs"].items()


def test_every_key_and_section_has_a_description(schema: dict[str, Any]) -> None:
    for name, section in sections(schema):
        assert section["description"].strip(), name
        for key, entry in section["properties"].items():
            assert entry.get("description", "").strip(), f"{name}.{key}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_study_files_satisfy_it(file: Path, schema: dict[str, Any]) -> None:
    data = json.loads(json.dumps(read_yaml(file)))  # keys that are layers become text, as in JSON
    jsonschema.Draft202012Validator(schema).validate(data)


def test_mistakes_do_not_satisfy_it(schema: dict[str, Any]) -> None:
    good = json.loads(json.dumps(read_yaml(PACKAGED_STUDIES / "organism.yaml")))
    for section, wrong in {
        "sae": {"d_sea": 3},
        "ioi": {"trace_rule": "mixed"},
        "heads": {"sequences": 0},
        "corpus": {"format": "csv"},
    }.items():
        data = {**good, section: {**good.get(section, {}), **wrong}}
        assert list(jsonschema.Draft202012Validator(schema).iter_errors(data)), section


def test_study_files_name_it_where_it_is() -> None:
    for file in FILES:
        first = file.read_text().splitlines()[0]
        if first.startswith(MODELINE):
            named = (file.parent / first.removeprefix(MODELINE)).resolve()
            assert named == SCHEMA_FILE.resolve(), file
    assert (PACKAGED_STUDIES / "organism.yaml").read_text().startswith(MODELINE)
