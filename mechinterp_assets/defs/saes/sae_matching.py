"""Group `saes`, comparison: which features of one SAE another SAE has too."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import polars as pl

from mechinterp_assets.defs.saes.attention_sae import SAE_KIND, open_sae
from mechinterp_assets.features.matching import MATCHING_SCHEMA, ComparedSae
from mechinterp_assets.features.matching import sae_matching as match_saes
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.io import check_compatible, load_sae, read_metadata
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.ledger import Version
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study import Study, parse_site, site_key

GROUP = "saes"
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


@dataclass(frozen=True)
class Target:
    """The other side of a comparison; `required`: whether its absence is an error."""

    study: str
    layer: int
    previous: bool
    required: bool = True

    @property
    def key(self) -> str:
        """Partition key of the other SAE."""
        return site_key(self.study, self.layer)


def targets(study: Study, layer: int) -> list[Target]:
    """What a layer's SAE is compared with: its previous version, then what the study names.

    Layers that a named study does not have, and a layer with itself, are passed over.
    """
    found = [Target(study.study, layer, previous=True, required=False)]
    for comparison in study.comparisons:
        other = STUDIES[comparison.with_study or study.study]
        wanted = layer if comparison.layer is None else comparison.layer
        if wanted == "next":
            wanted = next((other_layer for other_layer in other.layers if other_layer > layer), -1)
        target = Target(other.study, int(wanted), previous=comparison.version is not None)
        itself = (target.study, target.layer, target.previous) == (study.study, layer, False)
        if wanted in other.layers and not itself:
            found = [t for t in found if (t.key, t.previous) != (target.key, target.previous)]
            found.append(target)
    return found


@dg.multi_asset(
    name="sae_matching",
    specs=[
        table_asset(
            "sae_matching",
            per="site",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            site_deps=["attention_sae", "feature_statistics", "feature_top_examples"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def sae_matching(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Match the features of each SAE with those of the SAEs it is compared with."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        compute.prepare(study.sae.seed)
        inputs, model = inputs_with_model(lake, tensors, models, study, "comparisons")
        sae = open_sae(inputs, key, model)
        frames = [pl.DataFrame(schema={**NAMES, **MATCHING_SCHEMA})]
        for target in targets(study, layer):
            frame = _compare(key, target, sae, model, inputs, lake, tensors)
            if frame is not None:
                frames.append(frame)
        matching = pl.concat(frames)
        means = matching.group_by(
            "other_study", "other_layer", "compared", maintain_order=True
        ).agg(pl.col("matched_cosine").mean())
        publisher.publish(
            key,
            inputs,
            {"sae_matching": matching.with_columns(pl.lit(layer, pl.Int32).alias("layer"))},
            {
                "sae_matching": {
                    f"mean_matched_cosine: {kind} {name} layer {other}": float(cosine)
                    for name, other, kind, cosine in means.iter_rows()
                    if cosine is not None
                }
            },
        )
    yield from publisher.results()


# ---- private -------------------------------------------------------------------------------------


def _compare(
    key: str,
    target: Target,
    sae: SparseAutoencoder,
    model: LanguageModel,
    inputs: Inputs,
    lake: Lake,
    tensors: Tensors,
) -> pl.DataFrame | None:
    study, layer = site(key)
    other = _other_sae(target, sae, inputs, tensors, model)
    if other is None:
        if target.required and target.previous:
            raise ComparisonError(
                f"{study.file}: comparisons: no previous version of {SAE_KIND} of {target.key} "
                "with other weights is stored; remove version: previous, or train it again"
            )
        return None
    same_layer = target.layer == layer
    mine = [lake.current(name, key) for name in FEATURE_TABLES]
    theirs = [
        _version_of_sae(lake, inputs, name, target, other.weights_hash()) for name in FEATURE_TABLES
    ]
    for version in mine:
        inputs.table(version.table, key)
    statistics, examples = (lake.read_version(version).collect() for version in mine)
    other_statistics, other_examples = (
        lake.read_version(version).collect() if version else empty
        for version, empty in zip(theirs, (statistics.clear(), examples.clear()), strict=True)
    )
    read_same = (
        theirs[0] is not None
        and _same_corpus(lake, mine[0], theirs[0])
        and int(statistics["n_tokens"][0]) == int(other_statistics["n_tokens"][0])
    )
    frame = match_saes(
        _side(sae, model, layer, same_layer, statistics, examples if read_same else None),
        _side(
            other,
            model,
            target.layer,
            same_layer,
            other_statistics,
            other_examples if read_same else None,
        ),
        seed=study.sae.seed,
    )
    compared = "version" if target.previous and target.key == key else "study"
    if not same_layer:
        compared = "layer"
    return frame.select(
        pl.lit(target.study).alias("other_study"),
        pl.lit(target.layer, pl.Int32).alias("other_layer"),
        pl.lit(other.weights_hash()).alias("other_sae"),
        pl.lit(compared).alias("compared"),
        pl.lit("z" if same_layer else "residual").alias("space"),
        pl.lit(read_same).alias("same_corpus"),
        pl.all(),
    )


def _other_sae(
    target: Target, sae: SparseAutoencoder, inputs: Inputs, tensors: Tensors, model: LanguageModel
) -> SparseAutoencoder | None:
    """The target's SAE; of previous versions the newest with other weights than its current."""
    if not target.previous:
        artefacts = [inputs.artefact(SAE_KIND, target.key)]
        newest = None
    else:
        versions = sorted(tensors.versions(SAE_KIND, target.key), reverse=True)
        artefacts = [tensors.open(SAE_KIND, target.key, version) for version in versions]
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


