"""Which features of one SAE another SAE has too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.orchestration.artefacts import SAE, open_sae
from mechinterp_assets.orchestration.reads import compared
from mechinterp_assets.orchestration.registry import STUDIES
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables
from mechinterp_assets.studies.comparisons import Target, targets
from mechinterp_assets.studies.study import parse_site

if TYPE_CHECKING:  # science imports torch
    from mechinterp_assets.features.matching import ComparedSae
    from mechinterp_assets.sae.base import SparseAutoencoder
    from mechinterp_assets.storage.ledger import Version

FEATURE_TABLES = ("feature_statistics", "feature_top_examples")
NAMES = {
    "other_study": pl.String,
    "other_layer": pl.Int32,
    "other_sae": pl.String,
    "compared": pl.String,
    "space": pl.String,
    "same_corpus": pl.Boolean,
}


class ComparisonError(RuntimeError):
    """Two SAEs that cannot be compared; the message says what to materialize or to change."""


@tables(
    "sae_matching",
    reads=[
        "language_model",
        *compared("attention_sae", "tokenized_corpus", "activation_cache", *FEATURE_TABLES),
    ],
    settings=["comparisons"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
)
def sae_matching(run: Run) -> Made:
    """Match the features of each SAE with those of the SAEs it is compared with."""
    from mechinterp_assets.features.matching import MATCHING_SCHEMA

    sae = open_sae(run)
    frames = [pl.DataFrame(schema={**NAMES, **MATCHING_SCHEMA})]
    for target in targets(run.study, run.layer, STUDIES):
        frame = _compare(run, target, sae)
        if frame is not None:
            frames.append(frame)
    matching = pl.concat(frames)
    means = matching.group_by("other_study", "other_layer", "compared", maintain_order=True).agg(
        pl.col("matched_cosine").mean()
    )
    return run.made(
        {"sae_matching": matching},
        {
            "sae_matching": {
                f"mean_matched_cosine: {kind} {name} layer {other}": float(cosine)
                for name, other, kind, cosine in means.iter_rows()
                if cosine is not None
            }
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _compare(run: Run, target: Target, sae: SparseAutoencoder) -> pl.DataFrame | None:
    from mechinterp_assets.features.matching import sae_matching as match_saes

    other = _other_sae(run, target, sae)
    if other is None:
        if target.required and target.previous:
            raise ComparisonError(
                f"{run.study.file}: comparisons: no previous version of {SAE} of {target.key} "
                "with other weights is stored; remove version: previous, or train it again"
            )
        return None
    same_layer = target.layer == run.layer
    mine = [_current(run, name, run.partition) for name in FEATURE_TABLES]
    theirs = [_version_of_sae(run, name, target, other.weights_hash()) for name in FEATURE_TABLES]
    statistics, examples = (run.inputs.kept(version).collect() for version in mine)
    other_statistics, other_examples = (
        run.inputs.kept(version).collect() if version else empty
        for version, empty in zip(theirs, (statistics.clear(), examples.clear()), strict=True)
    )
    read_same = (
        theirs[0] is not None
        and _same_corpus(run, mine[0], theirs[0])
        and int(statistics["n_tokens"][0]) == int(other_statistics["n_tokens"][0])
    )
    frame = match_saes(
        _side(run, sae, run.layer, same_layer, statistics, examples if read_same else None),
        _side(
            run,
            other,
            target.layer,
            same_layer,
            other_statistics,
            other_examples if read_same else None,
        ),
        seed=run.study.sae.seed,
    )
    kind = "version" if target.previous and target.key == run.partition else "study"
    if not same_layer:
        kind = "layer"
    return frame.select(
        pl.lit(target.study).alias("other_study"),
        pl.lit(target.layer, pl.Int32).alias("other_layer"),
        pl.lit(other.weights_hash()).alias("other_sae"),
        pl.lit(kind).alias("compared"),
        pl.lit("z" if same_layer else "residual").alias("space"),
        pl.lit(read_same).alias("same_corpus"),
        pl.all(),
    )


def _other_sae(run: Run, target: Target, sae: SparseAutoencoder) -> SparseAutoencoder | None:
    """The target's SAE; of previous versions the newest with other weights than its current."""
    from mechinterp_assets.sae.io import check_compatible, load_sae, read_metadata

    model = run.model
    if not target.previous:
        artefacts = [run.inputs.artefact(SAE, target.key)]
        newest = None
    else:
        artefacts = run.inputs.kept_artefacts(SAE, target.key)
        newest = load_sae(artefacts[0].path).weights_hash() if artefacts else None
    for artefact in artefacts:
        other = load_sae(artefact.path)
        if other.weights_hash() == newest:
            continue
        metadata = read_metadata(artefact.path)
        if target.previous and metadata.weights_hash != model.weights_hash:
            continue  # made for weights that the study no longer has
        check_compatible(metadata, model.config, model.weights_hash, model.tokenizer_hash)
        return other.to(sae.W_dec.device)
    return None


def _current(run: Run, table: str, key: str) -> Version:
    """The current version of a table, recorded as read."""
    run.inputs.table(table, key)
    return run.inputs.kept_versions(table, key)[-1]


def _version_of_sae(run: Run, table: str, target: Target, sae_version: str) -> Version | None:
    """Version of a feature table that was made with one SAE; None where none is stored any more."""
    if not target.previous:
        return _current(run, table, target.key)
    made = [
        version
        for version in run.inputs.kept_versions(table, target.key)
        if version.provenance.sae_version == sae_version
    ]
    return max(made, key=lambda version: version.version, default=None)


def _same_corpus(run: Run, one: Version, other: Version) -> bool:
    """Whether two feature tables were made from the same sequences.

    A data version counts the study's name in, so corpora of two studies are compared by content.
    """
    caches = [v.inputs.get(f"tensors:activation_cache/{v.partition}") for v in (one, other)]
    if caches[0] is not None and caches[0] == caches[1]:
        return True  # the same activations, token ids included
    corpora = [_corpus_read(run, version) for version in (one, other)]
    studies = [parse_site(version.partition)[0] for version in (one, other)]
    if None in corpora or studies[0] == studies[1]:
        return corpora[0] is not None and corpora[0] == corpora[1]
    mine, theirs = (
        run.inputs.table("tokenized_corpus", study).select("sequence", "token_ids").collect()
        for study in studies
    )
    current = [_current(run, "tokenized_corpus", study).data_version for study in studies]
    return current == corpora and mine.equals(theirs)


def _corpus_read(run: Run, version: Version) -> str | None:
    """Data version of the corpus behind a feature table, through its activation cache."""
    corpus = f"tokenized_corpus/{parse_site(version.partition)[0]}"
    if corpus in version.inputs:
        return version.inputs[corpus]
    cached = version.inputs.get(f"activation_cache/{version.partition}")
    for cache in run.inputs.kept_versions("activation_cache", version.partition):
        if cache.data_version == cached:
            return cache.inputs.get(corpus)
    return None


def _side(
    run: Run,
    sae: SparseAutoencoder,
    layer: int,
    same_layer: bool,
    statistics: pl.DataFrame,
    examples: pl.DataFrame | None,
) -> ComparedSae:
    """One side: in z where both SAEs read the same layer, else where they write."""
    from mechinterp_assets.features.matching import ComparedSae

    return ComparedSae(
        decoder=sae.W_dec,
        writes=None if same_layer else run.model.weights.W_O[layer].flatten(0, 1),
        encoder=sae.W_enc.T if same_layer else None,
        statistics=statistics,
        examples=examples,
    )
