"""Group `corpus`: the model, its documents and token sequences, the vocabulary, the IOI prompts."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.corpora.name_moving import is_held_out_pair
from mechinterp_assets.corpora.readers import CorpusSource, read_documents
from mechinterp_assets.corpora.tokenize import PackingSettings, tokenize_corpus, vocabulary_frame
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import table_asset
from mechinterp_assets.prompts.ioi import ioi_prompts as build_ioi_prompts
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.proxies import study_proxies

GROUP = "corpus"


@dg.multi_asset(
    name="language_model",
    specs=[table_asset("language_model", per="study", group=GROUP, kinds=["huggingface"])],
    partitions_def=PARTITIONS.studies,
)
def language_model(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Load the study's model once and record its sizes and fingerprints."""
    study = STUDIES[context.partition_key]
    inputs = Inputs(lake, tensors, study)
    inputs.settings("model")
    model = models.load(study)
    inputs.model_version = model.weights_hash
    for proxy in study_proxies(study):  # whether its tokens exist is known only now
        proxy.check(model.token_strings())
    shape = model.config
    row = {
        "weights_source": study.model.embedded or study.model.source,
        "model_type": shape.architecture,
        "n_layers": shape.n_layers,
        "n_heads": shape.n_heads,
        "n_kv_heads": shape.n_kv_heads,
        "d_model": shape.d_model,
        "d_head": shape.d_head,
        "d_mlp": shape.d_mlp,
        "d_vocab": shape.d_vocab,
        "n_ctx": shape.n_ctx,
        "position_encoding": shape.positional,
        "normalization": shape.normalization,
        "n_parameters": model.hf.num_parameters(),
        "dtype": study.model.dtype,
        "bos_token_id": model.bos_token_id,
        "prepend_bos": True,
        "weights_hash": model.weights_hash,
        "tokenizer_hash": model.tokenizer_hash,
    }
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"language_model": pl.DataFrame([row])},
        {
            "language_model": {
                "parameters": float(row["n_parameters"]),
                "weights_hash": model.weights_hash,
                "layers": shape.n_layers,
                "heads": shape.n_heads,
            }
        },
    )
    yield from publisher.results()


@dg.multi_asset(
    name="corpus",
    specs=[
        table_asset(name, per="study", group=GROUP, study_deps=["language_model"], kinds=kinds)
        for name, kinds in (
            ("corpus_documents", []),
            ("tokenized_corpus", ["huggingface"]),
            ("vocabulary", []),
        )
    ],
    partitions_def=PARTITIONS.studies,
)
def corpus(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Read documents, drop duplicates, split by document, tokenize and pack into sequences."""
    study = STUDIES[context.partition_key]
    settings = study.corpus
    inputs, model = inputs_with_model(lake, tensors, models, study, "corpus")
    tokenized = tokenize_corpus(
        read_documents(
            CorpusSource(
                format=settings.format,
                path=settings.path,
                dataset=settings.dataset,
                dataset_config=settings.dataset_config,
                dataset_split=settings.dataset_split,
                text_column=settings.text_column,
                documents=settings.documents,
                shuffle_buffer=settings.shuffle_buffer,
                seed=settings.seed,
            )
        ),
        model.tokenizer,
        PackingSettings(
            context_size=settings.context_size,
            max_tokens=settings.max_tokens,
            bos_token_id=model.bos_token_id,
            held_out_fraction=settings.held_out_fraction,
            split_by=settings.split_by,
            seed=settings.seed,
        ),
    )
    special = {int(i) for i in model.tokenizer.all_special_ids}
    vocabulary = vocabulary_frame(model.token_strings(), special, tokenized.sequences)
    top = vocabulary.top_k(20, by="count_train")
    n_tokens = int(tokenized.sequences["n_tokens"].sum())
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {
            "corpus_documents": tokenized.documents,
            "tokenized_corpus": tokenized.sequences,
            "vocabulary": vocabulary,
        },
        {
            "corpus_documents": {
                "documents": float(tokenized.documents.height),
                "duplicates_dropped": float(tokenized.n_duplicates),
            },
            "tokenized_corpus": {
                "tokens": float(n_tokens),
                "tail_tokens_left_out": float(tokenized.n_tail_tokens),
                "held_out_sequences": float(
                    tokenized.sequences.filter(pl.col("split") == "held_out").height
                ),
            },
            "vocabulary": {
                "tokens_used": float(vocabulary.filter(pl.col("count_train") > 0).height),
                "twenty_most_frequent": dg.MetadataValue.md(
                    f"![counts]({tiny_bar_chart(top['count_train'].to_list())})"
                ),
            },
        },
    )
    yield from publisher.results()


@dg.multi_asset(
    name="ioi_prompts",
    specs=[table_asset("ioi_prompts", per="study", group=GROUP, study_deps=["language_model"])],
    partitions_def=PARTITIONS.studies,
)
def ioi_prompts(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Assemble IOI prompts and their variants from segments, with every role's position."""
    study = STUDIES[context.partition_key]
    inputs, model = inputs_with_model(lake, tensors, models, study, "ioi")
    prompts = build_ioi_prompts(
        model.encode,
        study.ioi.prompts,
        study.ioi.seed,
        model.bos_token_id,
        study.ioi.variants,
        allowed_pair=is_held_out_pair if study.ioi.held_out_pairs else None,
    )
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"ioi_prompts": prompts},
        {
            "ioi_prompts": {
                "pairs": float(prompts["pair_id"].n_unique()),
                "templates": float(prompts["template"].n_unique()),
                "longest": float(prompts["n_tokens"].to_numpy().max()),
            }
        },
    )
    yield from publisher.results()
