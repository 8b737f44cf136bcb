"""Edge attribution, exact patching and edge sets, against each other and a naive reference."""

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.faithfulness.edge_attribution import (
    EAP,
    RULES,
    Attribution,
    attribute_edges,
    eap_ig,
)
from mechinterp_assets.faithfulness.edge_graph import EdgeGraph, FaithfulnessError
from mechinterp_assets.faithfulness.edge_patching import exact_edge_effects, sampled_edges
from mechinterp_assets.faithfulness.edge_sets import circuit_curves, edge_set_logit_differences
from mechinterp_assets.faithfulness.prompt_pairs import (
    PromptBatch,
    logit_difference,
    prompt_pairs,
)
from mechinterp_assets.faithfulness.rankings import Ranking
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.model.language_model import LanguageModel
from tests.faithfulness.naive_edges import naive_logit_difference

# Folding LayerNorms into the weights goes through float32: processed and raw weights differ by it.
FOLDING = 1e-5


def ends(model: SplitModel, pairs: PromptBatch) -> tuple[np.ndarray, np.ndarray]:
    """Logit differences of the clean and of the counterfactual runs [prompt]."""
    rows = torch.arange(len(pairs))
    clean, corrupt = (
        logit_difference(model, pairs, model.run(ids).final[rows, pairs.end]).numpy()
        for ids in (pairs.clean, pairs.corrupt)
    )
    return clean, corrupt


def naive(
    model: LanguageModel, graph: EdgeGraph, prompts: pl.DataFrame, pair: int, weights: torch.Tensor
) -> torch.Tensor:
    rows = prompts.filter(pair_id=pair).sort("variant")
    clean, corrupt = (torch.tensor(ids) for ids in rows["token_ids"].to_list())
    answer, wrong = rows["answer_token_ids"][0][0], rows["wrong_token_ids"][0][0]
    return naive_logit_difference(model, graph, clean, corrupt, answer, wrong, weights)


# ---- edge sets -----------------------------------------------------------------------------------


def test_all_edges_are_the_clean_run_and_none_the_counterfactual(
    split: SplitModel, pairs: PromptBatch
) -> None:
    graph = split.graph
    found = edge_set_logit_differences(split, pairs, [graph.exists, graph.mask(np.arange(0))])
    np.testing.assert_allclose(found, np.stack(ends(split, pairs)), rtol=1e-10, atol=1e-10)


def test_edge_sets_are_those_of_the_naive_reference(
    gpt2: LanguageModel, toy_prompts: pl.DataFrame
) -> None:
    model = SplitModel(gpt2)
    pairs = prompt_pairs(model, toy_prompts, counterfactual="corrupt", count=2)
    graph, rng = model.graph, np.random.default_rng(0)
    masks = [graph.exists & (rng.random(graph.exists.shape) < share) for share in (0.9, 0.5, 0.3)]
    found = edge_set_logit_differences(model, pairs, masks)
    for number, mask in enumerate(masks):
        weights = torch.from_numpy(mask).double()
        for pair in range(2):
            expected = float(naive(gpt2, graph, toy_prompts, pair, weights))
            assert found[number, pair] == pytest.approx(expected, abs=FOLDING)


def test_batches_do_not_matter(split: SplitModel, pairs: PromptBatch) -> None:
    graph, rng = split.graph, np.random.default_rng(1)
    masks = [graph.exists & (rng.random(graph.exists.shape) < 0.7) for _ in range(3)]
    whole = edge_set_logit_differences(split, pairs, masks)
    parts = edge_set_logit_differences(split, pairs, masks, batch_rows=2)
    np.testing.assert_allclose(whole, parts, rtol=1e-10)


def test_edges_that_do_not_exist_are_refused(split: SplitModel, pairs: PromptBatch) -> None:
    with pytest.raises(FaithfulnessError, match="does not have"):
        edge_set_logit_differences(split, pairs, [np.ones_like(split.graph.exists)])


# ---- exact patching ------------------------------------------------------------------------------


def test_exact_effects_are_runs_of_all_edges_but_one(split: SplitModel, pairs: PromptBatch) -> None:
    """Two code paths: an edge taken out of the whole graph, and the edge alone patched."""
    graph = split.graph
    effects = exact_edge_effects(split, pairs, batch_rows=24)
    masks = []
    for receiver, node in graph.edges:
        mask = graph.exists.copy()
        mask[receiver, node] = False
        masks.append(mask)
    clean, _ = ends(split, pairs)
    without = edge_set_logit_differences(split, pairs, masks)
    np.testing.assert_allclose(effects, (clean - without).T, rtol=1e-8, atol=1e-10)


