"""A layer's features as a Neuronpedia bulk-import folder.

    <model>/<source>/release.jsonl  model.jsonl  sourceset.jsonl  source.jsonl
    <model>/<source>/features/batch-0.jsonl.gz ...
    <model>/<source>/activations/batch-0.jsonl.gz ...

Belongs here: filling the lines of neuronpedia_lines.py from frames, and writing them. A text is a
whole sequence, since its strongest sources may lie far from the active token.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel

from mechinterp_assets.dashboards.layer_frames import (
    ActivationsByFeature,
    AttributionByFeature,
    ByFeature,
    LayerFrames,
    SequenceTokens,
)
from mechinterp_assets.dashboards.neuronpedia_lines import (
    ActivationLine,
    FeatureLine,
    ModelLine,
    ReleaseLine,
    SourceLine,
    SourceSetLine,
    Visibility,
)

BATCH = 256  # features per file: one insert of the importer stays far below its 200 MB
TOP = (-1.0, -1.0)  # binMin and binContains of a top activation


@dataclass(frozen=True)
class Publication:
    """Under which names features are published, and by whom.

    Attributes:
        model_id: id of the model there, such as gpt2-small.
        source_set: name of the set of SAEs, such as att-topk-25k.
        release: name of the release.
        description: of release and source set.
        creator_id: id of an account on the receiving instance; rows without one are refused there.
        creator_name: shown.
        created: time stamp of all rows.
        visibility: PUBLIC, UNLISTED or PRIVATE.
        urls: of paper, code or weights.
    """

    model_id: str
    source_set: str
    release: str
    description: str
    creator_id: str
    creator_name: str
    created: datetime
    visibility: Visibility = "UNLISTED"
    urls: tuple[str, ...] = ()

    def source_id(self, layer: int) -> str:
        """Id of a layer's SAE."""
        return f"{layer}-{self.source_set}"

    def folder(self, root: Path, layer: int) -> Path:
        """Where the files of a layer go under the folder `root`."""
        return root / self.model_id / self.source_id(layer)

    @property
    def stamp(self) -> str:
        """`created` as Neuronpedia's database reads it."""
        return self.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def identifier(name: str) -> str:
    """`name` with the letters that Neuronpedia allows in ids: a-z, 0-9, _ and -."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_") or "unnamed"


def export_layer(
    frames: LayerFrames,
    folder: Path,
    publication: Publication,
    *,
    layer: int,
    model: Mapping[str, Any],
    sae: Mapping[str, Any],
    sequences: pl.DataFrame,
    token_strings: Sequence[str],
    logit_histograms: Mapping[int, tuple[Sequence[float], Sequence[float]]] | None = None,
    corpus: str | None = None,
) -> Path:
    """Write one layer under `folder`/<model>/<source> and return that folder.

    Files are written beside their place and moved there by one rename.

    Args:
        frames: tables of the layer; `activations` with the sequences of all examples.
        folder: made if absent.
        publication: names.
        layer: layer.
        model: row of language_model.
        sae: row of attention_sae.
        sequences: columns sequence and token_ids of all sequences with examples.
        token_strings: text of each token id.
        logit_histograms: by feature, counts and centres of the bins of its logit effects; left
            empty without.
        corpus: name of the dataset.

    Raises:
        ValueError: the place is taken, an example has no tokens, or a line does not fit.
    """
    target = publication.folder(folder, layer)
    if target.exists():
        raise ValueError(f"{target} exists; remove it or name another folder")
    lines = _Lines(
        frames, publication, layer, SequenceTokens(sequences), token_strings, logit_histograms or {}
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        for name, line in _metadata(publication, layer, model, sae, corpus, sequences).items():
            _write(made / f"{name}.jsonl", [line])
        features = frames.statistics["feature"].sort().to_list()
        for batch, start in enumerate(range(0, len(features), BATCH)):
            part = features[start : start + BATCH]
            _write(made / "features" / f"batch-{batch}.jsonl.gz", map(lines.feature, part))
            texts = [line for feature in part for line in lines.activations(feature)]
            if texts:
                _write(made / "activations" / f"batch-{batch}.jsonl.gz", texts)
        os.replace(made, target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return target


def json_line(line: BaseModel) -> str:
    r"""A line as ASCII JSON without any \u0000 or doubled backslash.

    The importer replaces the six characters \u0000 by a space wherever they stand, which would
    break the JSON of a text that holds them literally (a backslash, then u0000).
    """
    text = json.dumps(line.model_dump(), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # In the output of json.dumps a run of backslashes starts with an escape, so pairs are escapes.
    return text.replace("\\\\", "\\u005c")


# ---- private -------------------------------------------------------------------------------------


def _metadata(
    publication: Publication,
    layer: int,
    model: Mapping[str, Any],
    sae: Mapping[str, Any],
    corpus: str | None,
    sequences: pl.DataFrame,
) -> dict[str, BaseModel]:
    creator = {"creatorId": publication.creator_id, "createdAt": publication.stamp}
    public = {"visibility": publication.visibility}
    urls = list(publication.urls)
    name, source_set = publication.creator_name, publication.source_set
    length = sequences["token_ids"].list.len().to_list()
    return {
        "release": ReleaseLine(
            name=publication.release,
            description=publication.description,
            descriptionShort=publication.description[:80],
            urls=urls,
            creatorEmail=None,
            creatorName=name,
            creatorNameShort=name,
            defaultSourceSetName=source_set,
            defaultSourceId=publication.source_id(layer),
            **creator,
            **public,
        ),
        "model": ModelLine(
            id=publication.model_id,
            displayNameShort=publication.model_id,
            displayName=publication.model_id,
            tlensId=None,
            dimension=model["d_model"],
            layers=model["n_layers"],
            neuronsPerLayer=0,
            owner=name,
            updatedAt=publication.stamp,
            website=None,
            **creator,
            **public,
        ),
        "sourceset": SourceSetLine(
            modelId=publication.model_id,
            name=source_set,
            description=publication.description,
            type="attention-output SAE",
            creatorName=name,
            urls=urls,
            creatorEmail=None,
            releaseName=publication.release,
            **creator,
            **public,
        ),
        "source": SourceLine(
            id=publication.source_id(layer),
            modelId=publication.model_id,
            saelensRelease=None,
            saelensSaeId=None,
            hfRepoId=None,
            hfFolderId=None,
            setName=source_set,
            num_prompts=None,
            num_tokens_in_prompt=max(length, default=None),
            dataset=corpus,
            notes=f"{sae['architecture']}, {sae['d_sae']} features on blocks.{layer}.attn.hook_z",
            **creator,
            **public,
        ),
    }


class _Lines:
    """Lines of features and activations of one layer."""

    def __init__(
        self,
        frames: LayerFrames,
        publication: Publication,
        layer: int,
        tokens: SequenceTokens,
        token_strings: Sequence[str],
        logit_histograms: Mapping[int, tuple[Sequence[float], Sequence[float]]],
    ) -> None:
        tokens.require(frames.example_sequences())
        self._publication, self._layer, self._tokens = publication, layer, tokens
        self._source = publication.source_id(layer)
        self._texts = [token.replace("\x00", "␀") for token in token_strings]
        self._histograms = logit_histograms
        self._statistics = {row["feature"]: row for row in frames.statistics.to_dicts()}
        self._effects = ByFeature(
            frames.logit_effects, ("extreme", "token_id", "logit_effect"), "extreme", "rank"
        )
        self._heads = ByFeature(frames.head_attribution, ("attribution",), "head")
        self._intervals = ByFeature(
            frames.intervals, ("interval", "low", "high", "n_active", "active_share"), "interval"
        )
        self._similar = (
            None
            if frames.neighbours is None
            else ByFeature(
                frames.neighbours.filter(pl.col("measure") == "decoder_cosine"),
                ("neighbour", "similarity"),
                "rank",
            )
        )
        place = ("rank", "sequence", "position")
        self._top = ByFeature(frames.top_examples, place, "rank")
        self._inside = ByFeature(
            frames.interval_examples.filter(pl.col("sample") == "random"),
            ("interval", *place),
            "interval",
            "rank",
        )
        self._dfa = AttributionByFeature(frames.dfa)
        self._activations = ActivationsByFeature(frames.activations)

    def feature(self, feature: int) -> FeatureLine:
        statistics = self._statistics[feature]
        effects = self._effects.rows(feature)
        intervals = self._intervals.rows(feature)
        similar = [] if self._similar is None else self._similar.rows(feature)
        heights, centres = self._histograms.get(feature, ((), ()))
        shares = self._heads.columns(feature)[0].to_list()
        by_direction = {
            name: [row for row in effects if row["extreme"] == name] for name in ("top", "bottom")
        }
        return FeatureLine(
            modelId=self._publication.model_id,
            layer=self._source,
            index=str(feature),
            sourceSetName=self._publication.source_set,
            creatorId=self._publication.creator_id,
            createdAt=self._publication.stamp,
            maxActApprox=statistics["max_activation"] or 0.0,
            hookName=f"blocks.{self._layer}.attn.hook_z",
            topkCosSimIndices=[row["neighbour"] for row in similar],
            topkCosSimValues=[row["similarity"] for row in similar],
            pos_str=[self._texts[row["token_id"]] for row in by_direction["top"]],
            pos_values=[row["logit_effect"] for row in by_direction["top"]],
            neg_str=[self._texts[row["token_id"]] for row in by_direction["bottom"]],
            neg_values=[row["logit_effect"] for row in by_direction["bottom"]],
            frac_nonzero=statistics["density"] or 0.0,
            freq_hist_data_bar_heights=[row["n_active"] for row in intervals],
            freq_hist_data_bar_values=[(row["low"] + row["high"]) / 2 for row in intervals],
            logits_hist_data_bar_heights=list(heights),
            logits_hist_data_bar_values=list(centres),
            decoder_weights_dist=[] if None in shares else shares,
        )

    def activations(self, feature: int) -> Iterator[ActivationLine]:
        """Top examples with their DFA, then the random examples of each interval."""
        active = self._activations.sequences(feature)
        dfa = self._dfa.examples(feature)
        maximum = self._statistics[feature]["max_activation"] or 0.0
        attribution = {}
        for row in self._top.rows(feature):
            if row["rank"] in dfa:
                key = (row["sequence"], row["position"])
                attribution[key] = dfa[row["rank"]].by_source
            bin_min, contains = TOP
            yield self._activation(
                feature, row, "top", active, attribution, (bin_min, maximum, contains)
            )
        bins = {row["interval"]: row for row in self._intervals.rows(feature)}
        for row in self._inside.rows(feature):
            found = bins[row["interval"]]
            yield self._activation(
                feature,
                row,
                f"interval {row['interval']}",
                active,
                attribution,
                (found["low"], found["high"], found["active_share"]),
            )

    def _activation(
        self,
        feature: int,
        row: Mapping[str, Any],
        kind: str,
        active: Mapping[int, Mapping[int, float]],
        attribution: Mapping[tuple[int, int], NDArray[np.float32]],
        bounds: tuple[float, float, float],
    ) -> ActivationLine:
        ids = self._tokens[row["sequence"]].tolist()
        here = active.get(row["sequence"], {})
        if row["position"] not in here:
            raise ValueError(
                f"feature {feature} has no activation at sequence {row['sequence']}, position "
                f"{row['position']}, where an example is; pass feature_activations of the examples"
            )
        exact = [here.get(i, 0.0) for i in range(len(ids))]
        values, strongest = [_short(value) for value in exact], exact.index(max(exact))
        by_source = attribution.get((row["sequence"], row["position"]))
        dfa = [] if by_source is None else [_short(value) for value in by_source.tolist()]
        dfa += [0.0] * (len(ids) - len(dfa) if dfa else 0)
        name = f"{self._publication.model_id}/{self._source}/{feature}/{kind}/{row['rank']}"
        return ActivationLine(
            id="c" + hashlib.sha256(name.encode()).hexdigest()[:24],
            tokens=[self._texts[i] for i in ids],
            dataIndex=str(row["sequence"]),
            index=str(feature),
            layer=self._source,
            modelId=self._publication.model_id,
            dataSource=None,
            maxValue=values[strongest],
            maxValueTokenIndex=strongest,
            minValue=min(values),
            values=values,
            dfaValues=dfa,
            dfaTargetIndex=row["position"] if dfa else None,
            dfaMaxValue=max(dfa) if dfa else None,
            creatorId=self._publication.creator_id,
            createdAt=self._publication.stamp,
            binMin=bounds[0],
            binMax=bounds[1],
            binContains=bounds[2],
            qualifyingTokenIndex=row["position"],
        )


def _short(value: float) -> float:
    """Six significant digits, what a float32 is good for: half the size of the file."""
    return float(f"{value:.6g}") if value else 0.0


def _write(path: Path, lines: Iterable[BaseModel]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json_line(line) + "\n" for line in lines).encode("ascii")
    # Without a time stamp the same lines make the same file.
    path.write_bytes(gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)
