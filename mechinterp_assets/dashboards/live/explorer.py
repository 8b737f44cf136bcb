"""The explorer behind the page: models and prompts that are kept, one question after another.

Belongs here: opening a study's model and SAEs, the prompts kept in memory, progress and cancelling,
what features are called. Does not belong here: answers (explorer_answers.py), HTTP
(app/explorer_app.py). Torch is imported when the first prompt is asked for, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from threading import Event
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from mechinterp_assets.dashboards.live import explorer_questions as asked
from mechinterp_assets.dashboards.live.explorer_answers import answer, effect_code
from mechinterp_assets.dashboards.live.explorer_sql import ExplorerSql
from mechinterp_assets.dashboards.live.kept import Kept
from mechinterp_assets.dashboards.places import feature_href, heads_folder
from mechinterp_assets.dashboards.queries import statements
from mechinterp_assets.dashboards.tokens import token_label
from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.sae.folder import CONFIG, WEIGHTS
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.manifest import ArtefactError
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.registry import Registry
from mechinterp_assets.studies.study import Study, StudyError, site_key

if TYPE_CHECKING:  # torch
    from mechinterp_assets.attribution.residual_saes import ResidualSaes
    from mechinterp_assets.explore.exploration import Exploration, Explorer
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.sae.base import SparseAutoencoder

KEPT_PROMPTS = 8
SAE = "attention_sae"
_FEATURE = {"study", "layer", "feature"}
_EFFECTS = """
SELECT rank FROM feature_logit_effects
WHERE study = $study AND layer = $layer AND feature = $feature LIMIT 1
"""
Load = Callable[[Study], "LanguageModel"]
Say = Callable[[str, int, int], None]


class CancelledError(Exception):
    """Whoever asked no longer waits."""


class RefusedError(ValueError):
    """A question that has no answer; the message says why and what to do."""


@dataclass(frozen=True)
class Asked:
    """How one question is followed: what is done is said, and it ends when nobody waits."""

    say: Say
    cancelled: Event

    def step(self, what: str, done: int = 0, of: int = 0) -> None:
        """Say what comes next. Raises CancelledError."""
        if self.cancelled.is_set():
            raise CancelledError
        self.say(what, done, of)


@dataclass(frozen=True)
class _Opened:
    """A study with its model: version of what it was opened from."""

    version: tuple[tuple[str, str], ...]
    explorer: Explorer


class LiveExplorer:
    """Answers questions of the explorer page, one at a time: callers see to that.

    lake, tensors: where studies' results lie; registry: reads the study files; load: gives a
    study's model; keep: writes a prompt to the kept prompts of a study and says where.
    """

    def __init__(
        self,
        lake: Lake,
        tensors: Tensors,
        registry: Callable[[], Registry],
        load: Load,
        keep: Callable[[Study, str], str],
    ) -> None:
        self._lake, self._tensors = lake, tensors
        self._registry, self._load, self._keep = registry, load, keep
        self._opened: dict[str, _Opened] = {}
        self._prompts: LRUCache[tuple[Any, ...], Exploration] = LRUCache(KEPT_PROMPTS)
        self._names: Kept[dict[int, dict[str, str]]] = Kept(lake, 32)
        self._sql = ExplorerSql(lake)

    def answer(self, question: asked.Question, waiting: Asked) -> dict[str, Any]:
        """Raises RefusedError, CancelledError."""
        if isinstance(question, asked.Studies):
            return {"studies": self._studies()}
        study = self._study(question.study)
        if isinstance(question, asked.Keep):
            try:
                return {"kept": self._keep(study, question.text)}
            except ExploreError as error:
                raise RefusedError(str(error)) from None
        opened = self._open(study, waiting)
        if isinstance(question, asked.Open):
            return {"layers": list(opened.explorer.saes)}
        if isinstance(question, asked.LogitEffect):
            return self._logit_effect(question, opened)
        return self._about_prompt(question, study, opened, waiting)

    # ---- private ---------------------------------------------------------------------------------

    def _studies(self) -> list[dict[str, Any]]:
        return [
            {
                "name": study.study,
                "description": study.description,
                "n_layers": study.n_layers,
                "layers": self._layers(study),
                "made": self._lake.exists("language_model", study.study),
            }
            for study in self._registry().studies.values()
        ]

    def _layers(self, study: Study) -> list[int]:
        return [n for n in study.layers if self._tensors.exists(SAE, site_key(study.study, n))]

    def _study(self, name: str) -> Study:
        try:
            study = self._registry().find(name)
        except StudyError as error:
            raise RefusedError(str(error)) from None
        if not self._lake.exists("language_model", name):
            raise RefusedError(
                f"nothing of study {name!r} is made; run `mechinterp materialize {name}`, or its "
                "assets up to attention_sae"
            )
        return study

    def _open(self, study: Study, waiting: Asked) -> _Opened:
        """Model and SAEs as they are now; one study's are in memory at a time."""
        sites = {n: site_key(study.study, n) for n in self._layers(study)}
        version = (
            ("language_model", self._lake.data_version("language_model", study.study)),
            *((key, self._tensors.data_version(SAE, key)) for key in sites.values()),
            *_residual_version(study),
        )
        known = self._opened.get(study.study)
        if known is not None and known.version == version:
            return known
        self._opened.clear()
        self._prompts.clear()
        steps = len(sites) + 3
        waiting.step("loading libraries", 0, steps)
        from mechinterp_assets.explore.exploration import Explorer
        from mechinterp_assets.model.shape import ModelError

        waiting.step(f"loading the model of {study.study}", 1, steps)
        try:
            model = self._load(study)
        except ModelError as error:
            raise RefusedError(str(error)) from None
        waiting.step("checking that it is the model of the tables", 2, steps)
        row = self._lake.read("language_model", study.study).collect().row(0, named=True)
        for name in ("weights_hash", "tokenizer_hash"):
            if row[name] != getattr(model, name):
                raise RefusedError(
                    f"{name} of {model.source} is not that of the study's tables; run `mechinterp "
                    f"materialize {study.study}`"
                )
        saes: dict[int, SparseAutoencoder] = {}
        for number, (layer, key) in enumerate(sites.items()):
            waiting.step(f"loading the SAE of layer {layer}", 3 + number, steps)
            saes[layer] = self._open_sae(key, model)
        residual = self._open_residual(study, model, waiting)
        explorer = Explorer(model, saes, residual=residual, max_tokens=asked.MAX_TOKENS)
        opened = _Opened(version, explorer)
        self._opened[study.study] = opened
        return opened

    def _open_sae(self, key: str, model: LanguageModel) -> SparseAutoencoder:
        from mechinterp_assets.sae.errors import SaeError
        from mechinterp_assets.sae.io import check_compatible, load_sae, read_metadata

        try:
            folder = self._tensors.open(SAE, key).path
            metadata = read_metadata(folder)
            check_compatible(metadata, model.config, model.weights_hash, model.tokenizer_hash)
            return load_sae(folder).to(model.device)
        except (SaeError, ArtefactError) as error:
            raise RefusedError(f"{key}: {error}") from None

    def _logit_effect(self, question: asked.LogitEffect, opened: _Opened) -> dict[str, Any]:
        from mechinterp_assets.attribution.frozen_forward import RdfaError

        layer, feature = question.layer, question.feature
        if not len(self._lake.sql(_EFFECTS, question.model_dump(include=_FEATURE))):
            raise RefusedError(
                f"feature {feature} of layer {layer} has no logit effects: its decoder row is zero,"
                " or model_capabilities says why the model has none (direct_effects)"
            )
        try:
            row = opened.explorer.logit_effect(layer, feature, question.token).row(0, named=True)
        except (ExploreError, RdfaError) as error:
            raise RefusedError(str(error)) from None
        return {
            **row,
            "token": token_label(row["token"]),
            "n_tokens": opened.explorer.model.config.d_vocab,
            "code": effect_code(question),
            "sql": [],
        }

    def _open_residual(self, study: Study, model: LanguageModel, waiting: Asked) -> ResidualSaes:
        from mechinterp_assets.attribution.residual_saes import residual_saes_of
        from mechinterp_assets.sae.errors import SaeError

        if study.residual_sae.path is not None:
            waiting.step("loading SAEs on the residual stream", 0, 0)
        try:
            return residual_saes_of(study.residual_sae, study.rdfa, model)
        except (SaeError, OSError) as error:
            raise RefusedError(f"{study.study}: residual_sae: {error}") from None

    def _about_prompt(
        self, question: asked.OfExploration, study: Study, opened: _Opened, waiting: Asked
    ) -> dict[str, Any]:
        from mechinterp_assets.attribution.frozen_forward import RdfaError
        from mechinterp_assets.circuits.errors import CircuitError
        from mechinterp_assets.interventions.terms import InterventionError

        try:
            explored = self._explored(question.text, opened, waiting)
            other = getattr(question, "other", None)
            second = None if other is None else self._explored(other, opened, waiting)
            if isinstance(question, asked.Slices):
                waiting.step("splitting attention scores", 0, 0)
            found = answer(question, explored, token_label, second)
            found["sql"] = self._sql.of(
                question,
                explored.token_ids.tolist(),
                None if second is None else second.token_ids.tolist(),
                token_id=explored.token_id,
            )
        except (ExploreError, RdfaError, CircuitError, InterventionError) as error:
            raise RefusedError(str(error)) from None
        return {**found, **self._links(study, found, question)}

    def _explored(self, text: str, opened: _Opened, waiting: Asked) -> Exploration:
        key = (opened.version, text)
        if key not in self._prompts:
            waiting.step("running the prompt", 0, 0)
            self._prompts[key] = opened.explorer.explore(text)
        return self._prompts[key]

    # ---- names and pages of features and heads ---------------------------------------------------

    def _links(
        self, study: Study, found: Mapping[str, Any], question: asked.OfExploration
    ) -> dict[str, Any]:
        """Names of the features in an answer, addresses of their pages and of its heads' pages."""
        names: dict[str, dict[str, str | None]] = {}
        # The lake is asked once for a layer: an answer has hundreds of its features.
        for layer, features in groupby(sorted(_features_in(found, question)), itemgetter(0)):
            known = self._names_of(study, layer)
            has_pages = self._lake.exists("feature_statistics", site_key(study.study, layer))
            for _, feature in features:
                href = feature_href(study.study, layer, feature) if has_pages else None
                names[f"{layer}.{feature}"] = {**known.get(feature, {}), "href": href}
        has_heads = self._lake.exists("head_scores", study.study)
        heads = f"../{heads_folder(study.study)}/" if has_heads else None
        return {"names": names, "heads_href": heads}

    def _names_of(self, study: Study, layer: int) -> dict[int, dict[str, str]]:
        return (
            self._names.get((study.study, str(layer)), lambda: self._read_names(study.study, layer))
            or {}
        )

    def _read_names(self, study: str, layer: int) -> dict[int, dict[str, str]]:
        """By the statement that the page shows: label or families, tokens that it fires on most and
        promotes most."""
        sql = statements()["explorer_known"]
        found: dict[int, dict[str, str]] = {}
        for row in self._lake.sql(sql, {"study": study, "layer": layer}).to_dicts():
            feature = row.pop("feature")
            found[feature] = {
                kind: text if kind == "meaning" else token_label(text)
                for kind, text in row.items()
                if text is not None
            }
        return found


def _residual_version(study: Study) -> Iterator[tuple[str, str]]:
    """What tells the study's SAEs on the residual stream from others: settings, folders, times."""
    yield ("residual_sae", f"{study.rdfa.residual_features} {study.residual_sae!r}")
    for folder in study.residual_sae.folders(study.n_layers).values():
        for file in (folder / CONFIG, folder / WEIGHTS):
            yield (str(file), str(file.stat().st_mtime_ns if file.is_file() else None))


def _features_in(
    found: Mapping[str, Any], question: asked.OfExploration
) -> Collection[tuple[int, int]]:
    """(layer, feature) of every feature that an answer shows."""
    wanted: set[tuple[int, int]] = set()
    if isinstance(question, asked.Features | asked.Difference):
        wanted |= {(question.layer, feature) for feature in found["features"]["feature"]}
    if isinstance(question, asked.Dfa):
        wanted.add((question.layer, question.feature))
    groups = [found.get("parts", ()), *(one["parts"] for one in found.get("opened", ()))]
    for part in (part for group in groups for part in group):
        if part["node_kind"] == "feature":
            wanted.add((part["layer"], part["feature"]))
    return wanted
