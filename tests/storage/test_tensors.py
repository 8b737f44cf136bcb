"""Artefacts in the tensor store: whole or absent, checked when opened, never changed."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mechinterp_assets.resources.tensors import TensorsResource
from mechinterp_assets.storage.manifest import ArtefactError
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.tensors import Artefact, PublishedTensors, Scratch, Tensors

WEIGHTS = "weights.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> Tensors:
    """An empty store."""
    return Tensors(tmp_path / "tensors")


def publish(
    store: Tensors, provenance: Provenance, scale: float = 1.0, partition: str = "o.L00"
) -> PublishedTensors:
    with store.writer("attention_sae", partition, provenance, {"k": 4}, {"corpus": "c1"}) as writer:
        writer.add(WEIGHTS, {"W_dec": scale * torch.arange(12.0).reshape(3, 4), "b": torch.ones(3)})
        writer.add("more.safetensors", {"z": torch.ones(2, 2, dtype=torch.bfloat16)})
        writer.add_bytes("cfg.json", b'{"d_sae": 3}')
    return writer.published


def test_what_is_written_is_read_back(store: Tensors, provenance: Provenance) -> None:
    done = publish(store, provenance)
    assert done.path == store.root / "attention_sae" / "o.L00" / "v00000001-01234567"
    artefact = store.open("attention_sae", "o.L00")
    assert artefact.files == ["cfg.json", "more.safetensors", WEIGHTS]
    assert artefact.tensor(WEIGHTS, "W_dec").equal(torch.arange(12.0).reshape(3, 4))
    assert artefact.slice(WEIGHTS, "W_dec")[1:3, :2].equal(torch.tensor([[4.0, 5], [8, 9]]))
    assert artefact.load("more.safetensors")["z"].dtype == torch.bfloat16
    assert json.loads(artefact.file("cfg.json").read_text()) == {"d_sae": 3}
    assert (artefact.info, artefact.provenance) == ({"k": 4}, provenance)
    assert artefact.manifest.inputs == {"corpus": "c1"}
    assert (
        artefact.data_version == done.data_version == store.data_version("attention_sae", "o.L00")
    )
    entry = artefact.manifest.files[WEIGHTS]
    assert (entry.tensors["W_dec"].shape, entry.tensors["W_dec"].dtype) == ((3, 4), "F32")
    assert done.bytes == sum(artefact.file(name).stat().st_size for name in artefact.files)


def test_equal_content_has_equal_data_versions(store: Tensors, provenance: Provenance) -> None:
    first = publish(store, provenance)
    again = publish(store, Provenance("organism", "another", "code-8"))
    other = publish(store, provenance, scale=2.0)
    assert first.data_version == again.data_version != other.data_version
    assert list(store.versions("attention_sae", "o.L00")) == [1, 2, 3]
    assert store.open("attention_sae", "o.L00").version == 3
    assert store.open("attention_sae", "o.L00", 1).data_version == first.data_version


def test_any_strides_and_shared_storage_can_be_written(
    store: Tensors, provenance: Provenance
) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "t": whole.T,
        "row": whole[1],
        "whole": whole,
        "grad": whole.clone().requires_grad_(),
    }
    store.write("kind", "p", {WEIGHTS: tensors}, provenance)
    read = store.open("kind", "p").load(WEIGHTS)
    assert all(read[name].equal(tensor) for name, tensor in tensors.items())


def test_an_exception_leaves_nothing(store: Tensors, provenance: Provenance) -> None:
    publish(store, provenance)

    def write_bad() -> None:
        with store.writer("attention_sae", "o.L00", provenance) as writer:
            path = writer.add(WEIGHTS, {"W_dec": torch.zeros(1)})
            assert path.exists()
            raise ArithmeticError("the reloaded SAE has another L0")

    with pytest.raises(ArithmeticError):
        write_bad()
    assert store.open("attention_sae", "o.L00").version == 1
    assert list((store.root / ".work").iterdir()) == []


def test_writers_side_by_side_publish_what_is_their_own(
    store: Tensors, provenance: Provenance
) -> None:
    with (
        store.writer("cache", "o.L00", provenance) as one,
        store.writer("cache", "o.L01", provenance) as two,
    ):
        for index in range(3):
            one.add(f"shard-{index}.safetensors", {"z": torch.full((2,), float(index))})
            two.add(f"shard-{index}.safetensors", {"z": torch.full((2,), -float(index))})
        two.info["shards"] = 3
    assert store.open("cache", "o.L00").tensor("shard-2.safetensors", "z").tolist() == [2, 2]
    assert store.open("cache", "o.L01").tensor("shard-2.safetensors", "z").tolist() == [-2, -2]
    assert store.open("cache", "o.L01").info == {"shards": 3}


def test_misuse_of_a_writer_is_an_error(store: Tensors, provenance: Provenance) -> None:
    with pytest.raises(ArtefactError, match="no file was added"):
        store.write("kind", "p", {}, provenance)
    with store.writer("kind", "p", provenance) as writer:
        with pytest.raises(ArtefactError, match="before the writer"):
            _ = writer.published
        for name in ("../a.safetensors", "manifest.json", ".hidden"):
            with pytest.raises(ArtefactError, match="cannot name a file"):
                writer.path(name)
        with pytest.raises(ArtefactError, match=r"must end in \.safetensors"):
            writer.add("a.bin", {})
        writer.add_bytes("cfg.json", b"{}")
        with pytest.raises(ArtefactError, match="already added"):
            writer.add_bytes("cfg.json", b"{}")
    with (
        pytest.raises(ArtefactError, match="cannot name a folder"),
        store.writer("../kind", "p", provenance),
    ):
        pass


def test_what_is_not_there_says_what_is(store: Tensors, provenance: Provenance) -> None:
    with pytest.raises(ArtefactError, match="materialize the asset attention_sae"):
        store.open("attention_sae", "o.L00")
    with pytest.raises(ArtefactError, match="materialize the asset attention_sae"):
        store.data_version("attention_sae", "o.L00")
    assert not store.exists("attention_sae", "o.L00")
    publish(store, provenance)
    assert store.exists("attention_sae", "o.L00")
    with pytest.raises(ArtefactError, match="no version 4; there are 1"):
        store.open("attention_sae", "o.L00", 4)
    artefact = store.open("attention_sae", "o.L00")
    with pytest.raises(ArtefactError, match=r"no file other\.safetensors; it has cfg\.json"):
        artefact.file("other.safetensors")
    with pytest.raises(ArtefactError, match="no tensor W; it has W_dec, b"):
        artefact.tensor(WEIGHTS, "W")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 8)


def _rename_tensor(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"W_dec"', b'"W_enc"'))


def _break_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


@pytest.mark.parametrize("damage", [_truncate, _grow, _rename_tensor, _break_header, Path.unlink])
def test_a_damaged_file_is_named_when_opened(
    store: Tensors, provenance: Provenance, damage: object
) -> None:
    path = publish(store, provenance).path / WEIGHTS
    assert callable(damage)
    damage(path)
    with pytest.raises(ArtefactError, match="materialize it again") as error:
        store.open("attention_sae", "o.L00")
    assert str(path) in str(error.value)


def test_a_changed_value_is_found_by_its_hash(store: Tensors, provenance: Provenance) -> None:
    path = publish(store, provenance).path / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="SHA-256") as error:
        store.open("attention_sae", "o.L00")
    assert str(path) in str(error.value)
    store.open("attention_sae", "o.L00", verify=False)  # shapes are as they were


@pytest.mark.parametrize(
    "content", [None, b"{", b"[]", b'{"format": 9}', b'{"format": 1}', b"\xff"]
)
def test_a_damaged_manifest_is_named(
    store: Tensors, provenance: Provenance, content: bytes | None
) -> None:
    manifest = publish(store, provenance).path / "manifest.json"
    if content is None:
        manifest.unlink()
    else:
        manifest.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"manifest\.json") as error:
        store.open("attention_sae", "o.L00")
    assert "materialize" in str(error.value)


def test_superseded_versions_go_after_their_time(
    store: Tensors, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("mechinterp_assets.storage.tensors.time", SimpleNamespace(time=lambda: now))
    first = publish(store, provenance)
    held = store.open("attention_sae", "o.L00")
    held.slice(WEIGHTS, "W_dec")
    publish(store, provenance)
    now += store.keep_seconds - 60
    publish(store, provenance)
    assert first.path.exists()
    now += 120
    publish(store, provenance)
    assert not first.path.exists()
    assert list(store.versions("attention_sae", "o.L00"))[-1] == 4
    assert held.slice(WEIGHTS, "W_dec")[2, 3] == 11.0  # still mapped


def _save_half_a_file(scratch: Scratch) -> None:
    with scratch.replacing("step.safetensors") as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError


def test_checkpoints_outlive_the_work_they_belong_to(store: Tensors) -> None:
    with store.scratch("attention_sae", "o.L00") as scratch:
        assert scratch.load("step.safetensors") is None
        for step in range(3):
            scratch.save("step.safetensors", {"w": torch.full((2,), float(step))}, {"step": step})
        assert [path.name for path in scratch.folder.iterdir() if path.name[0] != "."] == [
            "step.safetensors"
        ]
    with store.scratch("attention_sae", "o.L00") as scratch:
        loaded = scratch.load("step.safetensors")
        assert loaded is not None
        assert (loaded[0]["w"].tolist(), loaded[1]) == ([2.0, 2.0], {"step": 2})
        with pytest.raises(ZeroDivisionError):
            _save_half_a_file(scratch)
        assert scratch.load("step.safetensors") is not None
        (scratch.folder / "step.safetensors").write_bytes(b"half a file")
        with pytest.raises(ArtefactError, match="delete it to start from step 0"):
            scratch.load("step.safetensors")
        scratch.clear()
        assert scratch.load("step.safetensors") is None
    assert not store.exists("attention_sae", "o.L00")


HOLD = """
import sys
from mechinterp_assets.resources.tensors import Tensors
with Tensors(sys.argv[1]).scratch("attention_sae", "o.L00"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_two_runs_do_not_share_checkpoints(store: Tensors) -> None:
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ArtefactError, match="another run is at work"),
            store.scratch("attention_sae", "o.L00"),
        ):
            pass
        with store.scratch("attention_sae", "o.L01"):
            pass
        other.kill()
    with store.scratch("attention_sae", "o.L00"):  # the lock died with its holder
        pass


def test_the_resource_gives_a_store(tmp_path: Path, provenance: Provenance) -> None:
    resource = TensorsResource(root=str(tmp_path), keep_seconds=5.0)
    assert resource.tensors.keep_seconds == 5.0
    publish(resource.tensors, provenance)
    assert isinstance(resource.tensors.open("attention_sae", "o.L00"), Artefact)
