"""What of a study depends on its model's sizes and on files that it names.

Belongs here: checks that need a config or a folder, run when a study is read. Does not belong here:
what sections say of themselves (their settings.py) and must agree on (study.py), and the weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mechinterp_assets.model.names import head_name
from mechinterp_assets.model.settings import ModelSettings
from mechinterp_assets.model.shape import ModelError, read_shape
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.settings import EXTERNAL, SaeSettings
from mechinterp_assets.settings.section import repeated
from mechinterp_assets.studies.study import Study, StudyError


@dataclass(frozen=True)
class AttentionShape:
    """What a study must know of its model before it is loaded."""

    n_layers: int
    n_heads: int
    d_head: int


def shape_of_model(model: ModelSettings) -> AttentionShape:
    """Sizes of a study's model; those that it declares must agree with a local config.

    Raises StudyError with key, value and remedy.
    """
    gguf = None if model.gguf is None else model.gguf.path
    if line := _missing("model.path", model.path) or _missing("model.gguf.path", gguf):
        raise StudyError(line)
    if model.local_folder is None:
        assert model.n_layers is not None
        assert model.n_heads is not None
        assert model.d_head is not None
        return AttentionShape(model.n_layers, model.n_heads, model.d_head)
    try:
        shape = read_shape(model.local_folder)
    except ModelError as error:
        raise StudyError(f"model.path: {error}") from error
    for name in ("n_layers", "n_heads", "d_head"):
        declared, real = getattr(model, name), getattr(shape, name)
        if declared is not None and declared != real:
            raise StudyError(
                f"model.{name}: {declared} is not what {model.source} has ({real}); correct it or "
                "leave it out"
            )
    return AttentionShape(shape.n_layers, shape.n_heads, shape.d_head)


def problems(study: Study, shape: AttentionShape) -> Iterator[str]:
    """What is wrong with a study's heads, layers, SAEs and files, as `key: what; remedy`."""
    unknown_layers = list(_unknown_layers(study))
    yield from unknown_layers
    yield from _unknown_heads(study, shape)
    if not unknown_layers:
        yield from _untrainable(study)
        yield from _layers_without_sae(study)
    yield from _residual_folders(study)
    yield from _missing_files(study)


# ---- private -------------------------------------------------------------------------------------


def _unknown_layers(study: Study) -> Iterator[str]:
    if study.activations.layers != "all":
        for layer in study.activations.layers:
            if layer >= study.n_layers:
                yield (
                    f"activations.layers: layer {layer} does not exist; {study.model.source} has "
                    f"layers 0..{study.n_layers - 1}"
                )


def _unknown_heads(study: Study, shape: AttentionShape) -> Iterator[str]:
    """Heads that the model does not have, wherever a study names some."""
    named: dict[str, list[tuple[int, int]]] = {}
    if not isinstance(study.ioi.roots, str):
        named["ioi.roots"] = [(root[0], root[1]) for root in study.ioi.roots]
    for task, roots in study.tasks.roots.items():
        named[f"tasks.roots.{task}"] = [(root[0], root[1]) for root in roots]
    if study.heads.movers != "auto":
        named["heads.movers"] = study.heads.movers
    if study.qk_features.heads != "auto":
        named["qk_features.heads"] = study.qk_features.heads
    for name, heads in study.ioi.reference_heads.items():
        named[f"ioi.reference_heads.{name}"] = heads
    for key, heads in named.items():
        for layer, head in heads:
            if layer >= shape.n_layers:
                yield (
                    f"{key}: layer {layer} does not exist (head {head_name(layer, head)}); "
                    f"{study.model.source} has layers 0..{shape.n_layers - 1}"
                )
            elif head >= shape.n_heads:
                yield (
                    f"{key}: head {head_name(layer, head)} does not exist; "
                    f"{study.model.source} has heads 0..{shape.n_heads - 1}"
                )


