"""Readers of documents: one function per format, each a stream.

Belongs here: turning a file, a folder, a dataset or a generator into `Document`s. Does not belong
here: tokens (corpora/tokenize.py), the structured text itself (corpora/structured.py), which files
a folder has (corpus_files.py), how many rows may be without text (skipped_rows.py).

Texts are taken as they are, with two exceptions in .txt files: a byte order mark is left out, and
\\r\\n becomes \\n.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp_assets.corpora import structured
from mechinterp_assets.corpora.corpus_files import corpus_files
from mechinterp_assets.corpora.settings import CorpusSettings
from mechinterp_assets.corpora.skipped_rows import CorpusError, SkippedRows, UnusableRow
from mechinterp_assets.files.json_lines import json_lines
from mechinterp_assets.files.parquet_reader import is_text, parquet_columns, parquet_rows
from mechinterp_assets.files.regular_file import FileError, NotUnicodeError, read_text

MAX_TEXT_FILE_BYTES = 1 << 30
_ABOUT = ("title", "author", "source", "license")
_IDS = ("doc_id", "id")


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from; empty strings where the source does not say."""

    doc_id: str
    text: str
    title: str = ""
    author: str = ""
    source: str = ""
    license: str = ""


def read_documents(
    source: CorpusSettings, skipped: SkippedRows | None = None
) -> Iterator[Document]:
    """Stream the documents of `source`, at most `source.documents` of them, in an order that
    depends on the source, `seed` and `shuffle_buffer` alone.

    Rows whose text is null, blank, not Unicode, no text at all or missing are passed over and
    counted in `skipped`, whose check is made at the end; who stops reading earlier makes it.
    Raises CorpusError for an empty corpus, a text column that no row has, or a file that cannot be
    read.
    """
    skipped = SkippedRows(source.max_skipped_share) if skipped is None else skipped
    count = 0
    for document in shuffled(_usable(source, skipped), source.shuffle_buffer, source.seed):
        yield document
        count += 1
        if count == source.documents:
            break
    skipped.check()
    if count == 0:
        place = source.path or source.dataset
        rows = f" (rows: {skipped.described})" if skipped.counts else ""
        raise CorpusError(f"corpus {place} has no documents{rows}; point it at a non-empty source")


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


def _usable(source: CorpusSettings, skipped: SkippedRows) -> Iterator[Document]:
    try:
        for row in CORPUS_FORMATS[source.format](source):
            if isinstance(row, UnusableRow):
                skipped.skip(row)
            else:
                skipped.n_usable += 1
                yield row
    except FileError as error:
        raise CorpusError(str(error)) from None


def _structured(source: CorpusSettings) -> Iterator[Document | UnusableRow]:
    assert source.documents is not None
    for row in structured.documents(source.documents, source.seed):
        doc_id = str(row["doc_id"])
        yield _document(row, "text", f"document {doc_id}", doc_id)


def _parquet(source: CorpusSettings) -> Iterator[Document | UnusableRow]:
    column = source.text_column
    for file, name in corpus_files(_place(source), (".parquet",)):
        kinds = parquet_columns(file)
        _require_column(file, column, kinds)
        if not is_text(kinds[column]):
            texts = [other for other, kind in kinds.items() if is_text(kind)]
            raise CorpusError(
                f"{file}: column {column!r} is {kinds[column]}, not text; set corpus.text_column "
                f"to one of {texts}"
            )
        wanted = [column, *(n for n in (*_IDS, *_ABOUT) if n in kinds and n != column)]
        for number, row in enumerate(parquet_rows(file, wanted)):
            yield _document(row, column, f"{file} row {number}", f"{name}#{number}")


def _jsonl(source: CorpusSettings) -> Iterator[Document | UnusableRow]:
    for file, name in corpus_files(_place(source), (".jsonl", ".jsonl.gz")):
        for number, row in json_lines(file):
            place = f"{file} line {number}"
            if isinstance(row, NotUnicodeError):
                yield UnusableRow(place, "not_unicode")
                continue
            yield _document(row, source.text_column, place, f"{name}#{number}")


def _text(source: CorpusSettings) -> Iterator[Document | UnusableRow]:
    for file, name in corpus_files(_place(source), (".txt", ".txt.gz")):
        text = read_text(file, "a text file", MAX_TEXT_FILE_BYTES).replace("\r\n", "\n")
        if "\0" in text:
            raise CorpusError(f"{file} is no text (a null character); save it as UTF-8")
        title = name.removesuffix(".gz").rpartition(".")[0] or name
        yield _document({"text": text, "title": title, "source": name}, "text", str(file), name)


def _huggingface(source: CorpusSettings) -> Iterator[Document | UnusableRow]:
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
    name = place.rsplit("/", 1)[-1]
    for number, row in enumerate(_dataset_rows(rows, place)):
        yield _document(row, source.text_column, f"{place} row {number}", f"{name}#{number}")


CORPUS_FORMATS: dict[str, Callable[[CorpusSettings], Iterator[Document | UnusableRow]]] = {
    "structured": _structured,
    "parquet": _parquet,
    "jsonl": _jsonl,
    "text": _text,
    "huggingface": _huggingface,
}


def _place(source: CorpusSettings) -> Path:
    assert source.path is not None  # its settings see to it
    return source.path


def _dataset_rows(rows: Iterable[Mapping[str, Any]], place: str) -> Iterator[Mapping[str, Any]]:
    """Rows of a dataset, whose files are read only now."""
    number = 0
    try:
        for row in rows:
            yield row
            number += 1
    except Exception as error:
        raise CorpusError(
            f"dataset {place!r} cannot be read behind row {number} ({type(error).__name__}: "
            f"{error}); get its files again"
        ) from error


def _document(
    row: Mapping[str, Any], text_column: str, place: str, default_id: str
) -> Document | UnusableRow:
    if text_column not in row:
        return UnusableRow(place, "no_column", _no_column(place, text_column, row))
    text = row[text_column]
    if text is None:
        return UnusableRow(place, "null")
    if not isinstance(text, str | bytes):
        remedy = (
            f"{place}: {text_column} is {type(text).__name__}, not text; correct it, or "
            "corpus.text_column"
        )
        return UnusableRow(place, "not_text", remedy)
    try:
        # The way through bytes finds half characters (lone surrogates) in a str too.
        text = (text.encode() if isinstance(text, str) else text).decode()
    except UnicodeError:
        return UnusableRow(place, "not_unicode")
    if not text.strip():
        return UnusableRow(place, "empty")
    given = next((shown for name in _IDS if (shown := _shown(row.get(name)))), default_id)
    about = {name: _shown(row.get(name)) for name in _ABOUT}
    return Document(doc_id=given, text=text, **about)


def _shown(value: Any) -> str:
    """What a row says about its document, as text; what is no Unicode in it as escapes."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value).encode(errors="backslashreplace").decode()


def _require_column(place: object, column: str, columns: Iterable[str]) -> None:
    if column not in columns:
        raise CorpusError(_no_column(place, column, columns))


def _no_column(place: object, column: str, columns: Iterable[str]) -> str:
    return f"{place} has no column {column!r}; set corpus.text_column to one of {list(columns)}"
