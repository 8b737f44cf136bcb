"""Tracing of tasks other than IOI: the same identities, roles and answers of any prompts."""

import polars as pl
import pytest
import torch

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.roots import find_roots, root_heads, root_scores, task_sources
from mechinterp_assets.circuits.settings import TraceSettings
from mechinterp_assets.circuits.trace import Root, Trace, trace_circuit
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import TASK_PROMPTS_SCHEMA, check_task_prompts, from_ioi
from mechinterp_assets.prompts.gendered_pronoun import gendered_pronoun
from mechinterp_assets.prompts.greater_than import greater_than

PAIR = ["prompt", "layer", "head", "destination", "source"]
EDGE_PAIR = ["prompt", "downstream_layer", "downstream_head", "destination", "source"]


def assert_identities(trace: Trace, tolerance: float) -> None:
    """Slices sum to scores; all writers and the appended 1 sum to the whole on both sides."""
    assert trace.slices["relative_identity_error"].to_numpy().max() < tolerance
    sums = (
        trace.edges.rename({"downstream_layer": "layer", "downstream_head": "head"})
        .group_by(*PAIR, "side")
        .agg(pl.col("contribution").sum(), size=pl.col("contribution").abs().sum())
    )
    traced = trace.slices.filter(pl.col("path_multiplicity") > 0)
    for side in ("destination", "source"):
        both = traced.join(sums.filter(side=side), on=PAIR)
        assert both.height == traced.height > 0
        error = (both["contribution"] - both[f"{side}_writers"]).abs() / both["size"]
        assert error.to_numpy().max() < tolerance


