"""Corpora as the world has them: each is read as it stands, or refused with file and row."""

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mechinterp_assets.corpora import readers
from mechinterp_assets.corpora.readers import Document, read_documents
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.corpora.skipped_rows import CorpusError, SkippedRows
from mechinterp_assets.files import json_lines

FORMATS = {"text": ".txt", "jsonl": ".jsonl", "parquet": ".parquet"}
GOOD_LINE = b'{"text": "good"}\n'
packed = partial(gzip.compress, mtime=0)  # the same bytes each time
REPEATED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def documents(path: Path, format: str, **given: Any) -> list[Document]:
    """Documents in the order of reading."""
    source = CorpusSettings.model_validate(
        {"format": format, "path": path, "shuffle_buffer": 0, **given}
    )
    return list(read_documents(source))


def texts(path: Path, format: str, **given: Any) -> list[str]:
    return [document.text for document in documents(path, format, **given)]


def refusal(path: Path, format: str, **given: Any) -> str:
    with pytest.raises(CorpusError) as raised:
        documents(path, format, **given)
    message = str(raised.value)
    assert message.isprintable()
    return message


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_parquet(folder: Path, column: pa.Array, name: str = "x.parquet") -> Path:
    pq.write_table(pa.table({"text": column}), folder / name)
    return folder / name


# ---- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("mark.txt", b"\xef\xbb\xbfone", ["one"]),
        ("inner-mark.txt", "a\ufeffb".encode(), ["a\ufeffb"]),
        ("windows.txt", b"one\r\ntwo\rthree\n", ["one\ntwo\rthree\n"]),
        ("x.txt.gz", packed(b"one"), ["one"]),
        ("x.jsonl.gz", packed(GOOD_LINE), ["good"]),
        ("mark.jsonl", b"\xef\xbb\xbf" + GOOD_LINE, ["good"]),
        ("windows.jsonl", b'{"text": "a\\r\\nb"}\r\n\r\n{"text": "c"}\r\n', ["a\r\nb", "c"]),
        # Lines end with \n alone: these stand inside a string, where JSON allows them.
        ("separators.jsonl", '{"text": "a\u2028b\x85c"}\n'.encode(), ["a\u2028b\x85c"]),
        ("pair.jsonl", b'{"text": "\\ud83d\\ude00"}', ["\U0001f600"]),
        ("nul.jsonl", b'{"text": "a\\u0000b"}', ["a\0b"]),
        ("null-about.jsonl", b'{"text": "a", "title": null, "id": null}', ["a"]),
    ],
)
def test_texts_are_read_as_they_stand(
    tmp_path: Path, name: str, content: bytes, expected: list[str]
) -> None:
    format = "text" if ".txt" in name else "jsonl"
    assert texts(write(tmp_path, name, content), format) == expected
    assert texts(tmp_path, format) == expected


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()),
        *(pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.large_string())),
    ],
    ids=str,
)
def test_parquet_text_of_every_arrow_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = ["one", "zwei é", "one"]
    column = pa.array(values).cast(pa.binary() if "binary" in str(kind) else pa.string())
    file = write_parquet(tmp_path, column.cast(kind))
    assert texts(file, "parquet") == values


def test_columns_about_the_document_are_read_as_text(tmp_path: Path) -> None:
    table = {"blob": pa.array([b"\xff"]), "text": ["x"], "title": [7], "id": [0]}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    assert documents(tmp_path, "parquet") == [Document(doc_id="0", text="x", title="7")]


def test_half_characters_beside_the_text_are_escaped(tmp_path: Path) -> None:
    file = write(tmp_path, "x.jsonl", b'{"text": "x", "title": "a\\ud800", "id": "\\udfff"}')
    assert documents(file, "jsonl") == [Document(doc_id="\\udfff", text="x", title="a\\ud800")]


