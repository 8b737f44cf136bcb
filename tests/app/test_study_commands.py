"""The commands about study files: what they list, accept, refuse and write."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from mechinterp_assets.app.new_study import Machine, Sizes, budgets_for
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.storage.declarations import table_specs
from mechinterp_assets.storage.home import lake_folder
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.studies.study_file import load_study
from tests.command_line import Called, call

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ROOT / "examples" / "own-text" / "texts"
STUDY: dict[str, Any] = {
    "study": "mine",
    "description": "a test study",
    "model": {"embedded": "organism"},
    "corpus": {"format": "structured", "documents": 10},
    "activations": {"layers": [0, 1, 4]},
    "sae": {"d_sae": 64, "k": 8, "training_tokens": 1000, "batch_size": 100},
}


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one's own studies, beside an empty home."""
    folder = tmp_path / "studies"
    folder.mkdir()
    monkeypatch.setenv("MECHINTERP_STUDIES", str(folder))
    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path / "home"))
    (folder / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


def called(*arguments: object) -> Called:
    return call(list(map(str, arguments)))


def words(result: Called) -> str:
    return " ".join(result.output.split())


def publish(lake: Lake, study: str, tokens: list[str], inputs: dict[str, str]) -> str:
    """Write a vocabulary, then a table that was computed from a version of it."""
    origin = Provenance(study=study, run_id="run", code_version="1")
    words = pl.DataFrame(
        {
            "token_id": pl.Series(range(len(tokens)), dtype=pl.Int32),
            "token": tokens,
            "bytes_hex": [token.encode().hex() for token in tokens],
            "is_special": False,
            "count_train": 1,
            "count_held_out": 1,
        }
    )
    return lake.write("vocabulary", study, words, origin, inputs).data_version


def test_studies_lists_good_ones_and_says_what_is_wrong_with_the_others(studies: Path) -> None:
    (studies / "bad.yaml").write_text("study: bad\nsae: {k: [}\n")
    os.mkfifo(studies / "pipe.yaml")
    result = called("studies")
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.output.splitlines() if line}
    n_tables = len(table_specs())
    assert rows["mine"][1:5] == ["organism", "0-1,4", f"0/{n_tables}", "-"]
    assert rows["gpt2-small"][1:5] == ["gpt2", "0-11", f"0/{n_tables}", "-"]
    assert "nothing is materialized in" in result.output
    assert f"{studies / 'bad.yaml'}: line 2: not YAML" in result.output
    assert f"{studies / 'pipe.yaml'}: not a file (a FIFO)" in result.output


def test_studies_counts_tables_made_and_partitions_stale(studies: Path) -> None:
    lake = Lake(lake_folder())
    old = publish(lake, "mine", ["a"], {})
    publish(lake, "organism", ["a"], {"vocabulary/mine": old})
    result = called("studies")
    rows = {line.split()[0]: line.split() for line in result.output.splitlines() if line}
    n_tables = len(table_specs())
    per_layer = sum(spec.per == "site" for spec in table_specs().values())
    missing = {
        name: str(n_tables - per_layer + n_layers * per_layer - 1)
        for name, n_layers in (("mine", 3), ("organism", 5))
    }
    assert rows["mine"][3:5] == [f"1/{n_tables}", missing["mine"]]
    assert rows["organism"][3:5] == [f"1/{n_tables}", missing["organism"]]
    publish(lake, "mine", ["b"], {})  # organism's was computed from what mine no longer has
    rows = {line.split()[0]: line.split() for line in called("studies").output.splitlines() if line}
    assert rows["mine"][3:5] == [f"1/{n_tables}", missing["mine"]]
    assert rows["organism"][3:5] == [f"1/{n_tables}", str(int(missing["organism"]) + 1)]


