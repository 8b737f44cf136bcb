"""A study, opened: its tables, features, heads, traces, SAEs and model; experiments and labels.

Belongs here: what a study offers, and where each thing is read from. Does not belong here: what
the things are (the other modules of this package).
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import weakref
from contextlib import ExitStack
from copy import copy
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mechinterp_assets.api.feature import Feature
from mechinterp_assets.api.head import Head, head_of
from mechinterp_assets.api.not_there import NotThereError, perhaps
from mechinterp_assets.api.origin import Origin, origin_of
from mechinterp_assets.api.tables import Tables
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import Study, StudyError, parse_site, site_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import duckdb
    import networkx as nx
    from torch import Tensor

    from mechinterp_assets.api.own_interventions import Prompt
    from mechinterp_assets.explore.exploration import Exploration, Explorer
    from mechinterp_assets.labels.files import LabelledSae
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.orchestration.inputs import Inputs
    from mechinterp_assets.sae.base import SparseAutoencoder


class OpenedStudy:
    """What is materialized of one study; `mechinterp_assets.open(name)` gives it.

    Reading changes nothing. Rows are those that are current when they are asked for.

    Attributes:
        name: of the study.
        home: folder with lake, tensors and models.
        lake: the tables of all studies there.
        tables: by name, cut to this study.
    """

    def __init__(self, name: str, home: Path) -> None:
        self.name, self.home = name, home
        self.lake = Lake(home / "lake")
        self._held = ExitStack()
        self._con: duckdb.DuckDBPyConnection | None = None
        self._close = weakref.finalize(self, self._held.close)
        self.tables = Tables(name, self.lake, _connection_of(weakref.ref(self)))

    # ---- tables ----------------------------------------------------------------------------------

    def sql(self, query: str, **parameters: object) -> pl.DataFrame:
        """Rows of one query over the whole catalog, all studies.

        `getvariable('study')` is this study, so that the worked queries (sql/queries) run as they
        are; `$name` is the parameter `name`.
        """
        if not parameters:
            return self.lake.query(query, self.name)
        return self.lake.sql(query, parameters)

    def relation(self, query: str) -> duckdb.DuckDBPyRelation:
        """A query over the catalog as a DuckDB relation, which computes when it is read.

        It is of the catalog as of the first relation that was asked for; `reopen` looks again.
        """
        self.lake.verify_tables(self.lake.declared.tables_read(query))
        return self._connection().sql(query)

    def reopen(self) -> None:
        """Let relations see what was published since; earlier relations can no longer be read."""
        self._held.close()
        self._con = None

    def why(
        self,
        table: str,
        column: str | None = None,
        *,
        layer: int | None = None,
        score: str | None = None,
    ) -> Origin:
        """Why the numbers of a table are what they are: definition, inputs, settings, staleness.

        Args:
            table: a table of this study.
            column: only the definition of this column.
            layer: of which layer, for tables that have a partition for each.
            score: also what this score of head_scores or ioi_head_scores is.

        Raises:
            NotThereError: no such table, column, layer or score, or no rows of it.
        """
        return origin_of(self.lake, self.name, table, column=column, layer=layer, score=score)

    # ---- features and heads ----------------------------------------------------------------------

    @property
    def layers(self) -> list[int]:
        """Layers that have an SAE."""
        sites = map(parse_site, self.lake.partitions("attention_sae"))
        return sorted(layer for study, layer in sites if study == self.name)

    def feature(self, layer: int, index: int) -> Feature:
        """A feature of a layer's SAE. Raises NotThereError where there is none."""
        self._check_sae(layer)
        return Feature(
            self.tables,
            self.name,
            layer,
            index,
            self.label_feature,
            lambda *of: self._explorer.logit_effect(*of),
        )

    def features(self, layer: int | None = None) -> pl.DataFrame:
        """One row per feature of a layer, or of all: density, activations, the head that writes
        most of it, tokens it promotes and suppresses (view feature_overview)."""
        return self.tables["feature_overview"].frame(layer=layer)

    def head(self, layer: int | str, index: int | None = None) -> Head:
        """A head: `head("L2H3")`, `head("2.3")` or `head(2, 3)`.

        Raises NotThereError for what names none, and for heads without scores.
        """
        if isinstance(layer, str):
            layer, index = head_of(layer)
        elif index is None:
            raise NotThereError(f"head({layer}) names no head; write head({layer}, 3)")
        return self._heads([(layer, index)])[0]

    def heads(self, role: str | None = None) -> list[Head]:
        """Heads with a role (view head_roles), strongest first; None: all that were scored."""
        if role is None:
            scored = self.tables["head_scores"].lazy().select("layer", "head").unique().collect()
            return self._heads(scored.sort("layer", "head").rows())
        roles = self.tables["head_roles"].frame()
        if role not in (known := roles["role"].unique().sort().to_list()):
            raise NotThereError(f"no head of {self.name} is {role!r}; {perhaps(role, known)}")
        rows = roles.filter(role=role).sort("value", descending=True).select("layer", "head")
        return self._heads(rows.unique(maintain_order=True).rows())

    def _heads(self, which: Sequence[tuple[int, int]]) -> list[Head]:
        """Heads by (layer, head); the views about all heads are read once."""
        scores, roles = (self.tables[name].frame() for name in ("head_score_tests", "head_roles"))
        return [
            Head(
                self.tables,
                self.name,
                layer,
                index,
                scores=scores,
                roles=roles,
                write_label=self.label_head,
            )
            for layer, index in which
        ]

    # ---- circuits --------------------------------------------------------------------------------

    def trace(self, task: str = "ioi", prompt: int | None = None) -> nx.MultiDiGraph:
        """The traced circuit of a task (Franco & Crovella 2024) as a networkx graph.

        Nodes are heads ("L1H5") with layer, head, is_root; edges run from the writing to the
        reading head, with destination_role, source_role, side, n_prompts, mean_contribution
        (attention score) and the other columns of trace_graph.

        Args:
            task: ioi, or another of `tasks.traced`.
            prompt: only the edges traced in this prompt; None: over all prompts.

        Raises:
            NotThereError: the task was not traced, or nothing was in the prompt.
        """
        from mechinterp_assets.circuits.graph import to_networkx, trace_graph

        table = "trace_graph" if prompt is None else "trace_edges"
        every = self.tables[table].lazy()
        rows = every.filter(pl.col("task") == task)
        if prompt is not None:
            rows = rows.filter(pl.col("prompt") == prompt)
        found = rows.collect()
        if found.is_empty():
            tasks = every.select("task").unique().collect()["task"].sort().to_list()
            what = f"task {task!r}" if task not in tasks else f"prompt {prompt} of {task}"
            raise NotThereError(f"no traced edges of {what}; traced tasks: {', '.join(tasks)}")
        return to_networkx(found if prompt is None else trace_graph(found))

    # ---- models and SAEs -------------------------------------------------------------------------

    @cached_property
    def settings(self) -> Study:
        """What the study file says. Raises NotThereError where no such file is known here."""
        from mechinterp_assets.studies.registry import STUDIES_VARIABLE, load_registry

        try:
            return load_registry().find(self.name)
        except StudyError as error:
            raise NotThereError(
                f"{error}; models, SAEs and labels need the study file: name its folder in "
                f"{STUDIES_VARIABLE}"
            ) from None

    @cached_property
    def model(self) -> LanguageModel:
        """The study's model on this machine's device, as assets use it.

        Loading takes seconds. Raises ModelError for damaged weights, StaleInputError for others
        than those that the tables were made with.
        """
        from mechinterp_assets.resources.language_model import load_model

        return self._inputs.model(load_model(self.settings, self.home / "models"))

    def sae(self, layer: int) -> SparseAutoencoder:
        """The SAE of a layer (float32, on the CPU), which the layer's feature tables describe.

        `sae.encode(z)` maps z_cat [n, n_heads * d_head] to activations [n, d_sae]. Raises
        NotThereError where the layer has none, StaleInputError where it is no longer stored.
        """
        if layer not in self._saes:
            from mechinterp_assets.sae.io import load_sae

            self._check_sae(layer)
            artefact = self._inputs.artefact("attention_sae", site_key(self.name, layer))
            self._saes[layer] = load_sae(artefact.path)
        return self._saes[layer]

    def _sae_at_model(self, layer: int) -> SparseAutoencoder:
        """A copy of a layer's SAE on the model's device; the one that `sae` gives stays."""
        return copy(self.sae(layer)).to(self.model.device)

    @cached_property
    def _saes(self) -> dict[int, SparseAutoencoder]:
        return {}

    @cached_property
    def _inputs(self) -> Inputs:
        """Inputs as assets get them, which refuse what does not belong together."""
        from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
        from mechinterp_assets.orchestration.inputs import Inputs
        from mechinterp_assets.storage.tensors import Tensors

        reader = "mechinterp_assets.open"
        declared = DeclaredSettings(self.settings, [], reader)
        tensors = Tensors(self.home / "tensors")
        return Inputs(self.lake, tensors, declared, ["attention_sae", "language_model"], reader)

    # ---- experiments -----------------------------------------------------------------------------

    def explore(self, text: str | Sequence[int]) -> Exploration:
        """Any prompt, run once with the SAEs of all layers: tokens, features with their DFA and
        recursive attribution, attention, logit lens, direct logit attribution, what if.

        Frames of the same columns as the explorer page shows; the model and its SAEs are loaded by
        the first call. Raises ExploreError for a prompt that is empty or too long.
        """
        return self._explorer.explore(text)

    @cached_property
    def _explorer(self) -> Explorer:
        from mechinterp_assets.attribution.residual_saes import residual_saes_of
        from mechinterp_assets.explore.exploration import Explorer

        saes = {layer: self._sae_at_model(layer) for layer in self.layers}
        settings = self.settings
        residual = residual_saes_of(settings.residual_sae, settings.rdfa, self.model)
        return Explorer(self.model, saes, residual=residual)

    def prompts(self, task: str = "ioi") -> pl.DataFrame:
        """Prompts of a task, all variants: rows of ioi_prompts, or of task_prompts."""
        from mechinterp_assets.api.own_interventions import prompts_of

        return prompts_of(self.tables, task)

    def own_prompts(self, prompts: Iterable[Prompt], task: str = "own") -> pl.DataFrame:
        """Texts as a frame of prompts, for `intervene`.

        Args:
            prompts: each a text, or (text, answer), or (text, answer, wrong answer, ...); an answer
                begins with its space. Without answers the only metric is the KL divergence.
            task: what the column `task` says.

        Raises:
            PromptError: one line for each prompt that cannot be used.
        """
        from mechinterp_assets.api.own_interventions import own_prompts

        return own_prompts(self.model, prompts, task)

    def intervene(
        self,
        interventions: Iterable[Mapping[str, Any]],
        prompts: pl.DataFrame | Iterable[Prompt] | None = None,
        *,
        task: str = "ioi",
        variant: str = "base",
        reference_variant: str = "ABC",
        limit: int | None = None,
        directions: Mapping[str, Tensor] | None = None,
    ) -> pl.DataFrame:
        """Run interventions: one row per prompt, intervention and metric (intervention_results).

        Nothing is stored; docs/interventions.md has kinds and fields.

        Args:
            interventions: as in a study file, such as {"kind": "head_ablation", "mode": "zero",
                "layer": 3, "head": "all"}; fields that take one value may hold a list.
            prompts: a frame of prompts, or texts (`own_prompts`); None: those of `task`.
            task: whose prompts, traced edges.
            variant: which of the prompts are run.
            reference_variant: where means and resampled activations come from.
            limit: only the first so many prompts.
            directions: name -> vector [d_model], for steering.

        Raises:
            InterventionError: before anything runs, for what cannot be run.
        """
        from mechinterp_assets.api.own_interventions import run_own

        if prompts is None:
            prompts = self.prompts(task)
        elif not isinstance(prompts, pl.DataFrame):
            prompts = self.own_prompts(prompts)
        traced = self.tables["trace_edges"]
        edges = (
            traced.lazy().filter(pl.col("task") == task).collect() if traced.partitions else None
        )
        return run_own(
            self.model,
            interventions,
            prompts,
            sae_of=self._sae_at_model,
            trace_edges=edges,
            variant=variant,
            reference_variant=reference_variant,
            limit=limit,
            directions=directions,
        )

    # ---- labels ----------------------------------------------------------------------------------

    def label_feature(
        self,
        layer: int,
        index: int,
        label: str,
        *,
        verdict: str,
        rater: str,
        note: str = "",
        file: Path | str | None = None,
        replace: bool = False,
    ) -> Path:
        """Write what a feature means into a CSV file of labels; the file.

        The next `mechinterp materialize` reads it into feature_labels, if the study file lists it
        under `labels`.

        Args:
            layer, index: which feature.
            label: in words.
            verdict: whether it is interpretable: yes, no or unsure.
            rater: who says so.
            note: anything else.
            file: to write to, made if absent; None: the only one that the study lists.
            replace: in place of the rater's earlier label of the feature in that file.

        Raises:
            LabelError: nothing was written, for the reason it says.
            NotThereError: no file was named, and the study does not list one.
        """
        from mechinterp_assets.api.label_files import chosen_file, write_label
        from mechinterp_assets.labels.features import COLUMNS, read_labels

        saes = self._labelled_saes
        line = {
            "rater": rater,
            "study": self.name,
            "layer": str(layer),
            "feature": str(index),
            "label": label,
            "verdict": verdict,
            "note": note,
            "sae": saes[layer].weights_hash if layer in saes else "",
        }
        listed = [] if file is not None else self.settings.labels
        return write_label(
            chosen_file(listed, file, "labels"),
            (*COLUMNS, "sae"),
            line,
            lambda files: read_labels(files, self.name, saes),
            key=("rater", "study", "layer", "feature"),
            replace=replace,
            lock=self.home / ".labels.lock",
        )

    def label_head(
        self,
        head: str | tuple[int, int],
        label: str = "",
        *,
        class_: str = "",
        rater: str,
        feature: int | None = None,
        note: str = "",
        file: Path | str | None = None,
        replace: bool = False,
    ) -> Path:
        """Write what a head does, or what one of its features means; the file.

        Args:
            head: "L2H3", or (2, 3).
            label: in words.
            class_: without `feature`: monosemantic, minor exception, bisemantic or polysemantic
                (Kissane et al. 2024, Table 3).
            rater: who says so.
            feature: of the layer's SAE, which the label is about then.
            note, file, replace: as for `label_feature`; the setting is `head_labels`.

        Raises:
            LabelError, NotThereError: as `label_feature`.
        """
        from mechinterp_assets.api.label_files import chosen_file, write_label
        from mechinterp_assets.labels.heads import COLUMNS, read_head_labels

        layer, index = head_of(head) if isinstance(head, str) else head
        saes = self._labelled_saes
        n_heads = self.tables["language_model"].frame()["n_heads"].item()
        line = {
            "rater": rater,
            "study": self.name,
            "layer": str(layer),
            "head": str(index),
            "feature": "" if feature is None else str(feature),
            "label": label,
            "class": class_,
            "note": note,
            "sae": saes[layer].weights_hash if layer in saes else "",
        }
        listed = [] if file is not None else self.settings.head_labels
        return write_label(
            chosen_file(listed, file, "head_labels"),
            (*COLUMNS, "sae"),
            line,
            lambda files: read_head_labels(files, self.name, n_heads, saes),
            key=("rater", "study", "layer", "head", "feature"),
            replace=replace,
            lock=self.home / ".labels.lock",
        )

    @property
    def _labelled_saes(self) -> dict[int, LabelledSae]:
        from mechinterp_assets.labels.files import LabelledSae

        rows = self.tables["attention_sae"].frame().select("layer", "d_sae", "weights_hash")
        return {layer: LabelledSae(d_sae, sae) for layer, d_sae, sae in rows.iter_rows()}

    # ---- showing it ------------------------------------------------------------------------------

    def text(self) -> str:
        """What the study is and what is there of it, in plain text."""
        return "\n".join(f"{name}: {value}" for name, value in self._facts())

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return "".join(
            f"<div><b>{escape(name)}</b>: {escape(value)}</div>" for name, value in self._facts()
        )

    def _facts(self) -> list[tuple[str, str]]:
        model = self.tables["language_model"]
        facts = [("study", self.name), ("home", str(self.home))]
        if model.partitions:
            row = model.frame().row(0, named=True)
            facts.append(
                (
                    "model",
                    f"{row['n_layers']} layers of {row['n_heads']} heads, d_model {row['d_model']}",
                )
            )
        facts.append(("layers with an SAE", ", ".join(map(str, self.layers)) or "none"))
        made = [name for name in self.tables if not self.tables[name].is_view]
        facts.append(("tables with rows", str(len(made))))
        stale = self.lake.sql(
            "SELECT count(DISTINCT (table_name, partition)) FROM stale_partitions"
            " WHERE study = $study",
            {"study": self.name},
        ).item()
        facts.append(("stale or missing partitions", str(stale)))
        return facts

    # ---- private ---------------------------------------------------------------------------------

    def _check_sae(self, layer: int) -> None:
        """Raise NotThereError unless the layer has an SAE."""
        layers = self.layers
        if layer not in layers:
            there = ", ".join(map(str, layers)) or "none"
            raise NotThereError(
                f"layer {layer} of {self.name} has no SAE; layers with one: {there}"
            )

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            self._con = self._held.enter_context(self.lake.connect())
        return self._con


def _connection_of(study: weakref.ref[OpenedStudy]) -> Any:
    """The connection of a study that lives, without keeping it alive."""

    def connection() -> duckdb.DuckDBPyConnection:
        opened = study()
        if opened is None:
            raise NotThereError("the study of this table was closed; open it again")
        return opened._connection()

    return connection
