"""The model, its documents and token sequences, the vocabulary, the IOI prompts."""

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.tasks.suites import IOI_SETTINGS, study_ioi
from mechinterp_assets.features.named_proxies import named_proxies
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables


@tables(
    "language_model",
    "model_capabilities",
    settings=["model", "features.proxies", "activations.exclude_tokens"],
    files=["model"],
    kinds=["huggingface"],
)
def language_model(run: Run) -> Made:
    """Load the study's model once, see that the bridge is it, record its sizes and fingerprints.

    Nothing is published of a model whose bridge computes other logits or another z. Which analyses
    hold of it is measured here, for all assets that ask.
    """
    from mechinterp_assets.model.capabilities import capabilities_of
    from mechinterp_assets.model.identities import identities_of

    settings, model = run.study.model, run.load_model()
    capabilities, identities = capabilities_of(model), identities_of(model)
    capabilities.require("activations")
    run.inputs.came_from(model_version=model.weights_hash)
    for proxy in named_proxies(
        run.study.features.proxies
    ):  # whether its tokens exist is known only now
        proxy.check(model.token_strings())
    shape = model.config
    row = {
        "weights_source": settings.embedded or settings.source,
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
        "dtype": settings.dtype,
        "bos_token_id": model.bos.token_id,
        "bos_token": model.bos_label,
        "prepend_bos": model.bos.prepended,
        "left_out_token_ids": list(model.left_out_ids),
        "weights_hash": model.weights_hash,
        "tokenizer_hash": model.tokenizer_hash,
        "bridge_error": identities.error("bridge"),
        "bridge_error_allowed": identities.allowed,
    }
    analyses = capabilities.frame()
    missing = analyses.filter(~pl.col("holds"))["analysis"].to_list()
    return run.made(
        {"language_model": pl.DataFrame([row]), "model_capabilities": analyses},
        {
            "model_capabilities": {"not_of_this_model": ", ".join(missing) or "none"},
            "language_model": {
                "parameters": float(row["n_parameters"]),
                "weights_hash": model.weights_hash,
                "layers": shape.n_layers,
                "heads": shape.n_heads,
                "bos": f"{settings.bos}: {row['bos_token']}",
                "tokens_excluded": len(run.study.activations.exclude_tokens),
            },
        },
    )


@tables(
    "corpus_documents",
    "tokenized_corpus",
    "vocabulary",
    reads=["language_model"],
    settings=["corpus"],
    files=["corpus.path"],
    kinds=["huggingface"],
)
def corpus(run: Run) -> Made:
    """Read documents, drop duplicates, split by document, tokenize and pack into sequences."""
    from mechinterp_assets.corpora.readers import read_documents
    from mechinterp_assets.corpora.skipped_rows import REASONS, SkippedRows
    from mechinterp_assets.corpora.tokenize import tokenize_corpus, vocabulary_frame

    settings, model = run.study.corpus, run.model
    skipped = SkippedRows(settings.max_skipped_share)
    tokenized = tokenize_corpus(
        read_documents(settings, skipped),
        model.tokenizer,
        settings,
        model.bos_token_id,
        prepend_bos=model.bos.prepended,
    )
    skipped.check()
    vocabulary = vocabulary_frame(
        model.token_strings(), model.token_bytes, model.special_ids, tokenized.sequences
    )
    top = vocabulary.top_k(20, by="count_train")
    held_out = tokenized.sequences.filter(pl.col("split") == "held_out")
    return run.made(
        {
            "corpus_documents": tokenized.documents,
            "tokenized_corpus": tokenized.sequences,
            "vocabulary": vocabulary,
        },
        {
            "corpus_documents": {
                "documents": float(tokenized.documents.height),
                "duplicates_dropped": float(tokenized.n_duplicates),
                **{f"rows_skipped_{why}": float(skipped.counts[why]) for why in REASONS},
                "names_of_special_tokens": float(tokenized.n_special_names),
            },
            "tokenized_corpus": {
                "tokens": float(tokenized.sequences["n_tokens"].sum()),
                "tail_tokens_left_out": float(tokenized.n_tail_tokens),
                "held_out_sequences": float(held_out.height),
            },
            "vocabulary": {
                "tokens_used": float(vocabulary.filter(pl.col("count_train") > 0).height),
                "twenty_most_frequent": dg.MetadataValue.md(
                    f"![counts]({tiny_bar_chart(top['count_train'].to_list())})"
                ),
            },
        },
    )


@tables(
    "ioi_prompts",
    reads=["language_model"],
    settings=IOI_SETTINGS,
)
def ioi_prompts(run: Run) -> Made:
    """Assemble IOI prompts and their variants from segments, with every role's position.

    None where the tokenizer or the context cannot express them; task_baseline says why.
    """
    prompts, reason = study_ioi(run)
    if reason is not None:
        run.log.warning(f"ioi is left out: {reason}")
        return run.made({"ioi_prompts": prompts})
    return run.made(
        {"ioi_prompts": prompts},
        {
            "ioi_prompts": {
                "pairs": float(prompts["pair_id"].n_unique()),
                "templates": float(prompts["template"].n_unique()),
                "longest": float(prompts["n_tokens"].to_numpy().max()),
            }
        },
    )
