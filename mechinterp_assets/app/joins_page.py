"""docs/joins.md: how tables are joined, from the foreign keys of their declarations.

Belongs here: the file's text. After a change of a declaration write it anew with
`python -m mechinterp_assets.app.joins_page`; a test compares. Does not belong here: the clauses
(storage/joins.py).
"""

from pathlib import Path

from mechinterp_assets.storage.declarations import declarations
from mechinterp_assets.storage.joins import joins

PATH = Path(__file__).resolve().parents[2] / "docs" / "joins.md"

_HEAD = """# Joins

Written by `mechinterp_assets/app/joins_page.py` from the `-- references:` of
[sql/tables](../sql/tables); do not edit. Every clause is a declared foreign key, checked behind
each table: every row on the left (where it says WHERE, those) has a partner on the right, unless a
column of the key is NULL. The page "Tables and terms" of the dashboards has the same beside each
table's columns.

All tables have `study`. Beyond the keys, tables of a layer join by `(study, layer)`, those of a
feature by `(study, layer, feature)`, of a head by `(study, layer, head)` (its name and roles: view
`attention_heads`), of a prompt by `(study, task, prompt)`, of a token by
`(study, sequence, position)` (its document: view `document_spans`), and interventions by
`(study, task, intervention)`.
"""


def joins_text() -> str:
    """Text of the file: a section per table that is referred to."""
    known = joins(declarations().tables)
    parts = [_HEAD]
    for other in sorted({join.other for join in known}):
        lines = [join.sql for join in known if join.other == other]
        parts.append(f"## {other}\n\n```sql\n" + "\n".join(lines) + "\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(joins_text())
    print(PATH)
