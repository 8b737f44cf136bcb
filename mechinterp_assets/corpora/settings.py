"""The settings of the corpus.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mechinterp_assets.settings.section import Fraction, Positive, Section


class CorpusSection(Section):
    """Documents and how they become token sequences.

    `structured` documents are generated (`documents`, `seed`); the other formats are read from
    `path` (file, folder or, for huggingface, also a hub name in `dataset`). Documents are taken in
    a random order from a window of `shuffle_buffer`, since sources are often sorted.
    """

    format: Literal["structured", "parquet", "jsonl", "text", "huggingface"]
    path: Path | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    dataset_split: str = "train"
    text_column: str = "text"
    documents: Positive | None = None
    shuffle_buffer: Annotated[int, Field(ge=0)] = 10_000
    max_tokens: Positive = 2_000_000
    context_size: Annotated[int, Field(ge=8)] = 128
    held_out_fraction: Fraction = 0.1
    split_by: Literal["document", "title"] = "document"
    seed: int = 0

    @model_validator(mode="after")
    def _has_source(self) -> "CorpusSection":
        if self.format == "structured":
            if self.path is not None or self.dataset is not None:
                raise ValueError("structured text is generated: remove path and dataset")
        elif self.format == "huggingface":
            if (self.path is None) == (self.dataset is None):
                raise ValueError("give either path (a local dataset folder) or dataset (hub name)")
        elif self.path is None:
            raise ValueError(f"format {self.format!r} needs path")
        return self
