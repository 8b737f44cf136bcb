"""Who may import whom: the layers of the package, held against every import in it.

Imports inside functions and for type checking count too.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mechinterp_assets"
SCIENCE = {
    *("corpora", "prompts", "activations", "sae", "attribution", "features", "heads", "tasks"),
    *("circuits", "ablation", "explore", "interventions", "faithfulness", "labels", "organism"),
}
# From the bottom: a part imports its own layer and those below.
LAYERS: tuple[set[str], ...] = (
    {"settings", "statistics", "files"},
    {"model"},
    SCIENCE,
    {"storage", "studies"},
    {"dashboards", "reproduction", "staleness"},
    {"resources"},
    {"orchestration"},
    {"defs"},
    {"definitions"},
    {"api"},
    {"app"},
    {"__main__"},
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it."""
    found = {}
    for folder in (PACKAGE, PACKAGE / "resources"):  # a link, which rglob does not follow
        for file in folder.rglob("*.py"):
            parts = file.relative_to(PACKAGE).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if parts:
                found[".".join(parts)] = file
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of the package, and top-level names of others, that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def inner(module: str) -> Iterator[str]:
    """Modules of the package that a module imports."""
    for name in imports(module):
        head, _, rest = name.partition(".")
        if head != "mechinterp_assets" or not rest:
            continue
        while rest and rest not in modules():
            rest = rest.rpartition(".")[0]
        if rest and rest != module:
            yield rest


def outer(module: str) -> set[str]:
    """Other packages that a module imports."""
    return {name.partition(".")[0] for name in imports(module)}


def part(module: str) -> str:
    """The package or file at the top that a module belongs to."""
    return module.partition(".")[0]


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down(module: str) -> None:
    assert part(module) in RANK, f"{module} belongs to no layer: say which one in LAYERS"
    upward = [name for name in inner(module) if RANK[part(name)] > RANK[part(module)]]
    assert not upward, f"{module} imports {upward}, which lie above it"


def test_storage_knows_nothing_of_what_it_stores() -> None:
    for module in modules():
        if part(module) == "storage":
            foreign = [name for name in inner(module) if part(name) not in ("storage", "files")]
            assert not foreign, f"{module} imports {foreign}"


def test_science_knows_neither_dagster_nor_duckdb_nor_storage() -> None:
    for module in modules():
        if part(module) in SCIENCE | {"model", "settings", "statistics", "files"}:
            assert not outer(module) & {"dagster", "duckdb"}, module


def test_dagster_is_known_to_the_layers_around_it_alone() -> None:
    around = {"resources", "orchestration", "defs", "definitions", "app"}
    for module in modules():
        if part(module) not in around:
            assert "dagster" not in outer(module), module


def test_no_cycles() -> None:
    """Neither modules nor packages import each other in a circle."""
    graph = {module: set(inner(module)) for module in modules()}
    assert not circles(graph)
    packages: dict[str, set[str]] = {}
    for module, names in graph.items():
        own = packages.setdefault(part(module), set())
        own |= {part(name) for name in names} - {part(module)}
    assert not circles(packages)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        pending = list(graph[start])
        while pending:
            node = pending.pop()
            if node not in seen:
                seen.add(node)
                pending += graph.get(node, set())
        reach[start] = seen
    return sorted(
        {tuple(sorted(n for n in graph if n in reach[a] and a in reach[n])) for a in graph} - {()}
    )
