"""Reading inputs, the same way for every asset.

Belongs here: opening tables, artefacts and files, which data versions that were (they become the
rows' provenance), and what is checked of them. Does not belong here: what is computed of them.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
from mechinterp_assets.orchestration.reads import SEEN, UndeclaredReadError
from mechinterp_assets.storage.declarations import declarations, table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.ledger import Version
from mechinterp_assets.storage.tensors import Artefact, Tensors
from mechinterp_assets.studies.study import Study

if TYPE_CHECKING:
    from mechinterp_assets.model.language_model import LanguageModel

CORPORA = frozenset({"tokenized_corpus", "ioi_prompts"})


class StaleInputError(RuntimeError):
    """An input was made from something no longer current; the message says what to rerun."""


class Inputs:
    """The inputs of one partition: opens those that were declared, and remembers their versions.

    Args:
        lake, tensors: where they are.
        settings: the study as its asset may see it.
        reads: tables that may be read.
        asset: what error messages call the reader.
        shared: inputs of several partitions, whose versions are those of this one too.
    """

    def __init__(
        self,
        lake: Lake,
        tensors: Tensors,
        settings: DeclaredSettings,
        reads: Collection[str],
        asset: str,
        shared: "Inputs | None" = None,
    ) -> None:
        self._lake, self._tensors = lake, tensors
        self._settings, self._reads, self._asset = settings, frozenset(reads), asset
        self._shared = shared
        self._versions: dict[str, str] = {}
        self._of: dict[str, str | None] = {}

    def below(self) -> "Inputs":
        """Inputs of one of several partitions made together: what was read for all, and its own."""
        return Inputs(
            self._lake, self._tensors, self._settings, self._reads, self._asset, shared=self
        )

    @property
    def study(self) -> Study:
        """The study as its asset may see it."""
        return self._settings.study

    @property
    def versions(self) -> dict[str, str]:
        """Data version of everything that was read, and the values of settings that were used."""
        above = {} if self._shared is None else self._shared.versions
        used = {f"settings:{path}": value for path, value in self._settings.used.items()}
        return {**above, **used, **self._versions}

    def provenance(self, name: str) -> str | None:
        """`model_version`, `corpus_version` or `sae_version` of what was read."""
        if name in self._of or self._shared is None:
            return self._of.get(name)
        return self._shared.provenance(name)

    def note(self, name: str, version: str) -> None:
        """Record something read that is neither a table, an artefact nor a file."""
        self._versions[name] = version

    def came_from(self, **versions: str) -> None:
        """Set `model_version` or `sae_version` of what is made."""
        self._of.update(versions)

    # Tables

    def table(self, name: str, partition: str) -> pl.LazyFrame:
        """Current rows of one partition. One that is not there is a LakeError."""
        self._require(name)
        current = self._lake.current(name, partition)
        self._versions[f"{name}/{partition}"] = current.data_version
        if name in CORPORA:
            self._of["corpus_version"] = current.data_version
        return self._lake.read(name, partition)

    def find(self, name: str, partition: str) -> pl.LazyFrame | None:
        """Current rows of one partition; None where it was never made."""
        self._require(name)
        return self.table(name, partition) if self._lake.exists(name, partition) else None

    def row(self, name: str, partition: str) -> dict[str, Any]:
        """The only row of a partition of a table such as language_model."""
        row = self.table(name, partition).collect().row(0, named=True)
        if name == "language_model":
            self._of["model_version"] = row["weights_hash"]
        elif name == "attention_sae":
            self._of["sae_version"] = row["weights_hash"]
        return row

    def sql(self, query: str, parameters: Mapping[str, object] | None = None) -> pl.DataFrame:
        """Rows of one statement over the catalog; the tables behind its views count as read."""
        self._note_tables(query)
        return self._lake.sql(query, parameters)

    def query(self, statement: str) -> pl.DataFrame:
        """As `sql`, for a statement that reads the DuckDB variable `study`."""
        self._note_tables(statement)
        return self._lake.query(statement, self.study.study)

    def kept_versions(self, name: str, partition: str) -> list[Version]:
        """Versions of a partition that are still stored, oldest first; the last is current."""
        self._require(name)
        return self._lake.versions(name, partition)

    def kept(self, version: Version) -> pl.LazyFrame:
        """Rows of one of the kept versions."""
        self._require(version.table)
        return self._lake.read_version(version)

    def _note_tables(self, statement: str) -> None:
        study = self.study
        for name in sorted(declarations().tables_read(statement)):
            keys = [study.study] if table_spec(name).per == "study" else study.sites
            for key in keys:
                self.find(name, key)

    def _require(self, name: str) -> None:
        SEEN.setdefault(self._asset, set()).add(name)
        if name not in self._reads:
            raise UndeclaredReadError(
                f"{self._asset} reads {name} without saying so; add it to reads in its declaration"
            )

    # Artefacts

    def artefact(self, kind: str, partition: str) -> Artefact:
        """Current version of a tensor artefact, refused if what it was made from has changed.

        The table of the same name describes the artefact: its data version is recorded too, so that
        the catalog can tell what has gone stale.
        """
        self._require(kind)
        self._versions[f"{kind}/{partition}"] = self._lake.data_version(kind, partition)
        artefact = self._tensors.open(kind, partition)
        for key, made_from in artefact.manifest.inputs.items():
            current = self._current(key)
            if current is not None and current != made_from:
                raise StaleInputError(
                    f"{kind} of {partition} was made from {key} {made_from[:16]}, but the current "
                    f"version is {current[:16]}; materialize {kind} again"
                )
        self._versions[f"tensors:{kind}/{partition}"] = artefact.data_version
        return artefact

    def kept_artefacts(self, kind: str, partition: str) -> list[Artefact]:
        """Versions of an artefact that are still stored, newest first."""
        self._require(kind)
        versions = sorted(self._tensors.versions(kind, partition), reverse=True)
        return [self._tensors.open(kind, partition, version) for version in versions]

    def _current(self, key: str) -> str | None:
        """Data version that an input has now; None where that cannot be known."""
        if key.startswith(("settings:", "file:")):
            return None
        if key.startswith("tensors:"):
            kind, _, partition = key.removeprefix("tensors:").partition("/")
            return self._tensors.data_version(kind, partition)
        table, _, partition = key.partition("/")
        return self._lake.data_version(table, partition)

    # Models and files

    def model(self, model: "LanguageModel") -> "LanguageModel":
        """Use `model`, refused unless its weights and tokenizer are those of the study's table."""
        row = self.row("language_model", self.study.study)
        for name in ("weights_hash", "tokenizer_hash"):
            if row[name] != getattr(model, name):
                raise StaleInputError(
                    f"{self.study.study}: {name} of {model.source} is {getattr(model, name)}, but "
                    f"the study's tables were made with {row[name]}; materialize language_model "
                    "and everything downstream of it"
                )
        return model

    def file(self, path: Path) -> bytes:
        """Content of a file that a setting names; its hash is recorded."""
        content = path.read_bytes()
        self._versions[f"file:{path.name}"] = hashlib.sha256(content).hexdigest()[:16]
        return content
