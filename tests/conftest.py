"""Fixtures that several packages' tests share: the embedded model, the folder of outside data."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
# As many test processes as cores: what they start takes one core, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Studies are read when assets are imported: the tests' own are added before that.
os.environ["MECHINTERP_STUDIES"] = str(Path(__file__).resolve().parent / "studies")

from mechinterp_assets.model.language_model import LanguageModel

ROOT = Path(__file__).resolve().parent.parent
HANGS = 1800
"""Seconds after which a process that a test started is taken to hang, however slow the machine."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def organism() -> LanguageModel:
    """The embedded model, loaded once per test process."""
    return LanguageModel.load(ROOT / "mechinterp_assets" / "organism")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with corpora and models outside the repository; tests skip without it."""
    folder = Path(os.environ.get("MECHINTERP_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set MECHINTERP_SHARED to a folder that has data/")
    return folder


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """Folder of SmolLM2-135M-Instruct (`mechinterp fetch smollm2`), named by MECHINTERP_SMOLLM2."""
    folder = Path(os.environ.get("MECHINTERP_SMOLLM2", ""))
    if not (folder / "config.json").is_file():
        pytest.skip("MECHINTERP_SMOLLM2 names no folder with SmolLM2-135M-Instruct")
    return folder


@pytest.fixture(scope="session")
def stories(shared: Path) -> LanguageModel:
    """stories260K: a trained Llama with rotary positions and grouped-query attention."""
    folder = shared / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no model at {folder}")
    return LanguageModel.load(folder)
