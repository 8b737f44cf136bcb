"""The command sae-check: an SAE folder from elsewhere, before a study names it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp_assets.app.known_studies import known_study, model_of
from mechinterp_assets.app.mistakes import told
from mechinterp_assets.sae.settings import TrainedOn

if TYPE_CHECKING:
    from torch import Tensor

    from mechinterp_assets.app.sae_check import Sample
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.studies.study import Study

_MOST_TEXT_BYTES = 1 << 26


def sae_check(
    folder: Annotated[
        Path, typer.Argument(help="Folder with cfg.json and sae_weights.safetensors")
    ],
    model: Annotated[str, typer.Argument(help="A study, a model's folder, or a name on the hub")],
    text: Annotated[
        Path | None,
        typer.Option(help="Text file to measure on; default: the study's corpus, else built-in"),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to measure on", min=1000)] = 16_384,
    trained_on: Annotated[TrainedOn, typer.Option(help="Weights that it was trained on")] = "auto",
    max_fvu: Annotated[
        float, typer.Option(help="Most of the variance that it may leave unexplained", min=0)
    ] = 0.5,
    expected_l0: Annotated[float | None, typer.Option(help="Its published L0")] = None,
) -> None:
    """Say what an SAE folder is and whether it fits a model. Exit code 1 where it does not.

    Measures 1 - FVU and L0 on raw and on processed weights, with its heads permuted, its
    activations rescaled and other numbers of features, as adopting it in a study does.
    """
    if not folder.exists():
        raise typer.BadParameter(f"{folder} does not exist; name an SAE's folder")

    from mechinterp_assets.app.sae_check import check, context_of, describe
    from mechinterp_assets.model.shape import ModelError
    from mechinterp_assets.sae.errors import SaeError
    from mechinterp_assets.sae.external import Expectation

    with told(SaeError, exit_code=1):
        config = describe(folder, print)
    study = None if Path(model).is_dir() else _study(model)
    with told(ModelError):
        loaded = _model(model, study)
    with told(SaeError, ModelError):
        sample = _sample(loaded, study, text, context_of(config, loaded), tokens)
    expected = Expectation(trained_on=trained_on, max_fvu=max_fvu, l0=expected_l0)
    if not check(folder, config, loaded, sample, expected, print):
        raise typer.Exit(1)


# ---- private -------------------------------------------------------------------------------------


def _study(name: str) -> "Study | None":
    """The study of that name, None where there is none: a model's name then."""
    from mechinterp_assets.studies.registry import load_registry

    registry = load_registry()
    known = name in registry.studies or any(one.study == name for one in registry.problems)
    return known_study(name) if known else None


def _model(name: str, study: "Study | None") -> "LanguageModel":
    from mechinterp_assets.model.language_model import LanguageModel

    return LanguageModel.load(name) if study is None else model_of(study)


def _sample(
    model: "LanguageModel", study: "Study | None", text: Path | None, context: int, tokens: int
) -> "Sample":
    """Tokens of the file, else of the study's corpus where it was made, else built-in."""
    from mechinterp_assets.app.sae_check import Sample, built_in_text, sample_of_text

    if text is not None:
        from mechinterp_assets.files.regular_file import FileError, read_text

        with told(FileError):
            content = read_text(text, "a text", _MOST_TEXT_BYTES)
        return sample_of_text(model, content, str(text), context, tokens)
    if study is not None and (made := _corpus(study, tokens)) is not None:
        return Sample(made, f"the corpus of study {study.study}")
    source = "built-in generated English (name a text of your own with --text)"
    return sample_of_text(model, built_in_text(tokens), source, context, tokens)


def _corpus(study: "Study", tokens: int) -> "Tensor | None":
    """The first sequences of a study's corpus [sequence, position], None where it is not made."""
    import torch

    from mechinterp_assets.corpora.tokenize import token_matrix
    from mechinterp_assets.storage.home import lake_folder
    from mechinterp_assets.storage.lake import Lake

    lake = Lake(lake_folder())
    if lake.is_empty() or not lake.exists("tokenized_corpus", study.study):
        return None
    count = max(1, tokens // study.corpus.context_size)
    frame = lake.read("tokenized_corpus", study.study).sort("sequence").head(count)
    return torch.from_numpy(token_matrix(frame.select("token_ids").collect()))
