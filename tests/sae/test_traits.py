"""TRAITS are read from the files' text, without torch, and are what an import gives."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from mechinterp_assets.sae import architectures
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.registry import sae_class, training_step_class
from mechinterp_assets.sae.settings import Architecture, SaeSettings
from mechinterp_assets.sae.steps import TrainingStep
from mechinterp_assets.sae.traits import architecture_names, traits_of

GOOD = """
TRAITS = Traits(
    description="One", source="Two", sparsity_setting="k", sae_lens_name="topk",
)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files are architectures too."""
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    return tmp_path


@pytest.mark.parametrize("architecture", architecture_names())
def test_what_is_read_is_what_an_import_gives(architecture: str) -> None:
    module = importlib.import_module(f"{architectures.__name__}.{architecture}")
    assert traits_of(architecture) == module.TRAITS
    assert training_step_class(architecture).__module__ == module.__name__


@pytest.mark.parametrize("architecture", architecture_names())
def test_resampling_is_declared_where_it_is_done(architecture: str) -> None:
    own = training_step_class(architecture).resample is not TrainingStep.resample
    assert traits_of(architecture).resamples == own


def test_reading_them_imports_no_torch() -> None:
    program = (
        "import sys; from mechinterp_assets.sae import traits;"
        "[traits.traits_of(name) for name in traits.architecture_names()];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_names_of_studies_and_their_schema_are_the_files(folder: Path) -> None:
    names = architecture_names()
    (folder / "threshold.py").write_text(GOOD)
    (folder / "_shared.py").write_text("")
    assert architecture_names() == sorted([*names, "threshold"])
    adapter: TypeAdapter[str] = TypeAdapter(Architecture)
    assert adapter.validate_python("threshold") == "threshold"
    with pytest.raises(ValidationError, match=r"give one of 'batchtopk', .*'threshold', 'topk'"):
        adapter.validate_python("vanilla")
    schema = SaeSettings.model_json_schema()["properties"]["architecture"]
    assert schema["enum"] == [*architecture_names(), "external"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1", "does not say TRAITS = Traits"),
        ("TRAITS = 5", "does not say TRAITS = Traits"),
        (GOOD + GOOD, "does not say TRAITS = Traits"),
        ('TRAITS = Traits("One")', "does not say TRAITS = Traits"),
        ('TRAITS = Traits(description="One")', "3 required keyword-only arguments"),
        (GOOD.replace('"k"', "SPARSITY"), "as a literal"),
        (GOOD.replace("source", "paper"), "unexpected keyword argument 'paper'"),
    ],
)
def test_a_file_without_readable_traits_is_named(folder: Path, text: str, complaint: str) -> None:
    (folder / "broken.py").write_text(text)
    with pytest.raises(SaeError, match=complaint) as error:
        traits_of("broken")
    assert "broken.py" in str(error.value)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(SaeError, match=r"unknown SAE architecture 'vanilla'; known: \['batchtopk'"):
        traits_of("vanilla")


def test_a_file_that_is_no_architecture_is_named(folder: Path) -> None:
    """Traits alone, and an SAE class that goes by another name."""
    traits = f"from mechinterp_assets.sae.traits import Traits\n{GOOD}"
    (folder / "stepless.py").write_text(traits)
    with pytest.raises(SaeError, match=r"stepless\.py defines 0 subclasses of TrainingStep"):
        sae_class("stepless")
    (folder / "renamed.py").write_text(
        f"from mechinterp_assets.sae.architectures.topk import TopKStep\n{traits}"
        "class OtherStep(TopKStep):\n    pass\n"
    )
    with pytest.raises(SaeError, match=r"TopKSAE\.architecture is 'topk'; it must be the file's"):
        sae_class("renamed")