def test_check_prints_what_a_file_comes_to(studies: Path) -> None:
    result = called("check", studies / "mine.yaml")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"OK: {studies / 'mine.yaml'} is study mine",
        f"model: {ORGANISM_FOLDER}, 5 layers of 8 heads, d_head 24",
        "layers with SAEs: 0-1,4 (3 sites, such as mine.L00)",
        "sae: topk, d_sae 64",
        "tokens: corpus 2,000,000, activation cache 2,000,000, training of each SAE 1,000, "
        "features 1,000,000",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sae": {**STUDY["sae"], "k": True}}, "sae.k: True is not a number; write a number"),
        ({"study": "organism"}, "study: the name 'organism' is taken by "),
        ({"comparisons": [{"with": "x"}]}, "comparisons.0.with: no study 'x'; one of "),
    ],
)
def test_check_prints_every_line_of_a_problem(
    studies: Path, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    outside = tmp_path / "outside.yaml"
    for file in (outside, studies / "inside.yaml"):
        file.write_text(yaml.safe_dump({**STUDY, "study": "new", **changes}))
        result = called("check", file)
        assert result.exit_code == 1
        assert result.output.startswith(f"{file}: {expected}")
        file.unlink()
    assert called("check", outside).output == f"{outside}: no such file; correct the path\n"


def test_a_command_names_the_problem_of_the_study_it_is_given(studies: Path) -> None:
    (studies / "other-name.yaml").write_text("study: bad\nstudy: bad\n")
    result = called("materialize", "bad")
    assert result.exit_code == 2
    assert (
        f"study 'bad': its file {studies / 'other-name.yaml'} has a problem: line 2: key study is "
        "there twice (first in line 1); remove one"
    ) in words(result)
    assert "no study 'nothing'; " in words(called("materialize", "nothing"))


def copied_model(folder: Path) -> Path:
    model = folder / "my model: $x"
    model.mkdir()
    shutil.copy(ORGANISM_FOLDER / "config.json", model)
    return model


def test_a_new_file_is_accepted_by_check_and_says_what_the_model_has(
    studies: Path, tmp_path: Path
) -> None:
    file = studies / "fresh.yaml"
    model = copied_model(studies)
    result = called("new", "fresh", "--model", model, "--corpus", TEXTS, "--output", file)
    assert result.exit_code == 0, result.output
    assert called("check", file).output.startswith(f"OK: {file} is study fresh")
    study = load_study(file)
    assert study.model.path == model
    assert yaml.safe_load(file.read_text())["model"]["path"] == model.name  # moves with the folder
    assert study.corpus.path == TEXTS
    assert study.corpus.format == "text"
    assert study.n_layers == 5
    assert "5 layers of 8 heads, d_head 24" in file.read_text()
    assert study.corpus.context_size <= 128


@pytest.mark.parametrize(
    ("model", "options", "key"),
    [("organism", [], "embedded"), ("org/name", ["12", "12", "64"], "hub")],
)
def test_new_takes_the_embedded_and_hub_models(
    studies: Path, model: str, options: list[str], key: str
) -> None:
    file = studies / "fresh.yaml"
    sizes = zip(("--n-layers", "--n-heads", "--d-head"), options, strict=False)
    flags = [word for pair in sizes for word in pair]
    arguments = ["--model", model, "--corpus", TEXTS, "--output", file, *flags]
    assert called("new", "fresh", *arguments).exit_code == 0
    assert called("check", file).exit_code == 0
    assert getattr(load_study(file).model, key) == model


def config(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text(text)

    return write


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda folder: None,
            "config.json: no such file; correct the path; name a",
        ),
        (config("{"), "no model config ("),
        (config("[" * 100_000), "no model config ("),
        (config("[1]"), "no model config ("),
        (
            config('{"n_embd": 8, "n_head": 0, "n_layer": 1, "n_positions": 4, "model_type": "x"}'),
            "no model config (",
        ),
        (config('{"model_type": "x"}'), "has none of ('n_embd', 'hidden_size', 'd_model')"),
        (lambda folder: os.mkfifo(folder / "config.json"), "not a file (a FIFO)"),
    ],
)
def test_new_refuses_a_folder_without_sizes_and_takes_them_as_options(
    studies: Path, tmp_path: Path, make: Callable[[Path], None], expected: str
) -> None:
    model, file = tmp_path / "model", studies / "fresh.yaml"
    model.mkdir()
    make(model)
    arguments = ["new", "fresh", "--model", model, "--corpus", TEXTS, "--output", file]
    result = called(*arguments)
    assert result.exit_code == 2
    assert expected in words(result)
    assert "or give --n-layers, --n-heads and --d-head" in words(result)
    assert not file.exists()
    sizes = ["--n-layers", 2, "--n-heads", 2, "--d-head", 4]
    assert called(*arguments, *sizes).exit_code == 0
    assert yaml.safe_load(file.read_text())["model"]["n_heads"] == 2


