"""Commands about study files: studies, check, new.

Belongs here: arguments and printing. Does not belong here: what a study file may say (studies/),
and how a new one is made (new_study.py). They import neither Dagster nor torch themselves.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mechinterp_assets.studies.registry import Problem
    from mechinterp_assets.studies.study import Study


def studies() -> None:
    """List all studies: model, layers with SAEs, tables made, partitions to make; then problems."""
    from mechinterp_assets.dashboards.context import shown_name
    from mechinterp_assets.storage.declarations import table_specs
    from mechinterp_assets.studies.registry import load_registry

    registry = load_registry()
    made, stale, trouble = _made_and_stale(registry.studies.values())
    declared = len(table_specs())
    rows = [("study", "model", "layers", "tables", "to_make", "file")]
    for name, study in registry.studies.items():
        rows.append(
            (
                name,
                shown_name(study.model.source),
                _spans(study.layers),
                f"{made.get(name, 0)}/{declared}",
                str(stale.get(name, 0)) if made.get(name) else "-",
                str(study.file),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    if trouble:
        print(f"\nno tables are counted: {trouble}")
    if registry.problems:
        print("\nleft out (`mechinterp check FILE` says whether a corrected file is right):")
        for problem in registry.problems:
            _print_problem(problem)


def check(file: Annotated[Path, typer.Argument(help="A study file")]) -> None:
    """Check one study file: print what it comes to, or what is wrong with it (exit code 1)."""
    from mechinterp_assets.studies.registry import Problem, load_registry, read_study, study_files

    found = read_study(file.absolute())
    if not isinstance(found, Problem):
        # As the registry will read it: its name and the studies it is compared with.
        files, _ = study_files()
        same = [one for one in files if os.path.realpath(one) == os.path.realpath(file)]
        place = same[0] if same else file.absolute()
        registry = load_registry(files if same else [*files, place])
        problems = [one for one in registry.problems if one.file == str(place)]
        if not problems:
            _print_summary(found)
            return
        found = problems[0]
    _print_problem(found)
    raise typer.Exit(1)


def new(
    name: Annotated[str, typer.Argument(help="Name of the study")],
    model: Annotated[str, typer.Option(help="Folder of a model, organism, or a name on the hub")],
    corpus: Annotated[
        Path, typer.Option(help="Text: a .txt, .jsonl or .parquet file, or a folder of them")
    ],
    output: Annotated[Path | None, typer.Option(help="File to write; default: NAME.yaml")] = None,
    n_layers: Annotated[int | None, typer.Option(min=1, help="Layers of a hub model")] = None,
    n_heads: Annotated[int | None, typer.Option(min=1, help="Heads of a hub model")] = None,
    d_head: Annotated[int | None, typer.Option(min=1, help="Head size of a hub model")] = None,
) -> None:
    """Write a commented study file for a model and a corpus, sized to this machine."""
    from mechinterp_assets.app.machine import cores, memory_bytes
    from mechinterp_assets.app.new_study import Machine, NewStudyError, Sizes, study_text
    from mechinterp_assets.studies.registry import STUDIES_VARIABLE, declared_name, study_files
    from mechinterp_assets.studies.study import STUDY_NAME

    if not STUDY_NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r} is no name for a study: use lower-case letters, digits, '-' and '_'"
        )
    taken = {declared_name(one): one for one in study_files()[0]}
    if name in taken:
        raise typer.BadParameter(f"the name {name!r} is taken by {taken[name]}; choose another")
    file = (output or Path(f"{name}.yaml")).absolute()
    sizes = None
    if n_layers is not None or n_heads is not None or d_head is not None:
        if n_layers is None or n_heads is None or d_head is None:
            raise typer.BadParameter("give all of --n-layers, --n-heads and --d-head, or none")
        sizes = Sizes(n_layers, n_heads, d_head)
    machine = Machine(cores(), memory_bytes())
    try:
        text = study_text(name, model, corpus, file.parent, sizes, machine)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except NewStudyError as error:
        raise typer.BadParameter(str(error)) from None
    except FileExistsError:
        raise typer.BadParameter(f"{file} exists; name another file with --output") from None
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}") from None
    print(
        f"{file}: read it, change what you like, then\n"
        f"  mechinterp check {file}\n"
        f"  {STUDIES_VARIABLE}={file.parent} mechinterp materialize {name}"
    )


# ---- private -------------------------------------------------------------------------------------


def _made_and_stale(studies: "Iterable[Study]") -> tuple[dict[str, int], dict[str, int], str]:
    """Tables made, and partitions stale or missing, by study; why they are not known."""
    from mechinterp_assets.staleness.asked_for import observe_if_possible
    from mechinterp_assets.staleness.reasons import freshness
    from mechinterp_assets.storage.home import lake_folder
    from mechinterp_assets.storage.lake import Lake, LakeError

    try:
        lake = Lake(lake_folder())
        if lake.is_empty():
            return {}, {}, f"nothing is materialized in {lake.root}"
        observe_if_possible(lake, studies)
        made = lake.sql(
            "SELECT study, count(DISTINCT table_name) FROM lineage "
            "WHERE current_formula_version IS NOT NULL GROUP BY study"
        )
        stale = {study: found.stale for study, found in freshness(lake).items()}
    except LakeError as error:
        return {}, {}, str(error)
    return dict(made.rows()), stale, ""


def _print_problem(problem: "Problem") -> None:
    for line in problem.lines:
        print(line)


def _print_summary(study: "Study") -> None:
    from mechinterp_assets.model.shape import read_shape

    model, sae = study.model, study.sae
    if model.local_folder is None:
        n_heads, d_head = model.n_heads, model.d_head
    else:
        shape = read_shape(model.local_folder)
        n_heads, d_head = shape.n_heads, shape.d_head
    sites = study.sites
    print(f"OK: {study.file} is study {study.study}")
    print(f"model: {model.source}, {study.n_layers} layers of {n_heads} heads, d_head {d_head}")
    print(f"layers with SAEs: {_spans(study.layers)} ({len(sites)} sites, such as {sites[0]})")
    if sae.architecture == "external":
        print(f"sae: external, {sae.path}")
    else:
        own = "".join(f", layer {n}: {width:,}" for n, width in sae.d_sae_by_layer.items())
        print(f"sae: {sae.architecture}, d_sae {sae.d_sae:,}{own}")
    tokens = {
        "corpus": study.corpus.max_tokens,
        "activation cache": study.activations.max_tokens,
        "training of each SAE": sae.training_tokens,
        "features": study.features.max_tokens,
    }
    shown = [f"{title} {number:,}" for title, number in tokens.items() if number]
    print(f"tokens: {', '.join(shown)}")


def _spans(layers: list[int]) -> str:
    """Layers in short: `0-11`, `0,2`."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and spans[-1][1] == layer - 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
