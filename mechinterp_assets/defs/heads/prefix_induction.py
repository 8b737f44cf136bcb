"""Induction by prefix length, on random tokens, in text, and after edits of text.

How many matching tokens a head needs decides its class, the SQL view prefix_induction_heads.
"""

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_line_chart
from mechinterp_assets.model.names import head_name
from mechinterp_assets.orchestration.artefacts import sequences
from mechinterp_assets.orchestration.head_roles import heads_with_role
from mechinterp_assets.orchestration.publishing import Metadata
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

FALLBACK_HEADS = 5  # edited where no head has the role induction
DRAWN_HEADS = 5


@tables(
    "prefix_induction",
    "prefix_induction_corpus",
    "prefix_induction_intervention",
    reads=["language_model", "tokenized_corpus", "head_scores"],
    settings=["prefix_induction", "corpus.context_size"],
    seed="prefix_induction.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["direct_effects"],
)
def prefix_induction(run: Run) -> Made:
    """Induction score, direct effect, attention in text and its causes, by prefix length."""
    import torch

    from mechinterp_assets.corpora.token_documents import Separator, token_documents
    from mechinterp_assets.corpora.tokenize import token_matrix
    from mechinterp_assets.heads.prefix_corpus import prefix_corpus
    from mechinterp_assets.heads.prefix_induction import SEQUENCE_LENGTH
    from mechinterp_assets.heads.prefix_induction import prefix_induction as score_by_prefix
    from mechinterp_assets.heads.prefix_intervention import prefix_intervention

    settings, model = run.study.prefix_induction, run.model
    heads = _induction_heads(run.frame("head_scores"))
    held_out = sequences(run, "held_out", settings.corpus_sequences)
    text = torch.from_numpy(token_matrix(held_out))
    documents = token_documents(held_out, Separator(model.bos_token_id, model.bos.prepended))
    # Random sequences are as long as the study's context has room for.
    length = min(SEQUENCE_LENGTH, run.study.corpus.context_size)
    scores = score_by_prefix(model, settings, length=length)
    corpus = prefix_corpus(
        model,
        text,
        documents=documents,
        text_name=f"held-out text of {run.name}",
        seed=settings.seed,
    )
    edits = prefix_intervention(
        model,
        text,
        corpus.attended,
        heads,
        documents=documents,
        n_cases=settings.cases,
        seed=settings.seed,
    )
    drops = dict(edits.group_by("edit").agg(pl.col("mean_drop").mean()).iter_rows())
    return run.made(
        {
            "prefix_induction": scores,
            "prefix_induction_corpus": corpus.frame,
            "prefix_induction_intervention": edits,
        },
        {
            "prefix_induction": _score_metadata(scores),
            "prefix_induction_corpus": {"cases": _cases(corpus.frame)},
            "prefix_induction_intervention": {
                f"mean_drop_{edit}": drop for edit, drop in sorted(drops.items())
            },
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _induction_heads(scores: pl.DataFrame) -> list[tuple[int, int]]:
    """Heads with the role induction; where there is none, those that come closest."""
    # Not by the view head_roles over the catalog, which reads the scores on IOI too.
    if heads := heads_with_role("induction", scores):
        return heads
    induction = scores.filter(pl.col("score") == "induction").sort("value", descending=True)
    strongest = induction.head(FALLBACK_HEADS)
    return sorted((row["layer"], row["head"]) for row in strongest.to_dicts())


def _score_metadata(scores: pl.DataFrame) -> Metadata:
    """The strongest heads by their longest prefix, as numbers and as lines over prefix length."""
    strongest = (
        scores.sort("prefix_length")
        .group_by("layer", "head", maintain_order=True)
        .agg(pl.col("mean_attention"))
        .sort(pl.col("mean_attention").list.last(), descending=True)
        .head(DRAWN_HEADS)
    )
    lines = {head_name(r["layer"], r["head"]): r["mean_attention"] for r in strongest.to_dicts()}
    return {
        **{
            f"score_by_length_{head}": ", ".join(f"{a:.2f}" for a in y) for head, y in lines.items()
        },
        "score_by_prefix_length": dg.MetadataValue.md(
            f"![score by prefix length]({tiny_line_chart(lines)})"
        ),
    }


def _cases(corpus: pl.DataFrame) -> int:
    """Induction cases of the text, counted once."""
    one_head = corpus.filter((pl.col("layer") == 0) & (pl.col("head") == 0))
    return int(one_head.filter(pl.col("prefix_length") > 0)["n"].sum())