def test_exact_effects_of_a_sample(split: SplitModel, pairs: PromptBatch) -> None:
    edges = sampled_edges(split.graph.n_edges, 7, seed=3)
    assert len(set(edges.tolist())) == 7
    every = exact_edge_effects(split, pairs)
    np.testing.assert_allclose(exact_edge_effects(split, pairs, edges), every[:, edges], atol=1e-12)
    assert len(sampled_edges(split.graph.n_edges, 10**6, seed=3)) == split.graph.n_edges


# ---- attribution ---------------------------------------------------------------------------------


def test_attribution_is_exact_on_a_linear_model(
    linear: SplitModel, toy_prompts: pl.DataFrame
) -> None:
    pairs = prompt_pairs(linear, toy_prompts, counterfactual="corrupt")
    exact = exact_edge_effects(linear, pairs).mean(0)
    assert np.abs(exact).max() > 1e-9
    scores = attribute_edges(linear, pairs, [EAP, *(eap_ig(rule, 2) for rule in RULES)])
    for values in scores.values():
        np.testing.assert_allclose(values, exact, atol=1e-6 * np.abs(exact).max())
    # Edges into the logits: the whole is the sum of its parts.
    clean, corrupt = ends(linear, pairs)
    into_logits = linear.graph.edges[:, 0] == linear.graph.logits
    assert exact[into_logits].sum() == pytest.approx((clean - corrupt).mean(), rel=1e-6)


def test_eap_is_the_gradient_with_respect_to_the_edges(
    gpt2: LanguageModel, toy_prompts: pl.DataFrame
) -> None:
    """Of the naive run: d m / d w at w = 1 is (clean - corrupt) . dm/d in_v."""
    model = SplitModel(gpt2)
    pairs = prompt_pairs(model, toy_prompts, counterfactual="corrupt", count=2)
    expected = torch.zeros(model.graph.exists.shape, dtype=torch.float64)
    for pair in range(2):
        weights = torch.ones_like(expected, requires_grad=True)
        with torch.enable_grad():
            value = naive(gpt2, model.graph, toy_prompts, pair, weights)
        expected += torch.autograd.grad(value, weights)[0] / 2
    found = attribute_edges(model, pairs, [EAP])["eap"]
    np.testing.assert_allclose(found, expected.numpy()[model.graph.exists], atol=FOLDING)


def test_integrated_gradients_are_complete(split: SplitModel, pairs: PromptBatch) -> None:
    """Edges out of the embedding carry the whole difference of the two runs, in the limit."""
    clean, corrupt = ends(split, pairs)
    whole = float((clean - corrupt).mean())
    from_embedding = split.graph.edges[:, 1] == 0
    scores = attribute_edges(split, pairs, [eap_ig("midpoint", 60), eap_ig("library", 60)])
    error = {name: abs(values[from_embedding].sum() - whole) for name, values in scores.items()}
    assert error["eap_ig_midpoint"] < 5e-3 * abs(whole) + 5e-3
    assert error["eap_ig_midpoint"] < error["eap_ig_library"]


def test_rules_differ_by_their_end_points(split: SplitModel, pairs: PromptBatch) -> None:
    assert eap_ig("library", 5).alphas == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert eap_ig("paper", 5).alphas == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert eap_ig("midpoint", 5).alphas == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    both = [EAP, eap_ig("library", 4), eap_ig("paper", 4), Attribution("at", "library", 1)]
    scores = attribute_edges(split, pairs, both)
    difference = scores["eap_ig_paper"] - scores["eap_ig_library"]
    np.testing.assert_allclose(difference, (scores["eap"] - scores["at_library"]) / 4, atol=1e-10)


def test_a_ragged_last_batch_weighs_by_prompts(split: SplitModel, pairs: PromptBatch) -> None:
    whole = attribute_edges(split, pairs, [eap_ig("library", 2)])
    parts = attribute_edges(split, pairs, [eap_ig("library", 2)], batch_rows=3)
    singles = [
        attribute_edges(split, one, [eap_ig("library", 2)])["eap_ig_library"]
        for one in pairs.split(1)
    ]
    for found in (parts["eap_ig_library"], np.mean(singles, axis=0)):
        np.testing.assert_allclose(found, whole["eap_ig_library"], rtol=1e-9, atol=1e-12)


