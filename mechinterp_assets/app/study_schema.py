"""The JSON schema of study files, for editors that complete and check YAML.

Belongs here: its text. Each key is described once, in its section; after a change of one write the
schema anew with `python -m mechinterp_assets.app.study_schema`; a test compares. Does not belong
here: the sections and their descriptions (each package's settings.py).

The file is docs/study.schema.json; a link makes it part of the package.
"""

import json
from pathlib import Path

from mechinterp_assets.studies.registry import PACKAGED_STUDIES
from mechinterp_assets.studies.study import Study

SCHEMA_FILE = PACKAGED_STUDIES / "study.schema.json"
MODELINE = "# yaml-language-server: $schema="
"""Before the path of the schema: the line of a study file that editors look for."""


def schema_text() -> str:
    """The schema as it stands in SCHEMA_FILE."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Study.model_json_schema(by_alias=True),
        "title": "Study of mechinterp-assets",
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def write_schema(file: Path = SCHEMA_FILE) -> bool:
    """Write it as a file; says whether the file changed."""
    text = schema_text()
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return False
    file.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    if write_schema():
        print(SCHEMA_FILE)