def _version_of_sae(
    lake: Lake, inputs: Inputs, table: str, target: Target, sae_version: str
) -> Version | None:
    """Version of a feature table that was made with one SAE; None where none is stored any more."""
    if not target.previous:
        inputs.table(table, target.key)  # records its data version
        return lake.current(table, target.key)
    made = [
        version
        for version in lake.versions(table, target.key)
        if version.provenance.sae_version == sae_version
    ]
    return max(made, key=lambda version: version.version, default=None)


def _same_corpus(lake: Lake, one: Version, other: Version) -> bool:
    """Whether two feature tables were made from the same sequences.

    A data version counts the study's name in, so corpora of two studies are compared by content.
    """
    caches = [v.inputs.get(f"tensors:activation_cache/{v.partition}") for v in (one, other)]
    if caches[0] is not None and caches[0] == caches[1]:
        return True  # the same activations, token ids included
    corpora = [_corpus_read(lake, version) for version in (one, other)]
    studies = [parse_site(version.partition)[0] for version in (one, other)]
    if None in corpora or studies[0] == studies[1]:
        return corpora[0] is not None and corpora[0] == corpora[1]
    current = [lake.data_version("tokenized_corpus", study) for study in studies]
    if current != corpora:
        return False
    mine, theirs = (
        lake.read("tokenized_corpus", study).select("sequence", "token_ids").collect()
        for study in studies
    )
    return mine.equals(theirs)


def _corpus_read(lake: Lake, version: Version) -> str | None:
    """Data version of the corpus behind a feature table, through its activation cache."""
    corpus = f"tokenized_corpus/{parse_site(version.partition)[0]}"
    if corpus in version.inputs:
        return version.inputs[corpus]
    cached = version.inputs.get(f"activation_cache/{version.partition}")
    for cache in lake.versions("activation_cache", version.partition):
        if cache.data_version == cached:
            return cache.inputs.get(corpus)
    return None


def _side(
    sae: SparseAutoencoder,
    model: LanguageModel,
    layer: int,
    same_layer: bool,
    statistics: pl.DataFrame,
    examples: pl.DataFrame | None,
) -> ComparedSae:
    """One side: in z where both SAEs read the same layer, else where they write."""
    return ComparedSae(
        decoder=sae.W_dec,
        writes=None if same_layer else model.weights.W_O[layer].flatten(0, 1),
        encoder=sae.W_enc.T if same_layer else None,
        statistics=statistics,
        examples=examples,
    )