def _untrainable(study: Study) -> Iterator[str]:
    try:
        if study.sae.architecture == EXTERNAL:
            yield from _external_folders(study)
        else:
            yield from _every_layer(study.sae, study.layers, "sae")
        for i, variant in enumerate(study.sweep.of(study.sae).values()):
            yield from _every_layer(variant, study.layers, f"sweep.variants[{i}]")
    except SaeError as error:
        yield str(error)


def _every_layer(sae: SaeSettings, layers: list[int], key: str) -> Iterator[str]:
    for name in ("d_sae_by_layer", "l1_coefficient_by_layer"):
        for layer in getattr(sae, name):
            if layer not in layers:
                yield f"{key}.{name}: layer {layer} has no SAE; the study's layers are {layers}"
    for layer in layers:
        try:
            sae.for_layer(layer)
        except SaeError as error:
            yield f"{key}: {error}"


def _external_folders(study: Study) -> Iterator[str]:
    folders = {layer: study.sae.external_folder(layer) for layer in study.layers}
    for layer, folder in folders.items():
        if not (folder / "cfg.json").is_file():
            yield (
                f"sae.path: layer {layer}: {folder} has no cfg.json; name a folder in SAELens's "
                "format (relative paths start at the study file's folder), or leave the layer out "
                "of activations.layers"
            )
        if twice := [other for other in folders if other < layer and folders[other] == folder]:
            yield (
                f"sae.path: layers {twice[0]} and {layer} have the same folder {folder}; write "
                "{layer} where the names differ"
            )


def _residual_folders(study: Study) -> Iterator[str]:
    for layer, folder in study.residual_sae.folders(study.n_layers).items():
        if layer >= study.n_layers:
            yield (
                f"residual_sae.layers: layer {layer} does not exist; {study.model.source} has "
                f"layers 0..{study.n_layers - 1}"
            )
        elif not (folder / "cfg.json").is_file():
            yield (
                f"residual_sae.path: layer {layer}: {folder} has no cfg.json; name a folder in "
                "SAELens's format (relative paths start at the study file's folder), or list the "
                "layers that have one in residual_sae.layers"
            )


def _layers_without_sae(study: Study) -> Iterator[str]:
    """Layers that proxies, trees and comparisons name have an SAE."""
    named = {
        f"features.proxies.{number}.features": sorted(proxy.features or ())
        for number, proxy in enumerate(study.features.proxies)
    }
    named |= {
        f"rdfa.features.{number}.layer": [feature.layer]
        for number, feature in enumerate(study.rdfa.features)
    }
    for number, comparison in enumerate(study.comparisons):
        key = f"comparisons.{number}"
        own = comparison.with_study in {None, study.study}
        if own and comparison.layer is None and comparison.version is None:
            yield (
                f"{key}.with: {comparison.with_study!r} is this study; give layer or version too, "
                "or another study"
            )
        if own and isinstance(comparison.layer, int):
            named[f"{key}.layer"] = [comparison.layer]
    with_one = ", ".join(map(str, study.layers))
    for key, layers in named.items():
        for layer in layers:
            if layer not in study.layers:
                yield f"{key}: layer {layer} has no SAE; layers with one: {with_one}"


def _missing_files(study: Study) -> Iterator[str]:
    paths = {"corpus.path": study.corpus.path}
    paths |= {f"tasks.own.{n}.path": task.path for n, task in enumerate(study.tasks.own)}
    tables = {"labels": study.labels, "head_labels": study.head_labels}
    for key, files in tables.items():
        paths |= {f"{key}.{number}": file for number, file in enumerate(files)}
        if (number := repeated(file.name for file in files)) is not None:
            yield f"{key}: two files are called {files[number].name}; rename one"
        for number, file in enumerate(files):
            if file.is_dir():
                yield f"{key}.{number}: {file} is a folder; name a CSV file"
    for key, path in paths.items():
        if line := _missing(key, path):
            yield line


def _missing(key: str, path: Path | None) -> str | None:
    if path is None or path.exists():
        return None
    return (
        f"{key}: {path} does not exist; correct the path (relative paths start at the study file's "
        "folder)"
    )