def repeats(model: LanguageModel, n: int, period: int) -> pl.DataFrame:
    """Random tokens that come twice: END is in the second copy, REPEAT what followed before."""
    generator = torch.Generator().manual_seed(4)
    rows = []
    for prompt in range(n):
        drawn = torch.randperm(model.config.d_vocab - 10, generator=generator)[: period + 1] + 5
        span, other = drawn[:-1].tolist(), int(drawn[-1])
        ids = [model.bos_token_id, *span, *span[: period // 2 + 1]]
        rows.append(
            {
                "task": "repeats",
                "prompt": prompt,
                "pair_id": prompt,
                "template": 0,
                "variant": "base",
                "text": "",
                "token_ids": ids,
                "n_tokens": len(ids),
                "roles": ["END", "SAME", "REPEAT"],
                "positions": [len(ids) - 1, period // 2 + 1, period // 2 + 2],
                "answer_token_ids": [span[period // 2 + 1]],
                "wrong_token_ids": [other],
            }
        )
    return check_task_prompts(pl.DataFrame(rows, schema=TASK_PROMPTS_SCHEMA, orient="row"))


@pytest.fixture(scope="module")
def years(organism: LanguageModel) -> pl.DataFrame:
    frame = greater_than(organism.encode, 8, 0, organism.bos_token_id)
    return frame.filter(variant="base")


def test_both_forms_of_ioi_have_the_same_trace(
    organism: LanguageModel, organism_prompts: pl.DataFrame
) -> None:
    roots = [Root(3, 3), Root(2, 6, "S2"), Root(3, 1, "PLACE")]
    wide = trace_circuit(organism, organism_prompts, roots)
    common = trace_circuit(organism, from_ioi(organism_prompts), roots)
    assert wide.slices.equals(common.slices)
    assert wide.edges.equals(common.edges)
    assert wide.roots.equals(common.roots)
    # A role that only some prompts have.
    with_place = organism_prompts["pos_place"].is_not_null().sum()
    assert wide.roots["n_prompts"].to_list() == [*[organism_prompts.height] * 2, with_place]
    scores = [
        find_roots(organism, frame) for frame in (organism_prompts, from_ioi(organism_prompts))
    ]
    assert scores[0].equals(scores[1])


def test_direct_effects_are_along_the_mean_of_the_answers(
    organism: LanguageModel, years: pl.DataFrame
) -> None:
    """Heads and all other writers sum to mean logit of the answers - mean logit of the wrong."""
    weights, last = organism.weights, organism.config.n_layers - 1
    others = whole = 0.0
    for row in years.iter_rows(named=True):
        ids, right, wrong = (
            torch.tensor(row[c]) for c in ("token_ids", "answer_token_ids", "wrong_token_ids")
        )
        with torch.no_grad():
            _, cache = organism.processed.run_with_cache(ids[None])
            logits = organism.hf(ids[None]).logits[0, -1].double()
        whole += float(logits[right].mean() - logits[wrong].mean())
        final = cache[f"blocks.{last}.hook_resid_post"][0, -1].double()
        scale = ((final - final.mean()).square().mean() + organism.config.eps).sqrt()
        W_U, b_U = weights.W_U.double(), weights.b_U.double()
        direction = W_U[:, right].mean(1) - W_U[:, wrong].mean(1)
        rest = cache["blocks.0.hook_resid_pre"][0, -1].double()
        for layer in range(organism.config.n_layers):
            rest = rest + cache[f"blocks.{layer}.hook_mlp_out"][0, -1] + weights.b_O[layer]
        rest = (rest - rest.mean()) @ direction / scale
        others += float(rest + b_U[right].mean() - b_U[wrong].mean())
    scores = root_scores(organism, years, sources=task_sources(years))
    heads = scores["direct_effect"].to_numpy().sum()
    assert heads + others / years.height == pytest.approx(whole / years.height, abs=1e-3)
    assert {f"attention_{r}" for r in ("noun", "century", "year", "unit")} <= set(scores.columns)


def test_a_family_on_the_organism(organism: LanguageModel, years: pl.DataFrame) -> None:
    assert task_sources(years) == ["NOUN", "CENTURY", "YEAR", "UNIT"]
    roots = root_heads(find_roots(organism, years, sources=task_sources(years)))
    trace = trace_circuit(organism, years, roots, TraceSettings(keep_all=True))
    assert_identities(trace, 2e-4)
    pairs = trace.slices.filter("is_root")
    assert set(pairs["destination_role"]) == {"END"}
    assert set(pairs["source_role"]) == {root.source for root in roots}
    assert trace.roots["n_firing"].sum() == pairs["fires"].sum() > 0


def test_rotary_and_grouped_query_models(stories: LanguageModel) -> None:
    """stories260K has no tokenizer: random repeated tokens in the common form are traced."""
    prompts = repeats(stories, 6, 10)
    scores = root_scores(
        stories, prompts, sources=task_sources(prompts), min_attention=0, min_effect_share=0
    )
    assert scores.height == stories.config.n_layers * stories.config.n_heads
    # The heads whose pair fires most, wherever their direct effect goes.
    heads = scores.sort("firing", descending=True).head(3)
    roots = [Root(*row) for row in heads.select("layer", "head", "source").iter_rows()]
    trace = trace_circuit(stories, prompts, roots, TraceSettings(keep_all=True))
    assert_identities(trace, 2e-4)
    assert {"REPEAT", "SAME"} & set(trace.slices["source_role"])
    assert trace.roots["n_firing"].sum() > 0


def test_what_cannot_be_traced_is_named(organism: LanguageModel, years: pl.DataFrame) -> None:
    with pytest.raises(CircuitError, match=r"source 'IO'; roles of these prompts: END, NOUN"):
        trace_circuit(organism, years, [(3, 3)])
    with pytest.raises(CircuitError, match="no sources"):
        find_roots(organism, years, sources=[])
    pronouns = gendered_pronoun(organism.encode, 4, 0, organism.bos_token_id)
    with pytest.raises(CircuitError, match="attention from END to one of NAME, VERB"):
        find_roots(organism, pronouns, sources=["NAME", "VERB"], min_attention=1.0)


def test_relative_attention_traces_every_pair_by_one_rule(
    organism: LanguageModel, organism_prompts: pl.DataFrame
) -> None:
    """Pairs fire by attention alone, and all are traced relative to their other sources."""
    roots = [Root(1, 0, "S2"), Root(3, 3)]
    settings = TraceSettings(keep_all=True, trace_rule="relative")
    strict = trace_circuit(organism, organism_prompts, roots, TraceSettings(keep_all=True))
    every = trace_circuit(organism, organism_prompts, roots, settings)
    assert every.slices["trace_rule"].unique().to_list() == ["relative"]
    traced = every.slices.filter(pl.col("path_multiplicity") > 0)
    assert traced.height > strict.slices.filter(pl.col("path_multiplicity") > 0).height
    assert traced["fires"].all()
    assert (traced["attention"] >= 0.5).all()
    assert (traced["n_slices"] > 0).all()
    assert traced.filter(pl.col("attention_score") < 0).height > 3
    # Root pairs are not alone: upstream pairs with a negative score are followed too.
    assert traced.filter((pl.col("attention_score") < 0) & ~pl.col("is_root")).height > 0
    # Attention of at least one half is a score above the mean of the others.
    whole = every.edges.group_by(*EDGE_PAIR, "side").agg(pl.col("exact_effect").sum())
    assert whole.height == 2 * traced.height
    sources = every.edges.filter(pl.col("side") == "source")
    heads = sources.filter(upstream_kind="head")
    elsewhere = heads.filter(pl.col("written_at") != pl.col("source"))
    assert elsewhere.height > 0
    assert (elsewhere["written_at"] <= elsewhere["destination"]).all()
    destinations = every.edges.filter(pl.col("side") == "destination")
    assert (destinations["written_at"] == destinations["destination"]).all()
    # What lowers the scores of other tokens counts too.
    assert (elsewhere.filter("kept")["contribution"] > 0).all()
    assert elsewhere.filter("kept").height > 0
