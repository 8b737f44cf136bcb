"""Reading inputs, the same way for every asset.

Belongs here: opening tables, artefacts and files, which data versions that were (they become the
rows' provenance), and what is checked of them. Does not belong here: what is computed of them.

Everything is read as of one instant, when the partition was begun: whatever others publish
meanwhile, a body reads the versions that are recorded.
"""

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
from mechinterp_assets.orchestration.reads import SEEN, UndeclaredReadError
from mechinterp_assets.staleness.asked_for import hashes_of
from mechinterp_assets.staleness.study_files import file_inputs
from mechinterp_assets.storage.declarations import declarations, table_spec
from mechinterp_assets.storage.lake import Lake, LakeError
from mechinterp_assets.storage.ledger import Version
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.tensors import Artefact, Tensors
from mechinterp_assets.studies.study import Study

if TYPE_CHECKING:
    from mechinterp_assets.model.language_model import LanguageModel

CORPORA = frozenset({"tokenized_corpus", "ioi_prompts"})
ABSENT = "absent"
"""Recorded of a table partition that was looked for and not there."""


class StaleInputError(RuntimeError):
    """An input was made from something no longer current; the message says what to rerun."""


class Inputs:
    """The inputs of one partition: opens those that were declared, and remembers their versions.

    Args:
        lake, tensors: where they are.
        settings: the study as its asset may see it.
        reads: tables that may be read.
        asset: what error messages call the reader.
        files: settings whose files may be read.
        shared: inputs of several partitions, whose versions are those of this one too.
    """

    def __init__(
        self,
        lake: Lake,
        tensors: Tensors,
        settings: DeclaredSettings,
        reads: Collection[str],
        asset: str,
        files: Collection[str] = (),
        shared: "Inputs | None" = None,
    ) -> None:
        self._lake, self._tensors = lake, tensors
        self._settings, self._reads, self._asset = settings, frozenset(reads), asset
        self._files, self._shared = tuple(files), shared
        self._versions: dict[str, str] = {} if shared is not None else self._file_versions()
        self._of: dict[str, str | None] = {}

    def below(self) -> "Inputs":
        """Inputs of one of several partitions made together: what was read for all, and its own."""
        return Inputs(
            self._lake,
            self._tensors,
            self._settings,
            self._reads,
            self._asset,
            shared=self,
        )

    @property
    def study(self) -> Study:
        """The study as its asset may see it."""
        return self._settings.study

    @property
    def versions(self) -> dict[str, str]:
        """Data version of everything that was read, and the values of settings that were used."""
        above = {} if self._shared is None else self._shared.versions
        return {**above, **self._settings.used, **self._versions}

    def provenance(self, name: str) -> str | None:
        """`model_version`, `corpus_version` or `sae_version` of what was read."""
        if name in self._of or self._shared is None:
            return self._of.get(name)
        return self._shared.provenance(name)

    def came_from(self, **versions: str) -> None:
        """Set `model_version` or `sae_version` of what is made."""
        self._of.update(versions)

    def describes(self, kind: str, partition: str, data_version: str) -> None:
        """Record the artefact that the table of the same name describes."""
        self._versions[f"made:{kind}/{partition}"] = data_version

    def use_layers(self) -> list[str]:
        """Partition keys of the study's layers, on which a result for all of them depends."""
        self._settings.layers()
        return self.study.sites

    # Tables

    def table(self, name: str, partition: str) -> pl.LazyFrame:
        """Rows of one partition. One that is not there is a LakeError."""
        return self._lake.read_version(self._open(name, partition))

    def find(self, name: str, partition: str) -> pl.LazyFrame | None:
        """Rows of one partition; None where it was never made."""
        self._require(name)
        if (name, partition) not in self._now:
            self._versions[f"{name}/{partition}"] = ABSENT
            return None
        return self.table(name, partition)

    def row(self, name: str, partition: str) -> dict[str, Any]:
        """The only row of a partition of a table such as language_model."""
        row = self.table(name, partition).collect().row(0, named=True)
        if name == "language_model":
            self._of["model_version"] = row["weights_hash"]
        elif name == "attention_sae":
            self._of["sae_version"] = row["weights_hash"]
        return row

    def origin(self, name: str, partition: str) -> Provenance:
        """Where the rows of a partition come from."""
        return self._open(name, partition).provenance

    def sql(self, query: str, parameters: Mapping[str, object] | None = None) -> pl.DataFrame:
        """Rows of one statement over the catalog; the tables behind its views count as read."""
        return self._lake.sql(query, parameters, exactly=self._versions_behind(query))

    def query(self, statement: str) -> pl.DataFrame:
        """As `sql`, for a statement that reads the DuckDB variable `study`."""
        exactly = self._versions_behind(statement)
        return self._lake.query(statement, self.study.study, exactly=exactly)

    def kept_versions(self, name: str, partition: str) -> list[Version]:
        """Versions of a partition that are still stored, oldest first; the last is current."""
        self._require(name)
        return self._lake.versions(name, partition)

    def kept(self, version: Version) -> pl.LazyFrame:
        """Rows of one of the kept versions."""
        self._require(version.table)
        return self._lake.read_version(version)

    @cached_property
    def _now(self) -> dict[tuple[str, str], Version]:
        """What is current of the declared tables, as of the first look."""
        if self._shared is not None:
            return self._shared._now
        return {(v.table, v.partition): v for v in self._lake.current_of(self._reads)}

    def _open(self, name: str, partition: str) -> Version:
        """The version of a partition that is read, noted as read."""
        self._require(name)
        version = self._now.get((name, partition))
        if version is None:
            raise LakeError(
                f"{name} has no data for {partition} in {self._lake.root};"
                f" materialize the asset {name} for it"
            )
        self._versions[f"{name}/{partition}"] = version.data_version
        if name in CORPORA:
            self._of["corpus_version"] = version.data_version
        return version

    def _versions_behind(self, statement: str) -> list[Version]:
        """Versions of the tables that a statement reads; those of the study count as read."""
        study = self._settings.study
        tables = declarations().tables_read(statement)
        for name in sorted(tables):
            keys = [study.study] if table_spec(name).per == "study" else self.use_layers()
            for key in keys:
                self.find(name, key)
        return [version for (name, _), version in self._now.items() if name in tables]

    def _require(self, name: str) -> None:
        SEEN.setdefault(self._asset, set()).add(name)
        if name not in self._reads:
            raise UndeclaredReadError(
                f"{self._asset} reads {name} without saying so; add it to reads in its declaration"
            )

    # Artefacts

    def artefact(self, kind: str, partition: str) -> Artefact:
        """The tensor artefact that a partition describes, refused if what it was made from changed.

        The table of the same name describes the artefact and names its data version, so that both
        are of one run whatever others publish meanwhile.
        """
        described = self._open(kind, partition)
        wanted = described.inputs.get(f"made:{kind}/{partition}")
        artefact = self._tensors.open(kind, partition)
        for older in sorted(self._tensors.versions(kind, partition), reverse=True)[1:]:
            if wanted is None or artefact.data_version == wanted:
                break
            artefact = self._tensors.open(kind, partition, older)
        if wanted is not None and artefact.data_version != wanted:
            raise StaleInputError(
                f"{kind} of {partition} is no longer stored as its table describes it"
                f" ({wanted[:16]}); materialize {kind} again"
            )
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
        """Data version that a table partition has now; None for what is no table."""
        if ":" in key:
            return None
        table, _, partition = key.partition("/")
        found = self._lake.find_current(table, partition)
        return None if found is None else found.data_version

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

    def check_files(self) -> None:
        """Refuse what was made while a file that it was made from changed."""
        if self._shared is not None:
            self._shared.check_files()
            return
        for name, now in self._file_versions().items():
            if self._versions[name] != now:
                raise StaleInputError(
                    f"{name.removeprefix('file:')} changed while {self._asset} was made from it;"
                    " materialize it again"
                )

    def _file_versions(self) -> dict[str, str]:
        """Fingerprint of every file that is declared."""
        hashes = hashes_of(self._lake.root)
        found: dict[str, str] = {}
        for setting in self._files:
            found |= file_inputs(self._settings.real_study, setting, hashes)
        return found
