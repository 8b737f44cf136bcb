"""Everything that is to be seen on a GPU, in one go and a given time: tests, speeds, a study.

    python benchmarks/gpu_session.py smollm2-gpu --model <folder> --corpus <folder> --out <folder>
    python benchmarks/gpu_session.py tiny --dry      # any machine: the same steps, tiny

In order: the tests of GPU kernels, gpu_training.py, real_model.py, and the study, cut to sizes that
fit what is left of `--minutes` (FIT; `--set sae.training_tokens=1000000` changes one). A step that
exceeds its share is ended, and the next begins. Nothing is fetched: the model's folder and the
corpus must lie on the machine. What each step prints goes, each line behind the name of the card,
to the screen and to <out>/session.txt. A table of the steps comes last; the program fails where a
step did.
"""

import argparse
import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any, TextIO

import yaml

ROOT = Path(__file__).resolve().parent.parent
# Sizes of a study that a datacentre card makes in about ten minutes.
FIT: dict[str, int] = {
    "corpus.max_tokens": 4_000_000,
    "activations.max_tokens": 200_000,
    "sae.training_tokens": 4_000_000,
    "sae.evaluation_tokens": 65_536,
    "features.max_tokens": 100_000,
    "heads.cspa_sequences": 0,
    "heads.ioi_prompts": 64,
    "ioi.prompts": 64,
    "task_effects.prompts": 16,
    "interventions.prompts": 32,
    "interventions.published_prompts": 32,
    "circuits.prompts": 32,
}


# What a study names by its own name: the cut one has another.
BOUND = ("labels", "head_labels", "reference")


@dataclass(frozen=True)
class Step:
    """A program and the most minutes it may take; None: what is left."""

    name: str
    command: list[str]
    minutes: float | None
    environment: dict[str, str]


def card(dry: bool) -> str:
    """Name of the device that figures are of. Ends the program where there is no GPU."""
    import torch

    if dry:
        return "CPU"
    if not torch.cuda.is_available():
        raise SystemExit(
            "torch sees no CUDA device; --dry runs the same steps tiny, on any machine"
        )
    return torch.cuda.get_device_name()


def study_to_run(a: argparse.Namespace, folder: Path) -> str:
    """Write the study that is run into a folder; its name. Ends the program for what is missing."""
    folders = [
        Path(folder) for folder in os.environ.get("MECHINTERP_STUDIES", "").split(os.pathsep)
    ]
    folders += [ROOT / "mechinterp_assets" / "studies", ROOT / "tests" / "studies"]
    found = [path for where in folders if (path := where / f"{a.study}.yaml").is_file()]
    if not found:
        raise SystemExit(f"no study {a.study!r} in {', '.join(map(str, folders))}")
    study: dict[str, Any] = copy.deepcopy(yaml.safe_load(found[0].read_text()))
    study["study"] = f"{a.study}-session"
    for key in BOUND:
        study.pop(key, None)
    if a.model:
        if not (Path(a.model) / "config.json").is_file():
            raise SystemExit(f"--model {a.model} has no config.json; give a folder with the model")
        kept = {k: v for k, v in study["model"].items() if k not in ("gguf", "hub", "name")}
        study["model"] = {**kept, "path": str(Path(a.model).resolve())}
    changes: dict[str, Any] = {} if a.dry else dict(FIT)
    for text in a.set:
        key, _, value = text.partition("=")
        changes[key] = yaml.safe_load(value)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        study.setdefault(section, {})[name] = value
    folder.mkdir(parents=True, exist_ok=True)
    for file in found[0].parent.iterdir():  # what the study names beside itself
        beside = folder / file.name
        if file.name in found[0].read_text() and not beside.exists():
            beside.symlink_to(file.resolve())
    (folder / f"{study['study']}.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return str(study["study"])


def steps(a: argparse.Namespace, out: Path) -> list[Step]:
    """What is run."""
    python = sys.executable
    bench = ROOT / "benchmarks"
    name = study_to_run(a, out / "studies")
    here = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    of_study = {
        **here,
        "MECHINTERP_STUDIES": str(out / "studies"),
        "MECHINTERP_HOME": str(out / "home"),
    }
    if a.corpus:
        of_study["MECHINTERP_CORPUS"] = str(Path(a.corpus).resolve())
    small = ["--small"] if a.dry else []
    model = ["--model", a.model] if a.model else []
    device = "cpu" if a.dry else "cuda"
    mechinterp = [python, "-m", "mechinterp_assets"]
    kernels = [python, "-m", "pytest", "-q", str(ROOT / "tests" / "sae" / "test_gpu_kernels.py")]
    rows = ["harvest", "one", "trace"] if a.dry else []
    cost = [python, str(bench / "real_model.py"), "--device", device, *small, *model]
    if rows:
        cost += ["--rows", *rows]
    else:  # the table of all head scores takes minutes by itself
        every = "harvest patterns movers ablation ablation_at_end one patching_at_end paths trace"
        cost += ["--rows", *every.split(), "eap_ig", "splice", "features", "--repeats", "2"]
    select = [part for group in a.select for part in ("--select", group)]
    return [
        Step("GPU kernels", kernels, 2, here),
        Step("SAE training", [python, str(bench / "gpu_training.py"), *small], 2, here),
        Step("cost of methods", cost, 3, here),
        Step("study", [*mechinterp, "materialize", name, *select], None, of_study),
        Step("what was made", [*mechinterp, "tables"], 1, of_study),
    ]


def run(step: Step, seconds: float, name: str, log: TextIO) -> int | None:
    """Exit status of a step, None where its time was over; its lines go to the screen and `log`."""
    process = subprocess.Popen(
        step.command,
        cwd=ROOT,
        env={**os.environ, **step.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    over: list[bool] = []

    def end() -> None:
        over.append(True)
        os.killpg(process.pid, signal.SIGKILL)

    timer = Timer(seconds, end)
    timer.start()
    assert process.stdout is not None
    for line in process.stdout:
        print(f"[{name}] {line.rstrip()}", flush=True)
        print(f"[{name}] {line.rstrip()}", file=log, flush=True)
    process.wait()
    timer.cancel()
    return None if over else process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", help="name of a study file")
    parser.add_argument("--model", default=os.environ.get("MECHINTERP_SMOLLM2"))
    parser.add_argument("--corpus", default=os.environ.get("MECHINTERP_CORPUS"))
    parser.add_argument("--out", type=Path, default=Path("gpu-session"))
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--select", nargs="*", default=[], help="groups or tables; default all")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dry", action="store_true", help="on the CPU, tiny")
    a = parser.parse_args()
    if a.dry:
        a.model, a.select = None, a.select or ["attention_sae"]
    name = card(a.dry)
    out = a.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    lines, failed = [], False
    with (out / "session.txt").open("w") as log:
        for step in steps(a, out):
            start = time.monotonic()
            left = 60 * a.minutes - (start - begun)
            # The last step, which says what was made, keeps half a minute of the study's time.
            limit = 60 * step.minutes if step.minutes else left - 30
            status = run(step, max(1.0, min(limit, max(left, 30))), name, log)
            took = time.monotonic() - start
            # pytest's 5: no test was collected, as where the machine has no triton.
            fine = status == 0 or (a.dry and status == 5)
            failed = failed or not (fine or status is None)
            said = "time over" if status is None else "done" if fine else f"failed ({status})"
            lines.append(f"[{name}] {step.name:20s} {took:7.1f} s  {said}")
        for line in lines:
            print(line)
            print(line, file=log)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
