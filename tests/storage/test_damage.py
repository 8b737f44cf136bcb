"""Damaged files: each is refused, by name and with a remedy, or changes nothing that is read."""

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from mechinterp_assets.storage import whole_files
from mechinterp_assets.storage.lake import Lake, LakeError
from mechinterp_assets.storage.manifest import ArtefactError
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.tensors import Tensors

Scores = Callable[..., pl.DataFrame]
FLIPS = 64


@pytest.fixture
def filled(lake: Lake, provenance: Provenance, scores: Scores) -> Lake:
    """A lake of two tables and three partitions, made of values that differ."""
    for layer in range(3):
        values = [index / 97 + layer for index in range(200)]
        lake.write("head_scores", f"o.L0{layer}", scores(*values, layer=layer), provenance)
    counts = pl.DataFrame({"role": [f"role {n}" for n in range(50)], "n": list(range(50))})
    lake.write("role_counts", "o", counts, provenance)
    return lake


@pytest.fixture
def store(tmp_path: Path, provenance: Provenance) -> Tensors:
    """A store of one artefact of two files."""
    store = Tensors(tmp_path / "tensors")
    generator = torch.Generator().manual_seed(0)
    files = {
        f"shard-{n}.safetensors": {"W": torch.randn(40, 16, generator=generator)} for n in range(2)
    }
    store.write("attention_sae", "o.L00", files, provenance, {"scale": 0.5}, {"corpus": "c1"})
    return store


def flips(paths: list[Path], rng: random.Random) -> Iterator[Path]:
    """One after the other, single bits anywhere in the files turned over, and back again after."""
    for _ in range(FLIPS):
        path = rng.choice(paths)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        position = rng.randrange(8 * len(whole))
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        yield path
        path.write_bytes(whole)


def ways_to_read(lake: Lake, table: str) -> list[Callable[[], pl.DataFrame]]:
    return [
        lambda: lake.read(table).collect(),
        lambda: lake.sql(f"FROM {table}"),
        lambda: lake.query(f"FROM {table}", "organism"),
        lambda: lake.sql(f"FROM history.{table}"),
    ]


def test_no_flipped_bit_of_a_table_is_read(filled: Lake) -> None:
    tables = ("head_scores", "role_counts")
    whole = {name: filled.read(name).collect() for name in tables}
    for path in flips(sorted(filled.root.glob("[!.]*/*/*.parquet")), random.Random(0)):
        table = path.parent.parent.name
        for read in ways_to_read(filled, table):
            with pytest.raises(LakeError, match=rf"SHA-256.*{table}.*materialize") as error:
                read()
            assert str(path) in str(error.value)
    for name in tables:  # each is put back: what was refused is read again
        assert filled.read(name).collect().equals(whole[name])


def test_no_flipped_bit_of_an_artefact_is_read(store: Tensors) -> None:
    (folder,) = store.versions("attention_sae", "o.L00").values()

    def read() -> tuple[list[torch.Tensor], object]:
        artefact = store.open("attention_sae", "o.L00")
        tensors = [artefact.tensor(name, "W").clone() for name in artefact.files]
        return tensors, (artefact.info, artefact.manifest.inputs, artefact.provenance)

    tensors, said = read()
    refusals = []
    for _ in flips(sorted(folder.iterdir()), random.Random(1)):
        try:
            found, says = read()
        except ArtefactError as error:
            refusals.append(str(error))
        else:  # such as a space in the manifest
            assert all(one.equal(two) for one, two in zip(found, tensors, strict=True))
            assert says == said
    assert len(refusals) > FLIPS / 2
    assert all(str(folder) in message for message in refusals)


def test_a_manifest_that_says_something_else_is_refused(store: Tensors) -> None:
    (folder,) = store.versions("attention_sae", "o.L00").values()
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"scale": 0.5', '"scale": 0.7'))
    with pytest.raises(ArtefactError, match=r"manifest\.json is damaged.*materialize it again"):
        store.open("attention_sae", "o.L00")


def test_a_manifest_of_before_it_was_hashed_is_read(store: Tensors) -> None:
    (folder,) = store.versions("attention_sae", "o.L00").values()
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["sha256"]
    manifest.write_text(json.dumps({**content, "format": 1}))
    assert store.open("attention_sae", "o.L00").info == {"scale": 0.5}
    manifest.write_text(json.dumps({**content, "format": 1, "data_version": "0" * 64}))
    with pytest.raises(ArtefactError, match=r"manifest\.json is damaged"):
        store.open("attention_sae", "o.L00")


