"""Readers give the same documents from every format, and clear errors."""

import json
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest

from mechinterp_assets.corpora.readers import CORPUS_FORMATS, read_documents
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.corpora.skipped_rows import CorpusError, SkippedRows

ROWS = [
    {"doc_id": f"d{i}", "title": f"t{i}", "author": "a", "source": "s", "license": "l", "text": x}
    for i, x in enumerate(["one two", "three\nfour", 'quote " and é'])
]


def source_of(format: str, **given: Any) -> CorpusSettings:
    """Settings that read in the source's order, unless they say otherwise."""
    return CorpusSettings.model_validate({"format": format, "shuffle_buffer": 0, **given})


def texts(source: CorpusSettings) -> list[str]:
    return [document.text for document in read_documents(source)]


def test_parquet_jsonl_and_huggingface_agree(tmp_path: Path) -> None:
    import datasets

    frame = pl.DataFrame(ROWS)
    frame.write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    data_files = tmp_path / "files"
    data_files.mkdir()
    frame.write_parquet(data_files / "train.parquet")
    sources = [
        source_of("parquet", path=tmp_path / "rows.parquet"),
        source_of("jsonl", path=tmp_path / "rows.jsonl"),
        source_of("huggingface", path=tmp_path / "saved"),
        source_of("huggingface", path=data_files),
    ]
    read = [list(read_documents(source)) for source in sources]
    assert [document.text for document in read[0]] == [row["text"] for row in ROWS]
    assert read[0][1].title == "t1"
    assert all(documents == read[0] for documents in read)


def test_text_folder_is_read_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "sub" / "c.txt").write_text("third")
    assert texts(source_of("text", path=tmp_path)) == ["first", "second", "third"]


def test_structured_is_a_prefix_of_itself() -> None:
    few = texts(source_of("structured", documents=5, seed=3))
    more = texts(source_of("structured", documents=9, seed=3))
    assert more[:5] == few
    assert texts(source_of("structured", documents=5, seed=4)) != few


def test_errors_name_the_place_and_the_remedy(tmp_path: Path) -> None:
    pl.DataFrame({"body": ["x"]}).write_parquet(tmp_path / "no_text.parquet")
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\nnot json\n')
    (tmp_path / "latin.txt").write_bytes(b"\xe9\xe8")
    (tmp_path / "empty").mkdir()
    cases = [
        (
            source_of("parquet", path=tmp_path / "no_text.parquet"),
            "text_column to one of",
        ),
        (
            source_of("jsonl", path=tmp_path / "bad.jsonl"),
            r"bad\.jsonl:2: not JSON \(Expecting value in column 1\)",
        ),
        (source_of("text", path=tmp_path / "latin.txt"), "not UTF-8"),
        (source_of("text", path=tmp_path / "empty"), "has no file like"),
        (source_of("parquet", path=tmp_path / "gone"), "does not exist"),
        (source_of("huggingface", path=tmp_path / "empty"), "cannot be opened"),
    ]
    for source, message in cases:
        with pytest.raises(CorpusError, match=message):
            texts(source)


def test_every_format_that_a_study_may_name_has_a_reader() -> None:
    assert set(CORPUS_FORMATS) == set(get_args(CorpusSettings.model_fields["format"].annotation))


def test_shuffling_is_a_seeded_permutation(tmp_path: Path) -> None:
    count = 300
    pl.DataFrame({"text": [f"{i:03d}" for i in range(count)]}).write_parquet(tmp_path / "x.parquet")

    def read(buffer: int, seed: int = 0) -> list[str]:
        return texts(
            source_of("parquet", path=tmp_path / "x.parquet", shuffle_buffer=buffer, seed=seed)
        )

    in_order = read(0)
    assert in_order == sorted(in_order)
    for buffer in (1, 50, 1000):
        assert sorted(read(buffer)) == in_order
        assert read(buffer) == read(buffer)
    assert read(50) != in_order
    assert read(50, seed=1) != read(50)
    assert max(int(text) for text in read(50)[:20]) < 50 + 20


def test_odd_rows_are_counted_unless_there_are_no_others(tmp_path: Path) -> None:
    rows = ['{"text": "a b"}', '{"text": 5}', '{"body": "x"}', '{"text": ["x"]}', '{"text": "c"}']
    path = tmp_path / "odd.jsonl"
    path.write_text("\n".join([rows[1], *rows]))
    source = source_of("jsonl", path=path)
    skipped = SkippedRows(0.01)
    assert [d.text for d in read_documents(source, skipped)] == ["a b", "c"]
    assert skipped.counts == {"not_text": 3, "no_column": 1}
    path.write_text("\n".join([rows[0], *[rows[1]] * 11]))
    with pytest.raises(CorpusError, match=r"of 12 rows 11 without usable text \(11 not text\)"):
        texts(source)
    path.write_text("\n".join(rows[1:3]))
    with pytest.raises(CorpusError, match=r"line 1: text is int, not text; correct it, or corpus"):
        texts(source)
    path.write_text("\n".join(rows[2:3] * 10_000))
    with pytest.raises(CorpusError, match=r"line 1 has no column 'text'; set corpus\.text_column"):
        texts(source)
