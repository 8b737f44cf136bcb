"""Files of a user's prompts as programs write them: read as they stand, or refused by row."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mechinterp_assets.prompts.ioi import PromptError
from mechinterp_assets.prompts.user import SUFFIXES, Example, read_examples

HEADER = b"text,answer,wrong\n"
EXPECTED = [Example("It is", " so", (" no",))]
REPEATED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def refusal(file: Path) -> str:
    with pytest.raises(PromptError) as raised:
        read_examples(file)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", b"\xef\xbb\xbf" + HEADER + b"It is, so, no\n"),
        ("p.csv", HEADER.replace(b"\n", b"\r\n") + b"It is, so, no\r\n"),
        ("p.csv", b"wrong,text,answer\n no,It is, so\n"),
        ("p.jsonl", b'\xef\xbb\xbf{"text": "It is", "answer": " so", "wrong": " no"}\r\n\r\n'),
        ("p.jsonl", b'{"text": "It is", "answer": " so", "wrong": [" no"]}'),
    ],
)
def test_what_programs_write_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    assert read_examples(write(tmp_path, name, content)) == EXPECTED


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_parquet_text_of_every_arrow_type(tmp_path: Path, kind: pa.DataType) -> None:
    cells = {"text": "It is", "answer": " so", "wrong": " no"}
    columns = {name: pa.array([cell]).cast(kind) for name, cell in cells.items()}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert read_examples(tmp_path / "p.parquet") == EXPECTED


def test_a_key_that_only_a_late_row_has_is_read(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "answer": " a"} for i in range(300)]
    rows.append({"text": "late", "answer": " a", "wrong": " b"})
    file = write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert read_examples(file)[-1] == Example("late", " a", (" b",))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.csv", HEADER + b"a\xe9, b, c\n", "p.csv:2: not UTF-8 (byte 0xe9)"),
        ("p.csv", "text\na\n".encode("utf-16"), "p.csv:1: not UTF-8 (it begins as UTF-16 does)"),
        ("p.csv", HEADER + b"a\0, b, c\n", "p.csv:2: a null character"),
        ("p.csv", b"text,answer,answer\na, b, c\n", "p.csv:1: column answer is there twice"),
        ("p.csv", HEADER + b"a, b\n", "p.csv:2: 2 cells do not fit the header's 3"),
        ("p.csv", HEADER + b"a, b, c, d\n", "p.csv:2: 4 cells do not fit the header's 3"),
        ("p.csv", HEADER + b'"a, b, c\n', "p.csv:2: not CSV ("),
        ("p.csv", b"", "no column 'text'; it has []"),
        ("p.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "p.jsonl:2: not UTF-8 (byte 0xff)"),
        ("p.jsonl", b'{"text": "\\ud800"}', "p.jsonl:1: '\\ud800' is not Unicode"),
        ("p.jsonl", b'{"text": "a"}\n{"text"', "p.jsonl:2: not JSON ("),
        ("p.jsonl", b"[" * 100_000, "p.jsonl:1: nested too deeply"),
        ("p.jsonl", b'{"text": "a", "answer": ["b"]}', "p.jsonl:1: ['b'] is no text"),
        ("p.jsonl", b'{"text": "a", "wrong": [1]}', "p.jsonl:1: 1 is no text"),
        ("p.jsonl", b'{"text": "a"}\n{"text": "b", "x": 1}', "unknown column 'x'"),
        ("p.parquet", b"PAR1 garbage", "p.parquet: not a Parquet file, or damaged ("),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    assert expected in refusal(write(tmp_path, name, content))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (os.mkfifo, "not a file (a FIFO)"),
        (lambda place: place.symlink_to(place.parent / "gone"), "link to nothing"),
        (Path.mkdir, "not a file (a folder)"),
    ],
)
def test_what_is_no_file_is_answered_at_once(
    tmp_path: Path, suffix: str, make: Callable[[Path], None], expected: str
) -> None:
    make(tmp_path / f"p{suffix}")
    assert f"p{suffix}: {expected}" in refusal(tmp_path / f"p{suffix}")


@REPEATED
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_any_unicode_text_survives_jsonl_and_parquet(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    expected = [Example(text) for text in texts]
    assert read_examples(write(folder, "p.jsonl", lines.encode())) == expected
    pq.write_table(pa.table({"text": texts}), folder / "p.parquet")
    assert read_examples(folder / "p.parquet") == expected


@REPEATED
@given(content=st.binary(max_size=100), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    file = write(tmp_path_factory.mktemp("prompts"), f"p{suffix}", content)
    message = ""
    try:
        read_examples(file)
    except PromptError as error:
        message = str(error)
    assert not message or file.name in message
