"""Models of the Hugging Face hub, downloaded before they are needed.

Belongs here: the download. Does not belong here: loading (language_model.py), which takes the files
from where this put them, or downloads them itself.
"""

from pathlib import Path

from huggingface_hub import snapshot_download

from mechinterp_assets.model.settings import MODEL_FILES
from mechinterp_assets.model.shape import ModelError


def download(name: str) -> Path:
    """Download weights, configuration and tokenizer; the folder of the hub's cache. ModelError."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(MODEL_FILES)))
    except Exception as error:
        what = " ".join(str(error).split())
        raise ModelError(
            f"{name!r} cannot be downloaded from the hub ({type(error).__name__}: {what}); check "
            "the name and the network, or name a local folder as `path:`"
        ) from error