# ---- which files, in which order -----------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_equal_names_in_nested_folders_stay_apart(tmp_path: Path, format: str) -> None:
    ending = FORMATS[format]
    for place in ("b/x", "x", "a/x", "a/deep/x"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        file = tmp_path / f"{place}{ending}"
        if format == "parquet":
            write_parquet(file.parent, pa.array([place]), file.name)
        else:
            file.write_text(place if format == "text" else json.dumps({"text": place}))
    found = documents(tmp_path, format)
    assert [document.text for document in found] == ["a/deep/x", "a/x", "b/x", "x"]
    assert len({document.doc_id for document in found}) == 4
    if format == "text":
        assert [document.title for document in found] == ["a/deep/x", "a/x", "b/x", "x"]
        assert [document.source for document in found][:2] == ["a/deep/x.txt", "a/x.txt"]


def test_order_is_that_of_names_whatever_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("B.txt", "a.txt", "a-b/c.txt", "a/c.txt", "é.txt"):
        write(tmp_path, name, name.encode())
    expected = ["B.txt", "a/c.txt", "a-b/c.txt", "a.txt", "é.txt"]
    assert texts(tmp_path, "text") == expected
    scandir = os.scandir

    class Reversed:
        """os.scandir, last names first."""

        def __init__(self, path: Any) -> None:
            with scandir(path) as found:
                self._found = iter(sorted(found, key=lambda entry: entry.name, reverse=True))

        def __enter__(self) -> "Reversed":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def __iter__(self) -> "Reversed":
            return self

        def __next__(self) -> Any:
            return next(self._found)

    monkeypatch.setattr(os, "scandir", Reversed)
    assert texts(tmp_path, "text") == expected


def test_hidden_names_are_passed_over_and_endings_have_no_case(tmp_path: Path) -> None:
    for name in (".hidden.txt", ".git/x.txt", "sub/.x.txt", "READ.TXT", "x.text"):
        write(tmp_path, name, name.encode())
    assert texts(tmp_path, "text") == ["READ.TXT"]
    assert texts(tmp_path / ".hidden.txt", "text") == [".hidden.txt"]  # named outright


def test_a_linked_file_is_read_and_a_name_that_is_not_unicode_shown(tmp_path: Path) -> None:
    target = write(tmp_path, "elsewhere/x", b"linked")
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "link.txt").symlink_to(target)
    with open(os.fsencode(folder) + b"/\xff.txt", "wb") as odd:
        odd.write(b"odd")
    found = documents(folder, "text")
    assert [document.text for document in found] == ["linked", "odd"]
    assert [document.doc_id for document in found] == ["link.txt", "\\udcff.txt"]
    "".join(document.doc_id + document.title for document in found).encode()


# ---- rows without text ---------------------------------------------------------------------------

UNUSABLE = {
    "null": b'{"text": null}\n',
    "empty": b'{"text": " \\n"}\n',
    "not_unicode": b'{"text": "half \\ud800"}\n',
    "not_utf_8": b'{"text": "latin \xe9"}\n',
}


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_rows_without_text_are_counted_and_limited(tmp_path: Path, unusable: str) -> None:
    reason = "not_unicode" if unusable == "not_utf_8" else unusable

    def read(n_unusable: int, n_usable: int, **given: Any) -> SkippedRows:
        file = write(
            tmp_path, "x.jsonl", GOOD_LINE + UNUSABLE[unusable] * n_unusable + GOOD_LINE * n_usable
        )
        source = CorpusSettings.model_validate({"format": "jsonl", "path": file, **given})
        skipped = SkippedRows(source.max_skipped_share)
        assert len(list(read_documents(source, skipped))) == n_usable + 1
        return skipped

    assert dict(read(10, 0).counts) == {reason: 10}  # ten are always allowed
    assert dict(read(11, 1088).counts) == {reason: 11}  # exactly 1%
    if reason == "empty":  # data sets of lines have many blank ones
        assert dict(read(1000, 10).counts) == {reason: 1000}
        return
    with pytest.raises(CorpusError) as raised:
        read(11, 1087)
    assert f"of 1099 rows 11 without usable text (11 {reason.replace('_', ' ')})" in str(
        raised.value
    )
    assert "x.jsonl line 2 (" in str(raised.value)
    assert "max_skipped_share" in str(raised.value)
    assert read(11, 1087, max_skipped_share=0.02).n_usable == 1088


def test_rows_of_parquet_without_text_are_counted(tmp_path: Path) -> None:
    column = pa.array([None, b"", b"\xff\xfe", b"x"])
    file = write_parquet(tmp_path, column)
    source = CorpusSettings.model_validate({"format": "parquet", "path": file})
    skipped = SkippedRows(source.max_skipped_share)
    assert [(d.doc_id, d.text) for d in read_documents(source, skipped)] == [("x.parquet#3", "x")]
    assert dict(skipped.counts) == {"null": 1, "empty": 1, "not_unicode": 1}


def test_a_corpus_of_unusable_rows_alone_says_what_they_are(tmp_path: Path) -> None:
    file = write(tmp_path, "x.jsonl", UNUSABLE["null"] * 3)
    assert "no documents (rows: 3 without usable text (3 null): first" in refusal(file, "jsonl")


def test_reading_that_stops_early_is_checked_by_its_reader(tmp_path: Path) -> None:
    file = write(tmp_path, "x.jsonl", UNUSABLE["null"] * 20 + GOOD_LINE * 5)
    source = {"format": "jsonl", "path": file, "shuffle_buffer": 0}
    skipped = SkippedRows(0.01)
    stream = read_documents(CorpusSettings.model_validate(source), skipped)
    assert next(stream).text == "good"
    with pytest.raises(CorpusError, match="of 21 rows 20 without usable text"):
        skipped.check()
    assert "of 22 rows 20" in refusal(file, "jsonl", documents=2)


