"""Label files as people's programs write them: read, or refused by file and line."""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mechinterp_assets.labels.features import read_labels
from mechinterp_assets.labels.files import LabelError, LabelledSae, read_label_files
from mechinterp_assets.labels.heads import COLUMNS as HEAD_COLUMNS
from mechinterp_assets.labels.heads import read_head_labels

HEADER = "rater,study,layer,feature,label,verdict,note\n"
LINE = "ann,mine,0,1,x,yes,\n"
SAES = {0: LabelledSae(10, "aaaa")}
REPEATED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(*files: Path) -> list[dict[str, object]]:
    return read_labels(read_label_files(files), "mine", SAES).to_dicts()


def refusal(*files: Path) -> str:
    with pytest.raises(LabelError) as raised:
        rows(*files)
    message = str(raised.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    "content",
    [
        (HEADER + LINE).encode("utf-8-sig"),
        (HEADER + LINE).replace("\n", "\r\n").encode(),
        (HEADER + LINE).rstrip("\n").encode(),
        (HEADER + "\n" + LINE + "\n\n").encode(),
        (HEADER.strip() + ",,\n" + LINE.strip() + ",,\n").encode(),  # as spreadsheets pad lines
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, content: bytes) -> None:
    (row,) = rows(write(tmp_path, "l.csv", content))
    assert (row["rater"], row["feature"], row["label"], row["verdict"]) == ("ann", 1, "x", "yes")
    assert row["file"] == "l.csv"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER.encode() + "ann,mine,0,1,é,yes,\n".encode("latin-1"), ":2: not UTF-8 (byte 0xe9)"),
        ((HEADER + LINE).encode("utf-16"), ":1: not UTF-8 (it begins as UTF-16 does); save it as"),
        ((HEADER + LINE).encode("utf-16-le"), ":1: a null character; save it as CSV in UTF-8"),
        (HEADER + LINE + "ann,mine,0,2,\0,yes,\n", ":3: a null character"),
        (HEADER.strip() + ",label\nann,mine,0,1,x,yes,,y\n", ":1: column label is there twice"),
        (HEADER + 'ann,mine,0,1,"x" y,yes,\n', ":2: not CSV ("),
        ('rater,"study\n', ":1: not CSV ("),
        (HEADER + f"ann,mine,0,1,{'x' * 200_000},yes,\n", ":2: not CSV (field larger than"),
        ("f" * 200_000, ":1: not CSV (field larger than"),
        (HEADER + "ann,mine,0," + "9" * 5000 + ",x,yes,\n", ":2: feature is '999"),
        (HEADER + "ann,mine," + "9" * 5000 + ",1,x,yes,\n", ":2: layer is '999"),
        (HEADER + "ann,mine,0,١,x,yes,\n", ":2: feature is '١'; write a whole number from 0"),
        (HEADER + "ann,mine,0,10,x,yes,\n", ":2: feature 10 does not exist; layer 0 has features"),
        (HEADER + "ann,mine,1,1,x,yes,\n", ":2: layer 1 has no SAE in mine"),
        (HEADER + LINE.strip() + ",z\n", ":2: 8 cells do not fit the header's 7; quote"),
        (HEADER.replace(",", ";") + LINE.replace(",", ";"), ":1: no column rater, study, layer"),
        ("", ":1: no column rater, study"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes | str, expected: str) -> None:
    message = refusal(write(tmp_path, "l.csv", content))
    assert f"l.csv{expected}" in message


def dangling(place: Path) -> None:
    place.symlink_to(place.parent / "gone")


def circle(place: Path) -> None:
    place.symlink_to(place)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (os.mkfifo, "not a file (a FIFO); name a CSV file"),
        (dangling, "link to nothing; correct the path"),
        (circle, "not readable ("),
        (Path.mkdir, "not a file (a folder)"),
        (lambda place: None, "no such file; correct the path"),
    ],
)
def test_what_is_no_file_is_answered_at_once(
    tmp_path: Path, make: Callable[[Path], None], expected: str
) -> None:
    make(tmp_path / "l.csv")
    assert f"l.csv: {expected}" in refusal(tmp_path / "l.csv")


def test_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    names = ["ann/labels.csv", "bob/labels.csv", "other.csv", "deep/bob/labels.csv"]
    files = [
        write(tmp_path, name, HEADER + LINE.replace("ann", f"rater {number}"))
        for number, name in enumerate(names)
    ]
    found = {(row["rater"], row["file"]) for row in rows(*files[:3])}
    assert found == {
        ("rater 0", "ann/labels.csv"),
        ("rater 1", "bob/labels.csv"),
        ("rater 2", "other.csv"),
    }
    assert len({row["file"] for row in rows(*files)}) == 4
    assert rows(files[0])[0]["file"] == "labels.csv"


def test_a_file_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "l.csv", HEADER + LINE)
    (tmp_path / "link.csv").symlink_to(file)
    for other in (file, tmp_path / "link.csv", tmp_path / "x" / ".." / "l.csv"):
        assert "is listed twice (as " in refusal(file, other)


def test_head_labels_are_held_to_the_same(tmp_path: Path) -> None:
    header = ",".join(HEAD_COLUMNS)

    def read(content: str) -> list[dict[str, object]]:
        files = read_label_files([write(tmp_path, "h.csv", content)])
        return read_head_labels(files, "mine", 4, SAES).to_dicts()

    line = "ann,mine,0,3,,a head,bisemantic,"
    assert read(f"\ufeff{header}\r\n{line}\r\n")[0]["class"] == "bisemantic"
    for content, expected in (
        (f"{header},class\n{line},x\n", "h.csv:1: column class is there twice"),
        (f"{header}\n{line}\0\n", "h.csv:2: a null character"),
        (f"{header}\n{line.replace(',3,', ',4,')}\n", "h.csv:2: head L0H4 does not exist"),
    ):
        with pytest.raises(LabelError) as raised:
            read(content)
        assert expected in str(raised.value)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@REPEATED
@given(labels=st.lists(TEXT, min_size=1, max_size=5))
def test_any_text_of_a_rater_is_kept(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str]
) -> None:
    """As written by a CSV writer, but for space around a cell."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(HEADER.strip().split(","))
    for feature, label in enumerate(labels):
        writer.writerow(["ann", "mine", "0", feature, label, "yes", label])
    file = write(tmp_path_factory.mktemp("labels"), "l.csv", out.getvalue())
    found = rows(file)
    assert [row["label"] for row in found] == [label.strip() for label in labels]
    assert [row["note"] for row in found] == [label.strip() for label in labels]


@REPEATED
@given(content=st.binary(max_size=100), cut=st.integers(0, 80))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int
) -> None:
    good = (HEADER + LINE).encode()
    folder = tmp_path_factory.mktemp("labels")
    for whole in (content, good[:cut] + content + good[cut:]):
        file, message = write(folder, "l.csv", whole), ""
        try:
            rows(file)
        except LabelError as error:
            message = str(error)
        assert not message or "l.csv" in message
