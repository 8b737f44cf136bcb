"""Readers of documents: one function per format, each a stream.

Belongs here: turning a file, a folder, a dataset or a generator into `Document`s. Does not belong
here: tokens (corpora/tokenize.py), the structured text itself (corpora/structured.py).
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mechinterp_assets.corpora import structured
from mechinterp_assets.corpora.settings import CorpusSettings


class CorpusError(ValueError):
    """A corpus that cannot be read; the message names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from; empty strings where the source does not say."""

    doc_id: str
    text: str
    title: str = ""
    author: str = ""
    source: str = ""
    license: str = ""


def read_documents(source: CorpusSettings) -> Iterator[Document]:
    """Stream the documents of `source`, at most `source.documents` of them, in an order that
    depends on the source, `seed` and `shuffle_buffer` alone.

    Raises CorpusError for an empty corpus or a missing text column.
    """
    count = 0
    stream = CORPUS_FORMATS[source.format](source)
    for document in shuffled(stream, source.shuffle_buffer, source.seed):
        yield document
        count += 1
        if count == source.documents:
            return
    if count == 0:
        place = source.path or source.dataset
        raise CorpusError(f"corpus {place} has no documents; point it at a non-empty source")


def shuffled(documents: Iterator[Document], buffer: int, seed: int) -> Iterator[Document]:
    """Documents in a seeded random order, drawn from a window of `buffer` (0: order of reading).

    Sources are often sorted by title or date; a token budget would else take one end of them.
    """
    if buffer <= 0:
        yield from documents
        return
    rng = random.Random(seed)
    window: list[Document] = []
    for document in documents:
        if len(window) < buffer:
            window.append(document)
            continue
        drawn = rng.randrange(buffer)
        yield window[drawn]
        window[drawn] = document
    rng.shuffle(window)
    yield from window


def _structured(source: CorpusSettings) -> Iterator[Document]:
    assert source.documents is not None
    for row in structured.documents(source.documents, source.seed):
        yield _document(row, "text", str(row["doc_id"]))


def _parquet(source: CorpusSettings) -> Iterator[Document]:
    for file in _files(source, "*.parquet"):
        table = pq.ParquetFile(file)
        _require_column(file, source.text_column, table.schema_arrow.names)
        row_number = 0
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield _document(row, source.text_column, f"{file.name}#{row_number}")
                row_number += 1


def _jsonl(source: CorpusSettings) -> Iterator[Document]:
    for file in _files(source, "*.jsonl"):
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise CorpusError(f"{file} line {number} is not JSON ({error})") from error
                if not isinstance(row, dict):
                    raise CorpusError(f"{file} line {number} is not a JSON object")
                _require_column(file, source.text_column, list(row))
                yield _document(row, source.text_column, f"{file.name}#{number}")


def _text(source: CorpusSettings) -> Iterator[Document]:
    for file in _files(source, "**/*.txt"):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(f"{file} is not UTF-8 ({error}); convert it") from error
        yield Document(doc_id=file.name, text=text, title=file.stem, source=file.name)


def _huggingface(source: CorpusSettings) -> Iterator[Document]:
    import datasets  # heavy; only this format needs it

    place = str(source.path or source.dataset)
    try:
        if source.path is not None and (source.path / "dataset_info.json").is_file():
            rows: Any = datasets.load_from_disk(place).to_iterable_dataset()
        elif source.path is not None and (source.path / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(place)[source.dataset_split].to_iterable_dataset()
        else:
            rows = datasets.load_dataset(
                place, source.dataset_config, split=source.dataset_split, streaming=True
            )
    except Exception as error:
        raise CorpusError(
            f"dataset {place!r}, split {source.dataset_split!r} cannot be opened "
            f"({type(error).__name__}: {error}); give a folder made by save_to_disk, a folder of "
            "data files, or a hub name with network access"
        ) from error
    for number, row in enumerate(rows):
        _require_column(place, source.text_column, list(row))
        yield _document(row, source.text_column, f"{place.rsplit('/', 1)[-1]}#{number}")


CORPUS_FORMATS: dict[str, Callable[[CorpusSettings], Iterator[Document]]] = {
    "structured": _structured,
    "parquet": _parquet,
    "jsonl": _jsonl,
    "text": _text,
    "huggingface": _huggingface,
}


def _document(row: dict[str, Any], text_column: str, default_id: str) -> Document:
    text = row[text_column]
    if not isinstance(text, str):
        raise CorpusError(
            f"document {default_id}: {text_column} is {type(text).__name__}, not text"
        )
    known = {name: str(row.get(name) or "") for name in ("title", "author", "source", "license")}
    return Document(
        doc_id=str(row.get("doc_id") or row.get("id") or default_id), text=text, **known
    )


def _files(source: CorpusSettings, pattern: str) -> list[Path]:
    path = source.path
    if path is None or not path.exists():
        raise CorpusError(f"corpus path {path} does not exist; correct corpus.path")
    files = sorted(path.glob(pattern)) if path.is_dir() else [path]
    if not files:
        raise CorpusError(f"{path} has no file like {pattern}; correct corpus.path or format")
    return files


def _require_column(place: object, column: str, columns: list[str]) -> None:
    if column not in columns:
        raise CorpusError(
            f"{place} has no column {column!r}; set corpus.text_column to one of {columns}"
        )