def test_new_never_overwrites_and_names_what_is_wrong(studies: Path, tmp_path: Path) -> None:
    def refusal(name: str, model: object, corpus: Path, output: Path) -> str:
        before = {file: file.read_bytes() for file in studies.iterdir()}
        result = called("new", name, "--model", model, "--corpus", corpus, "--output", output)
        assert result.exit_code == 2
        assert {file: file.read_bytes() for file in studies.iterdir()} == before
        return words(result)

    there, free = studies / "mine.yaml", studies / "free.yaml"
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "target.yaml")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    assert "has no file of a format that is read" in refusal("a", "organism", mixed, free)
    (mixed / "a.txt").write_text("x")
    (mixed / "a.jsonl").write_text("{}")
    assert f"{there} exists; name another file" in refusal("a", "organism", TEXTS, there)
    assert f"{link} exists" in refusal("a", "organism", TEXTS, link)
    assert "the name 'mine' is taken by" in refusal("mine", "organism", TEXTS, free)
    assert "'A b' is no name for a study" in refusal("A b", "organism", TEXTS, free)
    assert "several formats (jsonl, text)" in refusal("a", "organism", mixed, free)
    assert "gone.txt does not exist" in refusal("a", "organism", tmp_path / "gone.txt", free)
    assert "give --n-layers, --n-heads and --d-head" in refusal("a", "gpt2", TEXTS, free)
    assert "is no folder; name a save_pretrained" in refusal("a", tmp_path / "no", TEXTS, free)
    assert "cannot be written" in refusal("a", "organism", TEXTS, tmp_path / "no" / "a.yaml")


def test_budgets_follow_the_machine_and_the_model() -> None:
    gpt2, small = Sizes(12, 12, 64, 1024), Machine(2, 8 << 30)
    plenty = 10**12
    few_cores, more_cores = (budgets_for(gpt2, Machine(n, 64 << 30), plenty) for n in (2, 8))
    assert more_cores.training_tokens == pytest.approx(4 * few_cores.training_tokens, rel=0.1)
    assert more_cores.hours == pytest.approx(1, rel=0.1)
    first = budgets_for(gpt2, small, plenty)
    assert first.d_sae == more_cores.d_sae == 8 * 768
    more_memory = budgets_for(gpt2, Machine(2, 16 << 30), plenty)
    assert more_memory.cache_tokens == pytest.approx(2 * first.cache_tokens, rel=0.1)
    # The cache fits a quarter of the memory, SAEs an eighth.
    assert first.cache_tokens * 12 * 768 * 2 <= (8 << 30) / 4
    large = budgets_for(Sizes(32, 32, 128, 4096), small, plenty)
    assert large.d_sae * 4096 * 2 * 24 <= (8 << 30) / 8
    assert large.d_sae < 8 * 4096
    assert budgets_for(Sizes(2, 2, 4, 16), small, plenty).context_size == 16
    assert budgets_for(Sizes(2, 2, 4), small, plenty).context_size == 128
    few = budgets_for(gpt2, small, 20_000)
    assert few.training_tokens == 200_000


PROGRAM = """
import sys
from mechinterp_assets.app.cli import app
try:
    app(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", *(name for name in ("dagster", "torch", "transformers") if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["studies"], {"dagster"}),
        (["check", "{studies}/mine.yaml"], {"dagster"}),
        (
            ["new", "a", "--model", "organism", "--corpus", str(TEXTS), "--output", "{studies}/a"],
            {"dagster", "torch", "transformers"},
        ),
    ],
)
def test_the_commands_answer_without_heavy_imports(
    studies: Path, arguments: list[str], heavy: set[str]
) -> None:
    filled = [argument.format(studies=studies) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *filled], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"^loaded:(.*)$", done.stdout, re.MULTILINE)
    assert found is not None
    assert not heavy & set(found[1].split())
