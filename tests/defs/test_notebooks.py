"""The notebooks of examples/notebooks run on the tiny study as they stand, in one kernel."""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from tests.conftest import ROOT
from tests.defs.conftest import Materialized

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
SECONDS_A_CELL = 600
# Not within a word or an address, but for that of a file.
ABSOLUTE = re.compile(r"(?:(?<![\w/.])|(?<=//))/[\w.-]+/")


@pytest.fixture(scope="module")
def kernel(tiny: Materialized) -> Iterator[KernelManager]:
    """A kernel whose home is that of the tiny study."""
    manager = KernelManager(kernel_name="python3")
    environment = {**os.environ, "MECHINTERP_HOME": str(tiny.home), "OMP_NUM_THREADS": "1"}
    # The checkout's package, as in this process, whatever is installed.
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    manager.start_kernel(env=environment, cwd=str(ROOT))
    yield manager
    manager.shutdown_kernel(now=True)


def texts(outputs: Any) -> Iterator[str]:
    """Every text in what cells gave; bytes of pictures are none."""
    if isinstance(outputs, str):
        yield outputs
    elif isinstance(outputs, Mapping):
        yield from texts([value for kind, value in outputs.items() if kind != "image/png"])
    elif isinstance(outputs, list):
        for one in outputs:
            yield from texts(one)


def machine_paths(text: str) -> list[str]:
    """Absolute paths in a text, and those of this machine anywhere in it."""
    own = [f"{folder}/" for folder in (tempfile.gettempdir(), Path.home(), ROOT)]
    return [*ABSOLUTE.findall(text), *(path for path in own if path in text)]


@pytest.mark.parametrize("text", ["{}/a", "see\n{}/a", "file://{}/a", "'{}/a'", "<td>{}/a</td>"])
@pytest.mark.parametrize("folder", [tempfile.gettempdir(), Path.home(), ROOT, Path("/any/other")])
def test_a_path_of_a_machine_is_seen(text: str, folder: Path | str) -> None:
    assert machine_paths(text.format(folder))
    assert not machine_paths("and/or, tables/of/layers, https://arxiv.org/abs/1, <b>a</b>, ../a/b")


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["compare_saes", "ioi_circuit", "role_to_features"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, kernel: KernelManager) -> None:
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = [
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    ]
    assert parameters.source.startswith('STUDY = "organism"')
    parameters.source = "%reset -f\nSTUDY = 'tiny'"
    client = NotebookClient(notebook, km=kernel, timeout=SECONDS_A_CELL)
    client.execute()  # CellExecutionError shows the cell and its traceback

    for cell in notebook.cells:
        if cell.cell_type == "code" and cell is not parameters:
            assert cell.outputs, cell.source  # every cell shows something
            assert all(output.output_type != "error" for output in cell.outputs)
            warned = [output.text for output in cell.outputs if output.get("name") == "stderr"]
            assert not warned, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_is_small_and_names_no_machine(path: Path) -> None:
    """Outputs are those of the embedded model's study."""
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 200_000
    said = [text for cell in notebook.cells for text in texts(cell.get("outputs", []))]
    assert said
    assert not [path for text in said for path in machine_paths(text)]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
