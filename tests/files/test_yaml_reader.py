"""The YAML reader: what values are, and one plain line for every file that cannot be read."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from mechinterp_assets.files.yaml_reader import MAX_BYTES, YamlError, read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return file


@pytest.mark.parametrize(
    ("written", "value"),
    [
        # YAML 1.2, section 10.3.2: the core schema
        *((word, None) for word in ("", "~", "null", "Null", "NULL")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, word) for word in ("on", "off", "yes", "no", "On", "NO", "y", "nULL", "tRUE")),
        ("02000", 2000),
        ("-012", -12),
        ("+3", 3),
        ("0o17", 15),
        ("0x1F", 31),
        ("0o9", "0o9"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01 10:00:00", "2020-01-01 10:00:00"),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("'3'", "3"),
        ('"true"', "true"),
        ("'~'", "~"),
        ("=", "="),
        ("inf", "inf"),
        ("nan", "nan"),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, written: str, value: Any) -> None:
    read = read_yaml(write(tmp_path, f"a: {written}\n"))["a"]
    assert type(read) is type(value)
    assert read == value


def test_structures_keys_blocks_and_documents(tmp_path: Path) -> None:
    text = "---\n2: [1, {a: b}]\non: |\n  x\n  12\n'<<': 1\n..."
    assert read_yaml(write(tmp_path, text)) == {2: [1, {"a": "b"}], "on": "x\n12\n", "<<": 1}
    assert read_yaml(write(tmp_path, "")) is None
    assert read_yaml(write(tmp_path, "# only a remark")) is None


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, b"\xef\xbb\xbfa: 1")) == {"a": 1}


def test_an_alias_is_a_copy(tmp_path: Path) -> None:
    read = read_yaml(write(tmp_path, "a: &x [1, {b: 2}]\nc: *x\n"))
    assert read == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}
    assert read["a"] is not read["c"]
    assert read["a"][1] is not read["c"][1]


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
# Few aliases, each of a structure that holds the one before twice: 2^20 values.
DOUBLING = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 21))


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (BOMB, 7, "more than 50 aliases (*a5); write the values out"),
        (DOUBLING, None, "more than 100,000 values with aliases written out"),
        ("a: 1\nb: &x [*x]", 2, "an alias stands for what it is part of; remove it"),
        ("a: *b", 1, "undefined alias 'b'"),
        ("a: 1\nb: 2\na: 3\n", 3, "key a is there twice (first in line 1); remove one"),
        ("x:\n  1: a\n  01: b", 3, "key 1 is there twice (first in line 2)"),
        ("true: 1\n1: 2", 2, "key 1 is there twice"),
        ("? [1]\n: 2", 1, "a key is a list or a mapping"),
        ("a: 1\n<<: {b: 1}", 2, "merge keys (<<) are not part of YAML 1.2"),
        *((f"a: {x}", 1, f"not a finite number ({x})") for x in (".nan", ".inf", "-.INF", "1e999")),
        ("a: 18446744073709551616", 1, "more than 64 bits (18446744073709551616)"),
        ("a: " + "9" * 100_000, 1, "more than 64 bits (999"),
        ("[" * 100_000, 1, "nested deeper than 50 levels; flatten it"),
        ("{a: " * 100_000, 1, "nested deeper than 50 levels"),
        ("- " * 100_000, 1, "nested deeper than 50 levels"),
        ("? " * 100_000, 1, "nested deeper than 50 levels"),
        ("[" + "1," * 110_000 + "]", 1, "more than 100,000 values; split the file"),
        ("a: [", 1, "not YAML (while parsing a flow node"),
        ("a: 'x\n\n", 3, "unexpected end of stream"),
        ("a: b: c", 1, "mapping values are not allowed here"),
        ("a:\n\t- b", 2, "cannot start any token"),
        ("a: 1\n---\nb: 1\n", 2, "another document"),
        ("a: 1\nb: \x01", 2, "a character that YAML does not allow (U+0001); remove it"),
        ('a: "\\UFFFFFFFF"', 1, "not YAML"),
        ('a: "\\ud800"', 1, "half a character"),
        ("a: !!python/object/apply:os.system [x]", 1, "tags are not read (!!python/object/apply"),
        ("a: !!float .nan", 1, "tags are not read (!!float); remove it"),
        ("a: !!timestamp 2020-01-01", 1, "tags are not read (!!timestamp)"),
        ("a: !!set {b}", 1, "tags are not read (!!set)"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8 (byte 0xff); save it as UTF-8"),
        ("a: 1".encode("utf-16"), 1, "not UTF-8"),
        (b"#" * (MAX_BYTES + 1), None, "more than 1,048,576 bytes; split the file"),
    ],
)
def test_a_wrong_text_is_one_line_with_its_place_and_a_remedy(
    tmp_path: Path, text: str | bytes, line: int | None, expected: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(YamlError) as raised:
        read_yaml(file)
    message = str(raised.value)
    assert message.startswith(str(file) if line is None else f"{file}:{line}: ")
    assert expected in message
    assert message.isprintable()
    assert len(message) < len(str(file)) + 300


def dangling(place: Path) -> None:
    place.symlink_to(place.parent / "gone.yaml")


def circle(place: Path) -> None:
    place.symlink_to(place)


def listening(place: Path) -> None:
    here = os.getcwd()
    os.chdir(place.parent)  # the name of a socket may have 107 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place.name)
    os.chdir(here)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (os.mkfifo, "not a file (a FIFO); name a YAML file"),
        (lambda place: place.symlink_to("/dev/zero"), "not a file (a device)"),
        (lambda place: place.symlink_to("/dev/stdin"), "not a file"),
        (Path.mkdir, "not a file (a folder); name a YAML file"),
        (listening, "not a file (a socket)"),
        (dangling, "link to nothing; correct the path"),
        (circle, "not readable ("),
        (lambda place: None, "no such file; correct the path"),
    ],
)
def test_what_is_no_file_is_answered_at_once(tmp_path: Path, make: Any, expected: str) -> None:
    place = tmp_path / "x.yaml"
    make(place)
    if expected == "not a file" and Path("/dev/stdin").resolve().is_file():
        pytest.skip("the standard input of this test is a file")
    started = time.monotonic()
    with pytest.raises(YamlError) as raised:
        read_yaml(place)
    assert time.monotonic() - started < 5  # not a measurement: it would wait for ever
    assert str(raised.value).startswith(f"{place}: {expected}")


def test_a_file_name_cannot_break_the_line(tmp_path: Path) -> None:
    file = tmp_path / "x\n\x1b[31m.yaml"
    file.write_text("[")
    with pytest.raises(YamlError) as raised:
        read_yaml(file)
    assert "x\\n\\x1b[31m.yaml:1: not YAML" in str(raised.value)
    assert str(raised.value).isprintable()
