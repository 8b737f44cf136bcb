"""What sql/checks says of SAEs, on planted rows that hold and that do not."""

from collections.abc import Sequence
from typing import Any

import duckdb
import pytest

from mechinterp_assets.storage.checks import table_checks

COLUMNS = {
    "attention_sae": "external_folder VARCHAR, trained_on VARCHAR",
    "sae_adoption": "reading VARCHAR, adopted BOOLEAN, fvu DOUBLE",
    "sae_evaluation": "outlier_variance_share DOUBLE, outlier_loss_share DOUBLE, "
    "explained_variance DOUBLE, typical_explained_variance DOUBLE",
}
Rows = Sequence[tuple[Any, ...]]


def breaches(table: str, name: str, tables: dict[str, Rows]) -> int:
    """Rows that a check returns over small tables of one layer."""
    [check] = [one for one in table_checks()[table] if one.name == name]
    with duckdb.connect() as con:
        con.execute("SET VARIABLE study = 's'")
        con.execute("SET VARIABLE layer = 0")
        con.execute('SET VARIABLE "checks.outlier_share_max" = 0.1')
        for other, rows in tables.items():
            con.execute(f"CREATE TABLE {other} (study VARCHAR, layer INTEGER, {COLUMNS[other]})")
            for row in rows:
                places = ", ".join("?" * len(row))
                con.execute(f"INSERT INTO {other} VALUES ('s', 0, {places})", list(row))
        return len(con.execute(check.sql).fetchall())


@pytest.mark.parametrize(
    ("variance", "loss", "expected"),
    [
        (0.01, 0.02, 0),
        (0.1, 0.1, 0),
        (0.2, 0.01, 1),
        (0.01, 0.2, 1),
        (None, 0.3, 1),
        (None, None, 0),
    ],
)
def test_a_few_tokens_that_rule_are_warned_of(
    variance: float | None, loss: float | None, expected: int
) -> None:
    [check] = [one for one in table_checks()["sae_evaluation"] if "few_tokens" in one.name]
    assert check.severity == "warn"
    rows = [(variance, loss, 0.9, 0.1)]
    assert breaches("sae_evaluation", check.name, {"sae_evaluation": rows}) == expected


@pytest.mark.parametrize(
    ("folder", "readings", "holds"),
    [
        (
            "x",
            [("raw", False, 0.3), ("processed", True, 0.1), ("permuted_heads", False, 1.2)],
            True,
        ),
        ("x", [("processed", True, 0.1)], True),  # one head: nothing to permute
        ("x", [("raw", True, 0.1), ("permuted_heads", False, 1.2)], False),  # not the one named
        ("x", [("processed", True, 0.1), ("permuted_heads", False, 0.05)], False),
        ("x", [("raw", True, 0.3), ("processed", True, 0.1)], False),
        ("x", [("processed", False, 0.1)], False),
        (None, [], True),
        (None, [("raw", True, 0.1)], False),
    ],
)
def test_one_reading_of_an_sae_from_elsewhere_is_adopted(
    folder: str | None, readings: Rows, holds: bool
) -> None:
    trained_on = "processed" if folder else "raw"
    tables = {"attention_sae": [(folder, trained_on)], "sae_adoption": readings}
    assert breaches("sae_adoption", "one_reading_is_adopted", tables) == (0 if holds else 1)
