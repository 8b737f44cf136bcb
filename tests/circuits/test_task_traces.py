"""Tracing of tasks other than IOI: the same identities, roles and answers of any prompts."""

import polars as pl
import pytest
import torch

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.residual import residual_stream
from mechinterp_assets.circuits.roots import find_roots, root_heads, root_scores, task_sources
from mechinterp_assets.circuits.settings import TraceSettings
from mechinterp_assets.circuits.slices import select_slices
from mechinterp_assets.circuits.trace import Root, Trace, trace_circuit
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import TASK_PROMPTS_SCHEMA, check_task_prompts, from_ioi
from mechinterp_assets.prompts.gendered_pronoun import gendered_pronoun
from mechinterp_assets.prompts.greater_than import greater_than

PAIR = ["prompt", "layer", "head", "destination", "source"]


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


def test_roots_with_a_negative_score(
    organism: LanguageModel, organism_prompts: pl.DataFrame
) -> None:
    """By attention alone: S and writers of the score minus the mean of the other sources."""
    roots = [Root(1, 0, "S2"), Root(3, 3)]
    strict = trace_circuit(organism, organism_prompts, roots, TraceSettings(keep_all=True))
    every = trace_circuit(
        organism, organism_prompts, roots, TraceSettings(keep_all=True, firing_score_min=None)
    )
    assert_identities(every, 2e-4)
    negative = every.slices.filter(
        (pl.col("attention_score") < 0) & (pl.col("path_multiplicity") > 0)
    )
    assert negative.height > 3
    assert not negative["fires"].any()
    assert (negative["attention"] >= 0.5).all()
    assert (negative["n_slices"] > 0).all()
    assert every.roots["n_firing"].sum() == strict.roots["n_firing"].sum() + negative.height
    # Nothing else changes.
    key = [*PAIR, "slices", "path_multiplicity"]
    of_root = negative.select("prompt").unique()
    others = strict.slices.join(of_root, on="prompt", how="anti").select(key).sort(PAIR)
    assert others.equals(every.slices.join(of_root, on="prompt", how="anti").select(key).sort(PAIR))

    omega = ModelOmega(organism)
    for row in negative.head(3).iter_rows(named=True):
        layer, head, i, j = (row[name] for name in ("layer", "head", "destination", "source"))
        ids = organism_prompts.filter(prompt=row["prompt"])["token_ids"][0].to_list()
        stream = residual_stream(organism, torch.tensor([ids]), layer + 1, device=omega.device)
        x = torch.cat([stream.normalised(layer)[0], torch.ones(len(ids), 1)], 1).double()
        U, sigma, V = omega.vectors(layer, head)
        terms = sigma * (x[i] @ U) * (x[: i + 1] @ V)
        rest = [s for s in range(i + 1) if s != j]
        relative = terms[j] - terms[rest].mean(0)
        assert float(relative.sum()) > 0
        chosen = select_slices(relative[None])[0]
        assert row["slices"] == chosen.nonzero()[:, 0].tolist()
        weight = torch.where(x[i] @ U < 0, -1.0, 1.0) * sigma.sqrt() * chosen
        written = stream.outputs[0].double() - stream.outputs[0].double().mean(-1, keepdim=True)
        written = written / stream.scale(layer)[0][:, None, None]
        expected = {
            "destination": written[i] @ (U[:-1] @ weight),
            "source": (written[j] - written[rest].mean(0)) @ (V[:-1] @ weight),
        }
        for side, values in expected.items():
            assert row[f"{side}_writers"] == pytest.approx(float(values.sum()), rel=1e-3, abs=1e-3)
            size = float(values.abs().sum())
            edges = every.edges.filter(
                prompt=row["prompt"], downstream_layer=layer, downstream_head=head, side=side,
                source=j, upstream_kind="head",
            ).sort("upstream_layer", "upstream_head")  # fmt: skip
            of_heads = values[torch.from_numpy(stream.writers.is_head(layer))]
            difference = edges["contribution"].to_numpy() - of_heads.numpy()
            assert abs(difference).max() < 2e-4 * size
        whole = float((weight * ((x[j] - x[rest].mean(0)) @ V)).sum())
        assert row["source_whole"] == pytest.approx(whole, rel=1e-3)
        assert row["source_writers"] == pytest.approx(whole, rel=1e-3)


def test_rotary_models_have_no_mean_key(stories: LanguageModel) -> None:
    with pytest.raises(CircuitError, match="rotary positions"):
        trace_circuit(
            stories,
            repeats(stories, 1, 6),
            [Root(0, 0, "SAME")],
            TraceSettings(firing_score_min=None),
        )
