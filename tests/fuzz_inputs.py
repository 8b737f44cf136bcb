"""Program: damage files that a study names, at random, and read them.

`python -m tests.fuzz_inputs [ROUNDS] [SEED]` damages a file of each kind in each round. Whatever
was damaged, the reader refuses it with its package's error, which names the file or its folder, or
takes it: a changed letter is another text, a changed number another weight. Anything else is
printed with the seed of its round, and the exit code is 1.
"""

import gzip
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.corpora.readers import read_documents
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.corpora.skipped_rows import CorpusError
from mechinterp_assets.labels.features import read_labels
from mechinterp_assets.labels.files import LabelError, LabelledSae, read_label_files
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError
from mechinterp_assets.prompts.ioi import PromptError
from mechinterp_assets.prompts.user import read_examples
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.io import SaeMetadata, load_sae, read_metadata, save_sae

INSERTED = (
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\x80", b"\r\n", b"\n", b'"', b",", b"null", b"NaN"),
    *(b"\\ud800", b"-1", b"1e999", b"[" * 5000, b"9" * 5000, b"{}", b"true", b'""'),
)


@dataclass(frozen=True)
class Target:
    """A folder whose files are damaged one at a time, how it is read, and how it may be refused."""

    folder: Path
    read: Callable[[Path], object]
    error: type[Exception]


def targets(folder: Path) -> dict[str, Target]:
    """A small intact input of each kind, written into `folder`."""
    made = {
        "model": Target(folder / "model", LanguageModel.load, ModelError),
        "sae": Target(folder / "sae", lambda f: (read_metadata(f), load_sae(f)), SaeError),
        "parquet": Target(folder / "parquet", _corpus("parquet"), CorpusError),
        "jsonl": Target(folder / "jsonl", _corpus("jsonl"), CorpusError),
        "text": Target(folder / "text", _corpus("text"), CorpusError),
        "labels": Target(folder / "labels", _labels, LabelError),
        "prompts": Target(folder / "prompts", _prompts, PromptError),
    }
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=8, vocab_size=20)
    config.bos_token_id = config.eos_token_id = 0
    GPT2LMHeadModel(config).save_pretrained(folder / "model")
    sae = TopKSAE(torch.randn(4, 6), torch.randn(6), torch.randn(6, 4), torch.randn(4), k=2)
    metadata = SaeMetadata("m", 0, 2, 2, 8, "0" * 16, "1" * 16)
    save_sae(folder / "sae", sae, metadata)
    for name in ("parquet", "jsonl", "text", "labels", "prompts"):
        (folder / name).mkdir()
    table = pa.table({"text": [f"text {i}" for i in range(50)], "title": ["é", None] * 25})
    pq.write_table(table, folder / "parquet" / "x.parquet")
    lines = b'{"text": "\\u00e9 one", "title": "t", "id": 1}\n' * 5
    (folder / "jsonl" / "x.jsonl").write_bytes(lines)
    (folder / "jsonl" / "y.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    (folder / "text" / "x.txt").write_text("one é\ntwo\n")
    labels = 'rater,study,layer,feature,label,verdict,note\nann,s,0,1,"a, é",yes,\n'
    (folder / "labels" / "x.csv").write_text(labels)
    (folder / "prompts" / "x.csv").write_text('text,answer,wrong\n"It, is", so, no\n')
    (folder / "prompts" / "x.jsonl").write_text('{"text": "a", "answer": " b", "wrong": [" c"]}\n')
    pq.write_table(pa.table({"text": ["a"], "answer": [" b"]}), folder / "prompts" / "x.parquet")
    return made


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three things done to it."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        content = rng.choice(
            (
                content[:a] + bytes([rng.randrange(256)]) + content[a + 1 :],
                content[:a] + bytes(c ^ 1 << rng.randrange(8) for c in content[a : a + 1])
                + content[a + 1 :],
                content[:a] + rng.choice(INSERTED) + content[a:],
                content[:a] + content[b:],
                content[:b] + content[a:],
                content[:a],
            )
        )  # fmt: skip
    return content


def attack(name: str, target: Target, place: Path, seed: str) -> str:
    """`taken` or `refused`; anything else raises."""
    rng = random.Random(seed)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(target.folder, place)
    file = rng.choice(sorted(place.iterdir()))
    file.write_bytes(damaged(file.read_bytes(), rng))
    try:
        target.read(place)
    except target.error as error:
        if place.name not in str(error) and file.name not in str(error):
            raise AssertionError(f"{name}: the error does not say where: {error}") from error
        return "refused"
    return "taken"


def main(rounds: int, first_seed: int) -> int:
    """Exit code 1 if anything but `taken` or `refused` came out."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, target in targets(Path(folder)).items():
            for seed in range(first_seed, first_seed + rounds):
                try:
                    outcome = attack(
                        name, target, Path(folder) / f"damaged-{name}", f"{name}{seed}"
                    )
                except Exception:
                    outcome = "WRONG"
                    print(f"{name}, seed {seed}:\n{traceback.format_exc()}")
                outcomes[f"{name} {outcome}"] += 1
    print(", ".join(f"{outcome}: {n}" for outcome, n in sorted(outcomes.items())))
    return int(any("WRONG" in outcome for outcome in outcomes))


# ---- private -------------------------------------------------------------------------------------


def _corpus(form: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        source = CorpusSettings.model_validate({"format": form, "path": folder})
        return [document.text.encode() for document in read_documents(source)]

    return read


def _labels(folder: Path) -> object:
    return read_labels(read_label_files([folder / "x.csv"]), "s", {0: LabelledSae(9, "a")})


def _prompts(folder: Path) -> object:
    files = (folder / f"x.{suffix}" for suffix in ("csv", "jsonl", "parquet"))
    read = [example for file in files for example in read_examples(file)]
    return [example.text.encode() for example in read]


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*(given + [200, 0][len(given) :])))
