"""How tables are joined: the foreign keys of their declarations as SQL.

Belongs here: the clauses. Does not belong here: the declarations (declarations.py), pages and files
that show them (dashboards/glossary_page.py, app/joins_page.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mechinterp_assets.storage.sql_text import quote_name
from mechinterp_assets.storage.table_spec import Reference, TableSpec


@dataclass(frozen=True)
class Join:
    """One foreign key: rows of `table` have a partner in `other`, unless a column of it is NULL.

    Attributes:
        table: whose rows refer.
        other: table that they refer to.
        clause: `USING (...)` or `ON ...`, for `FROM table JOIN other`.
        where: condition on the rows of `table` that the key concerns; None for all.
    """

    table: str
    other: str
    clause: str
    where: str | None = None

    @property
    def sql(self) -> str:
        """FROM and JOIN, with the condition as a WHERE."""
        other = "AS other " if self.other == self.table else ""
        text = f"FROM {self.table} JOIN {self.other} {other}{self.clause}"
        return f"{text} WHERE {self.where}" if self.where else text


def joins(tables: Mapping[str, TableSpec]) -> tuple[Join, ...]:
    """Every declared foreign key, by table and in the order of its declaration."""
    return tuple(
        _join(name, reference)
        for name in sorted(tables)
        for reference in tables[name].constraints.references
    )


def joins_of(table: str, known: Iterable[Join]) -> tuple[list[Join], list[Join]]:
    """Those by which a table refers to others, and those by which others refer to it."""
    every = list(known)
    return (
        [join for join in every if join.table == table],
        [join for join in every if join.other == table and join.table != table],
    )


# ---- private -------------------------------------------------------------------------------------


def _join(table: str, reference: Reference) -> Join:
    other = "other" if reference.table == table else reference.table
    if reference.columns == reference.referenced:
        clause = f"USING ({', '.join(map(_quoted_if_needed, reference.columns))})"
    else:
        pairs = zip(reference.columns, reference.referenced, strict=True)
        equal = [
            f"{table}.{_quoted_if_needed(own)} = {other}.{_quoted_if_needed(of)}"
            for own, of in pairs
        ]
        clause = f"ON {' AND '.join(equal)}"
    return Join(table, reference.table, clause, reference.where)


def _quoted_if_needed(name: str) -> str:
    """A name as it is written in SQL: quoted where it is a word of the language."""
    return quote_name(name) if name in {"position", "interval", "rank", "window"} else name
