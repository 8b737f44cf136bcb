"""An installed wheel has every file of the package and works from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "mechinterp_assets"
# Top-level folders that the package links to.
LINKED = ("resources", "sql")
# A model, its corpus and an SAE: weights, SQL, studies and the kernels' fallback all take part.
RUN = """
import dagster as dg
from mechinterp_assets.app.materialize import instance
from mechinterp_assets.definitions import build_definitions

stages = {
    "small": ["language_model", "tokenized_corpus", "vocabulary", "ioi_prompts", "ioi_head_scores"],
    "small.L02": ["activation_cache", "attention_sae"],
}
for partition, assets in stages.items():
    selection = dg.AssetSelection.assets(*assets).required_multi_asset_neighbors()
    job = dg.define_asset_job("some", selection=selection)
    definitions = dg.Definitions.merge(build_definitions(), dg.Definitions(jobs=[job]))
    with instance() as opened:
        run = definitions.resolve_job_def("some").execute_in_process(
            instance=opened,
            partition_key=partition,
            run_config={"loggers": {"console": {}}},
        )
"""
BUILD = "import setuptools.build_meta as b, sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Files under version control."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository here to compare with")
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    return listed.rstrip("\0").split("\0")


@pytest.fixture(scope="module")
def wheel(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a source distribution, and that from a copy of the checkout."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made")
    for name in files:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        else:
            target.write_bytes((ROOT / name).read_bytes())
    _build("build_sdist", source, made)
    with tarfile.open(next(made.glob("*.tar.gz"))) as archive:
        archive.extractall(made / "unpacked", filter="data")
    _build("build_wheel", next((made / "unpacked").iterdir()), made)
    return next(made.glob("*.whl"))


def test_the_wheel_has_every_file_of_the_package(files: list[str], wheel: Path) -> None:
    links = {f"{PACKAGE}/{name}" for name in LINKED}
    assert links <= set(files)
    wanted = {name for name in files if name.startswith(f"{PACKAGE}/")} - links
    wanted |= {f"{PACKAGE}/{name}" for name in files if name.split("/")[0] in LINKED}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        top = {name.split("/")[0] for name in archive.namelist()}
    assert packed == wanted
    assert {name.removesuffix(".dist-info").split("-")[0] for name in top} == {PACKAGE}


def test_an_installed_wheel_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """With no compiler on PATH, and what it depends on from the environment of the tests."""
    place, here = tmp_path / "env", tmp_path / "empty"
    here.mkdir()
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    install = [*(sys.executable, "-m", "pip", "--python", str(python), "install"), "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    installed = next((place / "lib").glob("python*/site-packages"))
    # Named in a file of this kind, a folder's own .pth files are not read: no editable install.
    (installed / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    environment = {
        "PATH": str(place / "bin"),
        "HOME": str(tmp_path),
        "MECHINTERP_STUDIES": str(_small_study(tmp_path)),
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions"),
        "HF_HUB_OFFLINE": "1",
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)

    imported = run(str(python), "-c", f"import {PACKAGE} as p; print(p.__file__)")
    assert Path(imported.stdout.strip()) == installed / PACKAGE / "__init__.py"
    mechinterp = str(place / "bin" / "mechinterp")
    assert run(mechinterp, "--version").stdout == "mechinterp-assets 0.1.0\n"
    missing = run(mechinterp, "tables")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert f"nothing is materialized in {here / '.mechinterp'}" in missing.stderr
    assert list(here.iterdir()) == []
    before = {path for path in installed.rglob("*") if "__pycache__" not in path.parts}

    done = run(str(python), "-c", RUN)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "published attention_sae small.L02" in done.stderr
    assert "compile" not in done.stderr
    answer = run(mechinterp, "query", "SELECT layer, d_sae FROM attention_sae", "--format", "csv")
    assert answer.stdout == "layer,d_sae\n2,128\n"
    worked = run(mechinterp, "query", "6", "small", "--format", "csv")
    assert (worked.returncode, worked.stderr) == (0, "")
    assert [path.name for path in here.iterdir()] == [".mechinterp"]
    assert {p for p in installed.rglob("*") if "__pycache__" not in p.parts} == before


def _small_study(folder: Path) -> Path:
    """The study `tiny` with one layer and less text."""
    study = yaml.safe_load((ROOT / "tests" / "studies" / "tiny.yaml").read_text())
    for key in ("labels", "reference", "comparisons"):
        study.pop(key, None)
    study |= {"study": "small"}
    study["corpus"] |= {"documents": 400, "max_tokens": 12000}
    study["activations"] |= {"layers": [2], "max_tokens": 12000}
    study["sae"] |= {"training_tokens": 8000, "evaluation_tokens": 1024}
    study["interventions"]["experiments"] = []  # one of them names a file beside `tiny`
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def _build(what: str, source: Path, target: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run(
        [sys.executable, "-c", BUILD, what, str(target)],
        cwd=source,
        env=environment,
        check=True,
        capture_output=True,
    )