def test_little_memory_makes_small_batches(
    split: SplitModel, pairs: PromptBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = np.arange(0, split.graph.n_edges, 9)
    before = [attribute_edges(split, pairs, [EAP])["eap"], exact_edge_effects(split, pairs, edges)]
    monkeypatch.setattr("mechinterp_assets.faithfulness.split_model.MEMORY_MIB", 0)
    assert split.prompts_that_fit(9, 32) == split.rows_that_fit(9, 32) == 1
    after = [attribute_edges(split, pairs, [EAP])["eap"], exact_edge_effects(split, pairs, edges)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_bad_attributions_are_named() -> None:
    with pytest.raises(FaithfulnessError, match="rule 'simpson' is unknown"):
        eap_ig("simpson")
    with pytest.raises(FaithfulnessError, match="0 steps"):
        eap_ig("library", 0)


# ---- curves --------------------------------------------------------------------------------------


def test_a_curve_ends_at_one_and_counts_before_pruning(
    split: SplitModel, pairs: PromptBatch
) -> None:
    exact = exact_edge_effects(split, pairs).mean(0)
    curve = circuit_curves(split, pairs, [Ranking("exact", exact)], fractions=(0.01, 0.5, 1.0))
    assert curve["n_edges"].to_list() == [int(k * split.graph.n_edges) for k in (0.01, 0.5, 1.0)]
    assert curve["faithfulness"][2] == pytest.approx(1)
    assert curve["faithfulness"][0] == 0  # one edge connects nothing
    assert curve["n_connected"].to_list()[0] == 0
    assert (curve["n_connected"] <= curve["n_edges"]).all()
    with pytest.raises(FaithfulnessError, match="shares in"):
        circuit_curves(split, pairs, [Ranking("exact", exact)], fractions=(0.0, 1.0))


def test_faithfulness_needs_a_difference(split: SplitModel, toy_prompts: pl.DataFrame) -> None:
    same = toy_prompts.with_columns(
        pl.col("token_ids").sort_by("variant").first().over("pair_id").alias("token_ids")
    )
    pairs = prompt_pairs(split, same, counterfactual="corrupt")
    with pytest.raises(FaithfulnessError, match="choose another counterfactual"):
        circuit_curves(split, pairs, [Ranking("any", np.ones(split.graph.n_edges))])


def test_bad_prompts_are_named(split: SplitModel, toy_prompts: pl.DataFrame) -> None:
    with pytest.raises(FaithfulnessError, match="no prompts of variant 'ABC'"):
        prompt_pairs(split, toy_prompts, counterfactual="ABC")
    longer = toy_prompts.with_columns(
        n_tokens=pl.when(pl.col("prompt") == 5).then(8).otherwise("n_tokens").cast(pl.Int32),
        token_ids=pl.when(pl.col("prompt") == 5)
        .then(pl.lit([0, 1, 2, 3, 4, 5, 6, 7], dtype=pl.List(pl.Int32)))
        .otherwise("token_ids"),
        positions=pl.when(pl.col("prompt") == 5)
        .then(pl.lit([2, 7], dtype=pl.List(pl.Int32)))
        .otherwise("positions"),
    )
    with pytest.raises(FaithfulnessError, match="prompt 0: it has 7 tokens"):
        prompt_pairs(split, longer, counterfactual="corrupt")


# ---- the embedded model --------------------------------------------------------------------------


def test_attribution_orders_the_edges_of_the_embedded_model(
    organism: LanguageModel, ioi_pairs: pl.DataFrame
) -> None:
    model = SplitModel(organism)
    pairs = prompt_pairs(model, ioi_pairs, counterfactual="S2_to_IO", count=2)
    into_logits = np.flatnonzero(model.graph.edges[:, 0] == model.graph.logits)
    edges = np.union1d(sampled_edges(model.graph.n_edges, 80, seed=0), into_logits)
    exact = exact_edge_effects(model, pairs, edges).mean(0)
    scores = attribute_edges(model, pairs, [EAP, eap_ig("midpoint", 5)])
    for values in scores.values():
        assert np.corrcoef(values[edges], exact)[0, 1] > 0.9
