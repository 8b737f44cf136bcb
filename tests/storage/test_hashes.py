"""Equal content has equal data versions, however it is held in memory; other content has others."""

import hashlib
import struct

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.storage.hashes import ContentHash, content_hash

VALUES = {
    "b": pl.Series([True, None, False], dtype=pl.Boolean),
    "i": pl.Series([1, None, -3], dtype=pl.Int32),
    "f": pl.Series([0.5, None, float("nan")], dtype=pl.Float64),
    "s": pl.Series(["α", None, ""], dtype=pl.String),
    "l": pl.Series([[1.0, None], None, []], dtype=pl.List(pl.Float32)),
    "ls": pl.Series([["a", "bc"], None, [None, ""]], dtype=pl.List(pl.String)),
}


def test_chunks_slices_and_hidden_values_do_not_matter() -> None:
    frame = pl.DataFrame(VALUES)
    longer = pl.concat([frame.reverse(), frame])  # two chunks, of which a slice is taken
    assert content_hash(longer.slice(3)) == content_hash(frame)
    assert content_hash(frame.head(1).vstack(frame.tail(2))) == content_hash(frame)
    # A null over a value that is still in the buffer.
    masked = pl.DataFrame({"i": [1, 2, -3]}, schema={"i": pl.Int32}).with_columns(
        pl.when(pl.col("i") != 2).then(pl.col("i"))
    )
    assert content_hash(masked) == content_hash(frame.select("i"))


@pytest.mark.parametrize("name", list(VALUES))
def test_every_value_and_its_place_matter(name: str) -> None:
    frame = pl.DataFrame(VALUES).select(name)
    hashes = {
        content_hash(frame),
        content_hash(frame.reverse()),
        content_hash(frame.head(2)),
        content_hash(frame.rename({name: "other"})),
        content_hash(frame.with_columns(pl.col(name).fill_null(pl.col(name).first()))),
    }
    assert len(hashes) == 5


def test_neighbours_do_not_run_together() -> None:
    def strings(*values: str | None) -> str:
        return content_hash(pl.DataFrame({"s": values}, schema={"s": pl.String}))

    def lists(*values: list[int] | None) -> str:
        return content_hash(pl.DataFrame({"l": values}, schema={"l": pl.List(pl.Int64)}))

    assert len({strings("ab", "c"), strings("a", "bc"), strings("abc", ""), strings("abc")}) == 4
    assert strings("") != strings(None)
    assert (
        len({lists([1, 2], [3]), lists([1], [2, 3]), lists([1, 2, 3], []), lists([1, 2, 3])}) == 4
    )
    assert lists([]) != lists(None)
    types = [content_hash(pl.DataFrame({"x": []}, schema={"x": t})) for t in (pl.Int32, pl.Int64)]
    assert types[0] != types[1]


def test_the_hash_is_the_same_for_ever() -> None:
    frame = pl.DataFrame({"x": [1, 2], "s": ["a", None]}, schema={"x": pl.Int64, "s": pl.String})

    def digest(content: bytes = b"") -> bytes:
        return hashlib.sha256(content).digest()

    spelled_out = (
        b"2\0"
        b"x\0int64\0"
        + digest()  # no nulls
        + digest(struct.pack("<qq", 1, 2))
        # rows of nulls, lengths, characters
        + b"s\0string\0"
        + digest(struct.pack("<Q", 1))
        + digest(struct.pack("<II", 1, 0))
        + digest(b"a")
    )
    assert content_hash(frame) == hashlib.sha256(spelled_out).hexdigest()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_frame_that_arrives_in_pieces_has_the_hash_of_the_whole(rows: int) -> None:
    frame = pl.concat([pl.DataFrame(VALUES)] * 2)
    content = ContentHash(frame.schema)
    for part in frame.iter_slices(rows):
        content.update(part)
    assert content.hexdigest() == content_hash(frame)
    assert ContentHash(frame.schema).hexdigest() == content_hash(frame.clear())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.text(max_size=3) | st.none(), max_size=3) | st.none(), max_size=5),
    st.lists(st.lists(st.text(max_size=3) | st.none(), max_size=3) | st.none(), max_size=5),
)
def test_hashes_are_equal_exactly_when_contents_are(
    one: list[list[str | None] | None], other: list[list[str | None] | None]
) -> None:
    def of(rows: list[list[str | None] | None]) -> str:
        return content_hash(pl.DataFrame({"x": rows}, schema={"x": pl.List(pl.String)}))

    assert (of(one) == of(other)) == (one == other)
    assert of(one) == of(list(one))
