"""One name, one statistic: a column that several relations have means the same in all of them.

sql/shared_columns.yaml says what it means where their comments begin differently. A new table whose
column has such a name fails here until somebody has compared the meanings.
"""

import re
from collections import defaultdict
from typing import Any

import pytest
import yaml

from mechinterp_assets.storage.declarations import SQL_FOLDER, Column, declarations

SHARED: dict[str, Any] = yaml.safe_load((SQL_FOLDER / "shared_columns.yaml").read_text())
KEYS, STATISTICS, EXCEPTIONS = (SHARED[part] for part in ("keys", "statistics", "exceptions"))
WIDTHS = {"INTEGER": "integer", "BIGINT": "integer", "FLOAT": "real", "DOUBLE": "real"}


def _relations() -> dict[str, tuple[Column, ...]]:
    declared = declarations()
    return {spec.name: spec.columns for spec in (*declared.tables.values(), *declared.views)}


def _by_name() -> dict[str, dict[str, Column]]:
    """Column name -> relation -> column, of names that several relations have."""
    found: dict[str, dict[str, Column]] = defaultdict(dict)
    for relation, columns in _relations().items():
        for column in columns:
            found[column.name][relation] = column
    return {name: columns for name, columns in found.items() if len(columns) > 1}


def beginning(comment: str) -> str:
    """What a comment says before it goes into detail."""
    return re.split(r"[:;(]|\. |, ", comment)[0].strip().rstrip(".")


def kind(column: Column) -> str:
    """The type without its width."""
    base = column.type.removesuffix("[]")
    return WIDTHS.get(base, base) + column.type[len(base) :]


BY_NAME = _by_name()


def test_equal_names_have_equal_types() -> None:
    for name, columns in BY_NAME.items():
        if name not in EXCEPTIONS:
            kinds = {relation: kind(column) for relation, column in columns.items()}
            assert len(set(kinds.values())) == 1, f"{name} has several types: {kinds}; rename one"


def test_equal_names_mean_the_same() -> None:
    for name, columns in BY_NAME.items():
        if name in KEYS or name in EXCEPTIONS:
            continue
        if len({beginning(column.comment) for column in columns.values()}) == 1:
            continue
        assert name in STATISTICS, (
            f"the comments on {name} begin differently in {sorted(columns)}: give one of them "
            "another name; or, if all mean one statistic, begin them alike or add it to "
            "sql/shared_columns.yaml"
        )
        reviewed = set(STATISTICS[name]["in"])
        assert set(columns) <= reviewed, (
            f"{name} means {STATISTICS[name]['means']!r}; where it means this in "
            f"{sorted(set(columns) - reviewed)} add them to sql/shared_columns.yaml, else rename it"
        )


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_the_list_has_nothing_left_over(name: str) -> None:
    assert set(STATISTICS[name]["in"]) == set(BY_NAME.get(name, {}))
    assert STATISTICS[name]["means"]


def test_keys_and_exceptions_are_in_use() -> None:
    assert not set(KEYS) & set(STATISTICS)
    assert {*KEYS, *EXCEPTIONS} <= set(BY_NAME)
    assert len(EXCEPTIONS) <= 3  # a name with two meanings stays only for a reason


def test_comments_name_columns_that_exist() -> None:
    """`table.column` in a comment of a table, view or column."""
    declared, relations = declarations(), _relations()
    stored = {spec.name: {c.name for c in spec.stored_columns} for spec in declared.tables.values()}
    known = {name: {c.name for c in columns} for name, columns in relations.items()} | stored
    texts = {spec.name: spec.comment for spec in (*declared.tables.values(), *declared.views)}
    texts |= {f"{r}.{c.name}": c.comment for r, columns in relations.items() for c in columns}
    gone = [
        f"{place}: {relation}.{column}"
        for place, text in texts.items()
        for relation, column in re.findall(r"\b([a-z_]\w*)\.([a-z_]\w*)\b", text)
        if relation in known and column not in known[relation]
    ]
    assert gone == []


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("Mean of x; NULL without any", "Mean of x"),
        ("Layer of the head, from 0", "Layer of the head"),
        ("f(x): the sum. More.", "f"),
        ("Number of prompts", "Number of prompts"),
    ],
)
def test_the_beginning_of_a_comment(comment: str, expected: str) -> None:
    assert beginning(comment) == expected
