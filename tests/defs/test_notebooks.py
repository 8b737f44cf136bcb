"""The notebooks of examples/notebooks run on the tiny study as they stand, in one kernel."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from tests.conftest import ROOT
from tests.defs.conftest import Materialized

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
SECONDS_A_CELL = 600


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


def outputs(notebook: nbformat.NotebookNode) -> str:
    """All that cells gave, as text."""
    return json.dumps([cell.get("outputs", []) for cell in notebook.cells], ensure_ascii=False)


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
    text = outputs(notebook)
    assert not [word for word in ("/tmp/", "/home/", "/root/", "/work/", str(ROOT)) if word in text]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