def test_rows_of_a_dataset_without_text_are_counted(tmp_path: Path) -> None:
    import datasets

    rows = [{"text": text} for text in ("one", None, "", "two")]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    source = CorpusSettings.model_validate(
        {"format": "huggingface", "path": tmp_path / "saved", "shuffle_buffer": 0}
    )
    skipped = SkippedRows(source.max_skipped_share)
    found = [(d.doc_id, d.text) for d in read_documents(source, skipped)]
    assert found == [("saved#0", "one"), ("saved#3", "two")]
    assert dict(skipped.counts) == {"null": 1, "empty": 1}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("train.jsonl", GOOD_LINE + b"[[", "(behind row|opened)"),
        ("train.parquet", b"PAR1 garbage", "(behind row|opened)"),
        ("train.jsonl", b'{"text": 3}', "row 0: text is int, not text"),
        ("train.jsonl", b'{"body": "x"}', r"no column 'text'; .* one of \['body'\]"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    write(tmp_path, name, content)
    message = refusal(tmp_path, "huggingface")
    assert str(tmp_path) in message
    assert re.search(expected, message)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.txt", b"one\n\xe9t\xe9", "x.txt:2: not UTF-8 (byte 0xe9); save it as UTF-8"),
        ("x.txt", "one".encode("utf-16"), "it begins as UTF-16 does); save it as UTF-8"),
        ("x.txt", "one".encode("utf-16-le"), "is no text (a null character); save it as UTF-8"),
        ("x.txt", "one".encode("utf-32"), "it begins as UTF-32 does"),
        ("x.txt.gz", packed(b"one" * 99)[:-9], "x.txt.gz: damaged ("),
        ("x.txt.gz", b"no gzip", "x.txt.gz: damaged ("),
        ("x.jsonl.gz", packed(GOOD_LINE) + b"tail", "x.jsonl.gz: damaged ("),
        ("x.jsonl", "{}".encode("utf-16"), "x.jsonl:1: not UTF-8 (it begins as UTF-16 does)"),
        ("x.jsonl", GOOD_LINE + b'{"text": "cut', "x.jsonl:2: not JSON (Unterminated string"),
        ("x.jsonl", GOOD_LINE + b"[" * 200_000, "x.jsonl:2: nested too deeply; flatten it"),
        ("x.jsonl", b'{"a":' * 200_000, "x.jsonl:1: nested too deeply; flatten it"),
        ("x.jsonl", b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "x.jsonl:1: not JSON (Exceeds"),
        ("x.jsonl", GOOD_LINE + b'["text"]', "x.jsonl:2: list, not a JSON object; write one a"),
        ("x.jsonl", b'{"text": "a\tb"}', "x.jsonl:1: not JSON (Invalid control character"),
        ("x.jsonl", b'{"text": 3}', "x.jsonl line 1: text is int, not text; correct"),
        ("x.jsonl", b'{"text": ["a"]}', "x.jsonl line 1: text is list, not text"),
        (
            "x.jsonl",
            b'{"body": "a", "n": 1}',
            "x.jsonl line 1 has no column 'text'; set corpus.text_column to one of ['body', 'n']",
        ),
        ("x.parquet", b"PAR1 garbage PAR1", "x.parquet: not a Parquet file, or damaged ("),
        ("x.parquet", b"", "x.parquet: not a Parquet file, or damaged ("),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_row(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    write(tmp_path, name, content)
    format = next(f for f, ending in FORMATS.items() if ending in name)
    assert expected in refusal(tmp_path, format)


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    rows = [f"text number {i} " * 20 for i in range(2000)]
    pq.write_table(
        pa.table({"text": rows}), file, row_group_size=500, write_page_checksum=True,
        use_dictionary=False,
    )  # fmt: skip
    content = bytearray(file.read_bytes())
    file.write_bytes(content[:-100])
    assert "x.parquet: not a Parquet file, or damaged (" in refusal(file, "parquet")
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    assert "x.parquet: damaged behind row " in refusal(file, "parquet")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"body": ["x"], "n": [1]}, "no column 'text'; set corpus.text_column to one of ['body'"),
        ({"text": [1, 2], "body": ["x", "y"]}, "'text' is int64, not text; set corpus.text_column"),
        ({"text": [1, 2], "body": ["x", "y"]}, "to one of ['body']"),
        ({"text": [["a"]]}, "is list<element: string>, not text"),
        ({"text": [{"a": "b"}]}, "is struct<a: string>, not text"),
    ],
)
def test_a_column_that_is_no_text_is_refused(
    tmp_path: Path, table: dict[str, Any], expected: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    assert expected in refusal(tmp_path, "parquet")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    pq.write_table(twice, tmp_path / "x.parquet")
    assert "column text is there twice; rename one" in refusal(tmp_path, "parquet")


def dangling(place: Path) -> None:
    place.symlink_to(place.parent / "gone")


def circle(place: Path) -> None:
    place.symlink_to(place)


def linked_folder(place: Path) -> None:
    place.symlink_to(place.parent)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (os.mkfifo, "not a file (a FIFO); name a"),
        (dangling, "link to nothing; correct the path"),
        (circle, "not readable ("),
        (linked_folder, "is a link to a folder, which is not followed"),
        (lambda place: place.symlink_to("/dev/zero"), "not a file (a device)"),
        (lambda place: None, "has no file like *."),
    ],
)
def test_what_is_no_file_is_answered_at_once(
    tmp_path: Path, format: str, make: Callable[[Path], None], expected: str
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    make(folder / f"x{FORMATS[format]}")
    assert expected in refusal(folder, format)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert "gone.txt does not exist; correct corpus.path" in refusal(tmp_path / "gone.txt", "text")
    dangling(tmp_path / "x.txt")
    assert "link to nothing" in refusal(tmp_path / "x.txt", "text")


@pytest.mark.parametrize("format", FORMATS)
def test_files_and_folders_without_permission(tmp_path: Path, format: str) -> None:
    locked = write(tmp_path, f"sub/x{FORMATS[format]}", b"x")
    with without_rights(locked):
        assert "not readable (Permission denied)" in refusal(locked, format)
    with without_rights(locked.parent):
        for path in (tmp_path, locked):
            assert "is not readable (Permission denied)" in refusal(path, format)


@contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Within the block nobody, not even root's own process, may read the path."""
    is_root = os.geteuid() == 0
    # Root becomes somebody else, who can come as far as the path.
    closed = [p for p in path.parents if is_root and p.stat().st_mode & 0o005 != 0o005]
    modes = {p: p.stat().st_mode for p in (path, *closed)}
    path.chmod(0)
    for parent in closed:
        parent.chmod(modes[parent] | 0o005)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for changed, mode in modes.items():
            changed.chmod(mode)


def test_files_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 64)
    monkeypatch.setattr(readers, "MAX_TEXT_FILE_BYTES", 64)
    line = json.dumps({"text": "x" * 52}).encode()
    assert len(line) == 64
    assert texts(write(tmp_path, "x.jsonl", line + b"\n" + GOOD_LINE), "jsonl")[1:] == ["good"]
    long = write(tmp_path, "y.jsonl", GOOD_LINE + line + b"  \n")
    assert "y.jsonl:2: a line of more than 64 bytes; split it" in refusal(long, "jsonl")
    assert texts(write(tmp_path, "x.txt", b"x" * 64), "text") == ["x" * 64]
    bomb = write(tmp_path, "bomb.txt.gz", packed(b"x" * 1_000_000))
    assert "bomb.txt.gz: more than 64 bytes; split the file" in refusal(bomb, "text")


