"""Commands that write results for people and other programs: sheets, Neuronpedia, SAEs, GraphML."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mechinterp_assets.app.known_studies import known_study, model_of
from mechinterp_assets.app.mistakes import Mistake, told
from mechinterp_assets.app.opened_lake import opened_lake
from mechinterp_assets.app.targets import FORCE_HELP, check_free

StudyArgument = Annotated[str, typer.Argument(help="Name of a study")]


def label_sheet(
    study: StudyArgument,
    layer: Annotated[int | None, typer.Option(help="Layer of the SAE; heads: default all")] = None,
    n: Annotated[
        int | None,
        typer.Option(help="Features (default 30) that fired, or heads (default all), to draw"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw")] = 0,
    output: Annotated[Path | None, typer.Option(help="File to write; without it: print")] = None,
    heads: Annotated[bool, typer.Option("--heads", help="Heads with their top features")] = False,
) -> None:
    """Write a CSV sheet of randomly drawn features, or of heads, for a person to label."""
    chosen = known_study(study)
    if output is not None:
        check_free(output, force=False, remedy=", as this one may hold labels")
    if layer is None and not heads:
        raise Mistake("name a layer with --layer, or ask for heads with --heads")

    from mechinterp_assets.app.label_sheets import SheetError, head_sheet_of, sheet_of

    with told(SheetError):
        if layer is None or heads:
            text = head_sheet_of(opened_lake(), chosen, layer, n, seed)
        else:
            text = sheet_of(opened_lake(), chosen, layer, 30 if n is None else n, seed)
    if output is None:
        sys.stdout.write(text)
        return
    output.write_text(text, encoding="utf-8")
    print(
        f"{output}: fill in rater and, on the lines without a feature, class (monosemantic, minor "
        "exception, bisemantic, polysemantic), then name the file under `head_labels` in the study "
        "file and materialize head_labels"
        if heads
        else f"{output}: fill in rater, label and verdict (yes, no, unsure), then name the file "
        "under `labels` in the study file and materialize feature_labels"
    )


def neuronpedia(
    study: StudyArgument,
    folder: Annotated[Path, typer.Argument(help="Folder to write <model>/<source>/ into")],
    creator_id: Annotated[
        str, typer.Option(help="Id of an account on the Neuronpedia that imports the folder")
    ],
    creator_name: Annotated[str, typer.Option(help="Shown as the creator")] = "unnamed",
    model_id: Annotated[str, typer.Option(help="Id of the model there; default: its name")] = "",
    source_set: Annotated[str, typer.Option(help="Name of the set of SAEs")] = "",
    release: Annotated[str, typer.Option(help="Name of the release")] = "",
    url: Annotated[list[str] | None, typer.Option(help="Paper, code or weights")] = None,
    layer: Annotated[list[int] | None, typer.Option(help="Layers; default: all")] = None,
) -> None:
    """Write a study's features as a Neuronpedia bulk-import folder."""
    from datetime import UTC, datetime

    chosen = known_study(study)
    if unknown := sorted(set(layer or []) - set(chosen.layers)):
        raise Mistake(f"{study} has no layer {unknown}; it has {chosen.layers}")
    lake = opened_lake()

    from mechinterp_assets.app.progress import Progress
    from mechinterp_assets.dashboards.context import shown_name
    from mechinterp_assets.dashboards.neuronpedia import Publication, identifier
    from mechinterp_assets.orchestration.logging import console_logger

    publication = Publication(
        model_id=identifier(model_id or shown_name(chosen.model.source)),
        source_set=identifier(source_set or f"{study}-att"),
        release=identifier(release or study),
        description=chosen.description,
        creator_id=creator_id,
        creator_name=creator_name,
        created=datetime.now(UTC),
        urls=tuple(url or ()),
    )
    layers = layer or chosen.layers
    for number in layers:  # before the first layer is written, not when its turn comes
        if (place := publication.folder(folder, number)).exists():
            raise Mistake(f"{place} exists; remove it or name another folder")
    progress = Progress(console_logger().info)
    progress.say(f"loading the model of {study}")
    with progress.doing(f"writing layers {', '.join(map(str, layers))} of {study}"):
        from mechinterp_assets.app.neuronpedia_export import export_study
        from mechinterp_assets.model.shape import ModelError
        from mechinterp_assets.orchestration.inputs import StaleInputError
        from mechinterp_assets.resources.compute import ComputeError
        from mechinterp_assets.storage.home import tensor_folder
        from mechinterp_assets.storage.lake import LakeError
        from mechinterp_assets.storage.manifest import ArtefactError
        from mechinterp_assets.storage.tensors import Tensors

        with told(ArtefactError, ComputeError, LakeError, ModelError, StaleInputError):
            model = model_of(chosen)
            tensors = Tensors(tensor_folder())
            for path in export_study(lake, tensors, chosen, model, folder, publication, layers):
                print(path, flush=True)


def sae_folder(
    study: StudyArgument,
    layer: Annotated[int, typer.Argument(help="Layer of the SAE, from 0")],
    to: Annotated[Path | None, typer.Option(help="Folder to copy it to")] = None,
) -> None:
    """Print the folder of a layer's SAE, in SAELens's format, or copy it to another place."""
    from mechinterp_assets.sae.folder import copy_sae_folder
    from mechinterp_assets.storage.home import tensor_folder
    from mechinterp_assets.storage.manifest import ArtefactError
    from mechinterp_assets.storage.tensors import Tensors
    from mechinterp_assets.studies.study import site_key

    tensors, key = Tensors(tensor_folder()), site_key(study, layer)
    if not tensors.exists("attention_sae", key) and layer not in (
        there := known_study(study).layers
    ):
        raise Mistake(
            f"layer {layer} has no SAE in {study}; layers with one: {', '.join(map(str, there))}"
        )
    with told(ArtefactError, FileExistsError):
        folder = tensors.open("attention_sae", key).path
        if to is not None:
            copy_sae_folder(folder, to)
    print(folder if to is None else to)  # one line, never wrapped: for use in scripts


def trace_graph(
    study: StudyArgument,
    path: Annotated[Path, typer.Argument(help="File to write, such as trace.graphml")],
    task: Annotated[str, typer.Option(help="Which of the study's traced tasks")] = "ioi",
    published: Annotated[
        bool, typer.Option("--published", help="The published code's nodes, edges and counts")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Write a study's traced circuit as GraphML, for Gephi, yEd, Cytoscape or networkx."""
    check_free(path, force)
    lake = opened_lake()
    table = "trace_published" if published else "trace_graph"
    if not lake.exists(table, study):
        known_study(study)
        raise Mistake(f"study {study!r} has no trace; materialize {table} first")
    every = lake.read(table, study).collect()
    tasks = every["task"].unique(maintain_order=True).to_list()
    if task not in tasks:
        raise Mistake(
            f"study {study!r} has no traced edges of {task!r}; it has those of: {', '.join(tasks)}"
        )

    from mechinterp_assets.circuits.graph import to_graphml
    from mechinterp_assets.circuits.published_graph import published_graphml

    graph = every.filter(task=task)
    path.write_bytes((published_graphml if published else to_graphml)(graph))
    print(f"{path}: {graph.height} edges")
