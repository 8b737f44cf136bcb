"""The SQL that makes each block of a page, with the page's study, layer, feature, head filled in.

The statements are files in `sql/dashboards`, with DuckDB's named parameters $study, $layer,
$feature, $head, $task, $experiment, and $other and $other_layer of what a page compares with; those
of the explorer (explorer_*.sql) name prompts, positions and trees too.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mechinterp_assets.storage.sql_text import quote_text

SQL_FOLDER = Path(__file__).resolve().parents[1] / "sql" / "dashboards"


@cache
def statements() -> dict[str, str]:
    """SQL by the name of its file. An empty folder is an error."""
    found = {path.stem: path.read_text().strip() for path in sorted(SQL_FOLDER.glob("*.sql"))}
    if not found:
        raise FileNotFoundError(
            f"{SQL_FOLDER} has no SQL: pages show the statements of the repository's sql/ folder, "
            "so the installation is incomplete; install mechinterp-assets again"
        )
    return found


def filled_statements(
    study: str,
    layer: int = 0,
    feature: int = 0,
    head: int = 0,
    *,
    task: str = "ioi",
    experiment: str = "",
    other: str = "",
    other_layer: int = 0,
) -> dict[str, str]:
    """Statements that can be pasted into DuckDB as they are."""
    values: dict[str, str | int] = {
        "study": study,
        "layer": layer,
        "feature": feature,
        "head": head,
        "task": task,
        "experiment": experiment,
        "other": other,
        "other_layer": other_layer,
    }
    return {name: _filled(text, values) for name, text in statements().items()}


def filled_statement(name: str, values: Mapping[str, str | int]) -> str:
    """One statement with parameters of the caller's, to be pasted likewise."""
    return _filled(statements()[name], values)


def _filled(text: str, values: Mapping[str, str | int]) -> str:
    quoted = {
        name: quote_text(value) if isinstance(value, str) else str(value)
        for name, value in values.items()
    }
    return re.sub(rf"\$({'|'.join(quoted)})\b", lambda match: quoted[match[1]], text)
