"""Why a number is what it is: definition, formula version, inputs, settings, and what is stale.

Belongs here: reading the origin of a table partition, and telling it. Does not belong here: how it
is recorded (storage/), deciding what to make again (orchestration/).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from mechinterp_assets.api.not_there import NotThereError, perhaps
from mechinterp_assets.files.plain_text import printable, shortened
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.ledger import Version
from mechinterp_assets.storage.table_spec import TableSpec
from mechinterp_assets.studies.study import site_key

MAX_VALUE = 120
_DEFINITIONS = (
    "SELECT definition, value_range, paper FROM head_score_definitions WHERE score = $score"
)


@dataclass(frozen=True)
class Origin:
    """Where the rows of one table partition come from.

    Attributes:
        table, partition: which.
        meaning: what one row is.
        columns: column -> its definition, of those that were asked for.
        definition: of the score that was asked for, with its source; "" without one.
        version: number, content hash, run, code and formula version, rows, time.
        formula_version: as declared now.
        tables: `table/partition` -> content hash, of the tables that it was computed from.
        tensors: `kind/partition` -> content hash, of weights and activations.
        settings: `section.key` -> value as JSON, of the settings that were looked at.
        files: file -> fingerprint.
        stale: why it should be made again, as of the last look at the study's settings and files
            (each command of the platform looks); empty where nothing speaks for it.
        sources: origins of `tables`, and of theirs.
    """

    table: str
    partition: str
    meaning: str
    columns: Mapping[str, str]
    definition: str
    version: Version
    formula_version: int
    stale: tuple[str, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Version] = field(default_factory=dict)

    def text(self) -> str:
        """All of it in plain text, a line each."""
        version, came = self.version, self.version.provenance
        when = datetime.fromtimestamp(version.written_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        lines = [f"{self.table} of {self.partition}: {self.meaning}"]
        lines += [f"column {name}: {meaning}" for name, meaning in self.columns.items()]
        if self.definition:
            lines.append(f"definition: {self.definition}")
        lines.append(
            f"formula version {version.formula_version}"
            + (
                ""
                if version.formula_version == self.formula_version
                else f" (declared now: {self.formula_version})"
            )
        )
        lines.append(
            f"version {version.version} of {when}: {version.rows:,} rows, run {came.run_id}, "
            f"code version {came.code_version}, content {version.data_version[:16]}"
        )
        known = {
            "model": came.model_version,
            "corpus or prompts": came.corpus_version,
            "SAE": came.sae_version,
        }
        lines += [f"{name}: {value}" for name, value in known.items() if value]
        lines.append("stale: " + ("; ".join(self.stale) if self.stale else "no"))
        lines += [f"computed from table {name} ({_short(v)})" for name, v in self.tables.items()]
        lines += [f"computed from tensors {name} ({_short(v)})" for name, v in self.tensors.items()]
        lines += [
            f"setting {name} = {shortened(printable(value), MAX_VALUE)}"
            for name, value in self.settings.items()
        ]
        lines += [f"file {name} ({_short(value)})" for name, value in self.files.items()]
        further = [name for name in self.sources if name not in self.tables]
        if further:
            lines.append(f"which come from: {', '.join(further)}")
        return "\n".join(lines)

    def frame(self) -> pl.DataFrame:
        """Columns `kind` (table, tensors, setting, file), `input` and `value` (hash or JSON)."""
        rows = [
            {"kind": kind, "input": name, "value": value}
            for kind, found in (
                ("table", self.tables),
                ("tensors", self.tensors),
                ("setting", self.settings),
                ("file", self.files),
            )
            for name, value in found.items()
        ]
        return pl.DataFrame(rows, schema=dict.fromkeys(("kind", "input", "value"), pl.String))

    def __repr__(self) -> str:
        return self.text()


def origin_of(
    lake: Lake,
    study: str,
    table: str,
    *,
    column: str | None = None,
    layer: int | None = None,
    score: str | None = None,
) -> Origin:
    """Where the current rows of a table come from.

    Args:
        lake: whose.
        study: whose rows.
        table: a table; views are worked out from tables, which the error names.
        column: only this column's definition; None: of all.
        layer: of which layer, for a table that has a partition for each.
        score: also the definition of this score of head_scores or ioi_head_scores.

    Raises:
        NotThereError: no such table, column, layer or score, or no rows of it.
    """
    declared = lake.declared
    spec = declared.tables.get(table)
    if spec is None:
        if view := next((view for view in declared.views if view.name == table), None):
            raise NotThereError(
                f"{table} is a view, worked out when it is read from "
                f"{', '.join(sorted(view.reads))}; ask about one of these"
            )
        raise NotThereError(f"no table {table!r}; {perhaps(table, declared.tables)}")
    key = _partition(lake, spec, study, layer)
    columns = {one.name: one.comment for one in spec.columns}
    if column is not None:
        if column not in columns:
            raise NotThereError(f"{table} has no column {column!r}; {perhaps(column, columns)}")
        columns = {column: columns[column]}
    version = lake.current(table, key)
    kinds: dict[str, dict[str, str]] = {"tensors": {}, "settings": {}, "file": {}, "table": {}}
    for name, value in sorted(version.inputs.items()):
        kind, colon, rest = name.partition(":")
        if colon and kind in kinds:
            kinds[kind][rest] = value
        elif not colon and value != "absent":
            kinds["table"][name] = value
    return Origin(
        table,
        key,
        spec.comment,
        columns,
        "" if score is None else _definition(lake, score),
        version,
        spec.formula_version,
        tuple(
            lake.sql(
                "SELECT reason FROM stale_partitions WHERE table_name = $table AND partition = $key"
                " ORDER BY reason",
                {"table": table, "key": key},
            )["reason"].to_list()
        ),
        kinds["table"],
        kinds["tensors"],
        kinds["settings"],
        kinds["file"],
        dict(_sources(lake, version)),
    )


# ---- private -------------------------------------------------------------------------------------


def _partition(lake: Lake, spec: TableSpec, study: str, layer: int | None) -> str:
    """The key of the partition that is asked about, which has rows."""
    if spec.per == "site" and layer is None:
        raise NotThereError(f"{spec.name} has rows of each layer by itself; name a layer")
    key = study if spec.per == "study" or layer is None else site_key(study, layer)
    if lake.find_current(spec.name, key) is None:
        there = sorted(lake.partitions(spec.name))
        raise NotThereError(f"{spec.name} has no rows of {key}; {perhaps(key, there)}")
    return key


def _definition(lake: Lake, score: str) -> str:
    found = lake.sql(_DEFINITIONS, {"score": score})
    if found.is_empty():
        names = lake.sql("SELECT score FROM head_score_definitions ORDER BY score")["score"]
        raise NotThereError(f"no score {score!r}; {perhaps(score, names.to_list())}")
    definition, value_range, paper = found.row(0)
    return f"{score}: {definition} Range: {value_range}. Source: {paper}"


def _sources(lake: Lake, version: Version) -> Iterator[tuple[str, Version]]:
    """Current versions of the tables behind a version, each once, nearest first."""
    seen: set[str] = set()
    pending = [version]
    while pending:
        nearest, pending = pending, []
        for one in nearest:
            for name in sorted(one.inputs):
                table, slash, key = name.partition("/")
                if ":" in name or not slash or name in seen or table not in lake.declared.tables:
                    continue
                seen.add(name)
                found = lake.find_current(table, key)
                if found is not None:
                    yield name, found
                    pending.append(found)


def _short(value: str) -> str:
    return value[:16]
