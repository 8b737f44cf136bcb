"""The section `corpus` of a study: documents, and how they become token sequences.

Belongs here: its keys and the checks that concern it alone. Does not belong here: reading
(readers.py), packing (tokenize.py).
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mechinterp_assets.corpora.corpus_files import corpus_format
from mechinterp_assets.corpora.skipped_rows import CorpusError
from mechinterp_assets.settings.section import (
    Count,
    Fraction,
    LocalPath,
    Positive,
    Section,
    Share,
    Text,
)


class CorpusSettings(Section):
    """Documents and how they become token sequences.

    `structured` documents are generated (`documents`, `seed`); the other formats are read from
    `path` (file, folder or, for huggingface, also a hub name in `dataset`).
    """

    format: Literal["structured", "parquet", "jsonl", "text", "huggingface"]
    """Where documents come from; structured: generated English."""
    path: LocalPath | None = None
    """File or folder to read; of a folder all .parquet, .jsonl and .jsonl.gz, or .txt and .txt.gz
    at any depth, in the order of their paths, but for names that begin with a dot."""
    instead: Text | None = None
    """A variable such as $MECHINTERP_CORPUS: where it is set, the file or folder that it names is
    read in place of `dataset` or `path`, in the format that its name shows."""
    dataset: Text | None = None
    """Name of a dataset on the Hugging Face hub (huggingface)."""
    dataset_config: str | None = None
    """Configuration of the dataset (huggingface)."""
    dataset_split: str = "train"
    """Split of the dataset (huggingface)."""
    text_column: str = "text"
    """Column or key that holds the text (parquet, jsonl, huggingface)."""
    max_skipped_share: Share = 0.01
    """Rows whose text is null, blank, not Unicode, no text (a number, a list) or missing are passed
    over and counted; more than this share of all rows, blank ones aside, and more than ten are an
    error."""
    documents: Positive | None = None
    """At most this many documents; structured needs it."""
    shuffle_buffer: Count = 10_000
    """Documents are taken in a random order from a window of this many, since sources are often
    sorted; 0: in the source's order."""
    max_tokens: Positive = 2_000_000
    """Reading stops when this many tokens are packed."""
    context_size: Annotated[int, Field(ge=8)] = 128
    """Tokens of a sequence, BOS included."""
    packing: Literal["concatenated", "separate"] = "concatenated"
    """concatenated: documents follow each other with BOS between them, and are cut to sequences;
    separate: no sequence has tokens of two documents, and what is left at the end of each, less
    than a sequence, is left out."""
    special_tokens: Literal["as_text", "as_tokens"] = "as_text"
    """What the name of a special token in a text is, such as <|endoftext|> on a web page: text like
    any other, or that token."""
    held_out_fraction: Fraction = 0.1
    """Share of documents that no SAE is trained on, decided per document by a hash."""
    split_by: Literal["document", "title"] = "document"
    """title keeps documents of one title, such as a book's parts, in one split."""
    seed: int = 0
    """Seed of generated text, of the order and of the split."""

    @model_validator(mode="before")
    @classmethod
    def _read_instead(cls, data: Any) -> Any:
        """With the place that `instead` names, where it names one."""
        named = data.get("instead") if isinstance(data, dict) else None
        if not isinstance(named, str):
            return data
        if not re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", named):
            raise ValueError(
                f"instead: name a variable, such as $MECHINTERP_CORPUS (value {named!r})"
            )
        if not (value := os.environ.get(named[1:])):
            return data
        place = Path(value).expanduser().absolute()
        try:
            form = corpus_format(place)
        except CorpusError as error:
            raise ValueError(f"{named}: {error}") from None
        own = {"format", "path", "dataset", "dataset_config", "dataset_split", "text_column"}
        kept = {key: value for key, value in data.items() if key not in own}
        return {**kept, "format": form, "path": str(place)}

    @model_validator(mode="after")
    def _has_source(self) -> "CorpusSettings":
        if self.format == "structured":
            if self.path is not None or self.dataset is not None:
                raise ValueError("structured text is generated: remove path and dataset")
            if self.documents is None:
                raise ValueError("structured text has no end: say how many documents")
        elif self.format == "huggingface":
            if (self.path is None) == (self.dataset is None):
                raise ValueError("give either path (a local dataset folder) or dataset (hub name)")
        elif self.path is None:
            raise ValueError(f"format {self.format!r} needs path")
        return self