# ---- properties ----------------------------------------------------------------------------------

# Every character but the halves of surrogate pairs, which are no characters.
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@REPEATED
@given(rows=st.lists(UNICODE, min_size=1, max_size=5))
def test_any_unicode_text_survives_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    for ascii in (True, False):
        lines = "\n".join(json.dumps({"text": row}, ensure_ascii=ascii) for row in rows)
        assert texts(write(folder, "x.jsonl", lines.encode()), "jsonl") == rows
    assert texts(write(folder, "x.jsonl.gz", packed(lines.encode())), "jsonl") == rows
    assert texts(write_parquet(folder, pa.array(rows)), "parquet") == rows
    for row in rows:
        if "\0" not in row:
            unmarked = row.removeprefix("\ufeff").replace("\r\n", "\n")
            if unmarked.strip():
                assert texts(write(folder, "x.txt", row.encode()), "text") == [unmarked]


@REPEATED
@given(content=st.binary(max_size=200), cut=st.integers(0, 400), ending=st.sampled_from(
    [".txt", ".jsonl", ".parquet", ".txt.gz", ".jsonl.gz"]
))  # fmt: skip
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int, ending: str
) -> None:
    """As the whole of a file, and put into a good one."""
    folder = tmp_path_factory.mktemp("corpus")
    if ending == ".parquet":
        good = write_parquet(folder, pa.array(["one", "two"])).read_bytes()
    else:
        good = GOOD_LINE * 3
        good = packed(good) if ending.endswith(".gz") else good
    format = next(f for f, known in FORMATS.items() if known in ending)
    for whole in (content, good[:cut] + content + good[cut:], good[:cut] + content):
        file, message = write(folder, f"file{ending}", whole), ""
        try:
            found = texts(file, format)
        except CorpusError as error:
            found, message = [], str(error)
        assert file.name in message or found
        assert all(text.encode() for text in found)