def _truncate(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def _remove(path: Path, other: Path) -> None:
    path.unlink()


def _swap(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def _other_rows(path: Path, other: Path) -> None:
    pl.read_parquet(path).head(3).write_parquet(path)


@pytest.mark.parametrize("damage", [_truncate, _empty, _remove, _swap, _other_rows])
def test_a_file_that_is_not_the_one_written_is_refused(
    filled: Lake, damage: Callable[[Path, Path], None]
) -> None:
    path, other = (filled.root / filled.current("head_scores", f"o.L0{n}").file for n in (1, 2))
    damage(path, other)
    with pytest.raises(LakeError, match=r"version 1 of head_scores for o\.L01: put") as error:
        filled.read("head_scores", "o.L01")
    assert str(path) in str(error.value)
    with pytest.raises(LakeError, match=r"head_scores for o\.L01"):
        filled.sql("SELECT count(*) FROM best_heads")
    assert filled.read("head_scores", "o.L00").collect().height == 200
    assert filled.sql("SELECT count(*) FROM role_counts").item() == 50


@pytest.mark.parametrize("damage", [_truncate, _empty, _remove, _other_rows])
def test_a_look_notices_another_size_or_number_of_rows(
    filled: Lake, damage: Callable[[Path, Path], None]
) -> None:
    path = filled.root / filled.current("head_scores", "o.L01").file
    damage(path, path)
    with pytest.raises(LakeError, match=r"head_scores for o\.L01"):
        filled.verify_tables(["head_scores"], content=False)
    filled.verify_tables(["role_counts"], content=False)


def test_a_wrong_number_of_rows_in_a_file_of_the_right_size_is_noticed(filled: Lake) -> None:
    with sqlite3.connect(filled.root / "ledger.sqlite") as con:
        con.execute("UPDATE versions SET row_count = 51 WHERE table_name = 'role_counts'")
    with pytest.raises(LakeError, match="has 50 rows instead of 51"):
        filled.verify_tables(["role_counts"], content=False)


def test_only_the_files_of_the_study_asked_about_are_compared(filled: Lake, scores: Scores) -> None:
    other = filled.write("head_scores", "q.L00", scores(0.5), Provenance("q", "r", "1"))
    other.path.write_bytes(b"x" * other.bytes)
    filled.verify_tables(["head_scores"], "organism")
    with pytest.raises(LakeError, match=r"head_scores for q\.L00"):
        filled.verify_tables(["head_scores"], "q")


def test_content_is_compared_once_until_the_file_changes(
    filled: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    original = whole_files.file_sha256

    def counted(path: Path) -> str:
        hashed.append(path)
        return original(path)

    monkeypatch.setattr(whole_files, "file_sha256", counted)
    files = [filled.root / v.file for v in filled._ledger.current("head_scores")]
    for path in files:
        os.utime(path, (1e9, 1e9))
    for _ in range(3):
        Lake(filled.root, sql=filled._sql).read("head_scores").collect()
    assert hashed == files
    files[0].write_bytes(files[0].read_bytes())
    filled.read("head_scores")
    assert hashed[3:] == [files[0]]


def test_a_file_that_is_damaged_right_after_it_was_compared_is_noticed(filled: Lake) -> None:
    """Within what the file system's clock tells apart: with the very same time."""
    path = filled.root / filled.current("role_counts", "o").file
    path.write_bytes(path.read_bytes())
    filled.read("role_counts")
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(LakeError, match="SHA-256"):
        filled.read("role_counts")


def forget_hashes(lake: Lake) -> None:
    """Turn the ledger into one of before files were hashed."""
    with sqlite3.connect(lake.root / "ledger.sqlite") as con:
        con.executescript(
            "DROP INDEX stored; DROP INDEX current; ALTER TABLE versions DROP COLUMN sha256"
        )


def test_a_ledger_without_hashes_is_read_and_its_files_are_checked_by_content(
    filled: Lake, provenance: Provenance, scores: Scores
) -> None:
    forget_hashes(filled)
    whole = filled.read("head_scores").collect()
    assert whole.height == 600
    assert filled.current("head_scores", "o.L00").sha256 is None
    path = filled.root / filled.current("head_scores", "o.L01").file
    content = path.read_bytes()
    frame = pl.read_parquet(path)
    frame.with_columns(value=pl.col("value") + 1e-9).write_parquet(path)
    altered = path.read_bytes().ljust(len(content), b"\0")
    for damaged in (bytes(reversed(content)), altered):
        path.write_bytes(damaged)
        with sqlite3.connect(filled.root / "ledger.sqlite") as con:
            con.execute("UPDATE versions SET bytes = ? WHERE partition = 'o.L01'", (len(damaged),))
        with pytest.raises(LakeError, match=r"is damaged.*head_scores for o\.L01"):
            filled.read("head_scores", "o.L01")
    path.write_bytes(content)
    with sqlite3.connect(filled.root / "ledger.sqlite") as con:
        con.execute("UPDATE versions SET bytes = ? WHERE partition = 'o.L01'", (len(content),))
    # A write adds what the ledger lacked; the older files still have no hash.
    filled.write("head_scores", "o.L02", scores(0.5), provenance)
    assert filled.current("head_scores", "o.L02").sha256 is not None
    assert filled.current("head_scores", "o.L01").sha256 is None
    assert [fault for _, fault in filled.verify()] == [None] * 5
    assert filled.current("head_scores", "o.L01").sha256 is not None


def test_verify_names_every_damaged_version_of_history_too(
    filled: Lake, provenance: Provenance, scores: Scores
) -> None:
    old = filled.root / filled.current("head_scores", "o.L00").file
    filled.write("head_scores", "o.L00", scores(0.5), provenance)
    gone = filled.root / filled.current("role_counts", "o").file
    gone.unlink()
    _swap(old, filled.root / filled.current("head_scores", "o.L01").file)
    found = {v.file: fault for v, fault in filled.verify()}
    assert len(found) == 5
    damaged = {file: fault for file, fault in found.items() if fault}
    assert damaged.keys() == {str(path.relative_to(filled.root)) for path in (old, gone)}
    with pytest.raises(LakeError, match="version 1 of head_scores"):
        filled.read_version(filled.versions("head_scores", "o.L00")[0])
