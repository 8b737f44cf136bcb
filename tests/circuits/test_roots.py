"""Root heads: direct effects that add up, the rule, errors."""

import polars as pl
import pytest
import torch

from mechinterp_assets.circuits.baseline import ioi_baseline
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.roots import find_roots, root_heads
from mechinterp_assets.model.language_model import LanguageModel


@pytest.fixture(scope="module")
def scores(organism: LanguageModel, organism_prompts: pl.DataFrame) -> pl.DataFrame:
    return find_roots(
        organism, organism_prompts, min_effect_share=0, min_attention=0.02, min_firing=0.02
    )


def test_direct_effects_and_other_writers_sum_to_the_logit_difference(
    organism: LanguageModel, organism_prompts: pl.DataFrame, scores: pl.DataFrame
) -> None:
    """All writers' direct effects are the logit difference; the heads' part is what is reported."""
    weights, last = organism.weights, organism.config.n_layers - 1
    others = 0.0
    for row in organism_prompts.iter_rows(named=True):
        with torch.no_grad():
            _, cache = organism.processed.run_with_cache(torch.tensor([row["token_ids"]]))
        end, io, s = row["pos_end"], row["io_token_id"], row["s_token_id"]
        final = cache[f"blocks.{last}.hook_resid_post"][0, end].double()
        scale = ((final - final.mean()).square().mean() + organism.config.eps).sqrt()
        direction = (weights.W_U[:, io] - weights.W_U[:, s]).double()
        direction = direction - direction.mean()
        rest = cache["blocks.0.hook_resid_pre"][0, end].double()
        for layer in range(organism.config.n_layers):
            rest = rest + cache[f"blocks.{layer}.hook_mlp_out"][0, end] + weights.b_O[layer]
        others += float(rest @ direction / scale + weights.b_U[io] - weights.b_U[s])
    others /= organism_prompts.height
    whole = ioi_baseline(organism, organism_prompts)["logit_diff"].to_numpy().mean()
    assert scores["direct_effect"].to_numpy().sum() + others == pytest.approx(whole, abs=1e-3)


def test_the_rule(organism: LanguageModel, scores: pl.DataFrame) -> None:
    assert scores.height == organism.config.n_layers * organism.config.n_heads
    roots = scores.filter("is_root")
    assert 1 <= roots.height <= 3
    assert (roots["direct_effect"] > 0).all()
    assert (roots["firing"] >= 0.02).all()
    assert roots["direct_effect"].is_sorted(descending=True)
    attention = {role: f"attention_{role.lower()}" for role in ("IO", "S1", "S2")}
    for row in scores.iter_rows(named=True):
        assert row[attention[row["source"]]] == max(row[name] for name in attention.values())
    better = scores.filter(
        ~pl.col("is_root")
        & (pl.col("direct_effect") > roots["direct_effect"].to_numpy().min())
        & (pl.max_horizontal(*attention.values()) >= 0.02)
        & (pl.col("firing") >= 0.02)
    )
    assert better.is_empty()
    assert root_heads(scores) == roots.select("layer", "head", "source").rows()
    assert scores["firing"].is_between(0, 1).all()


def test_attention_is_the_mean_of_the_patterns(
    organism: LanguageModel, organism_prompts: pl.DataFrame, scores: pl.DataFrame
) -> None:
    row = scores.row(4, named=True)
    name = f"blocks.{row['layer']}.attn.hook_pattern"
    found = []
    for prompt in organism_prompts.iter_rows(named=True):
        with torch.no_grad():
            _, cache = organism.processed.run_with_cache(torch.tensor([prompt["token_ids"]]))
        source = prompt[f"pos_{row['source'].lower()}"]
        found.append(float(cache[name][0, row["head"], prompt["pos_end"], source]))
    assert row[f"attention_{row['source'].lower()}"] == pytest.approx(
        sum(found) / len(found), abs=1e-5
    )
    assert row["firing"] == pytest.approx(sum(a >= 0.5 for a in found) / len(found), abs=0.05)


def test_no_root_is_an_error_that_names_the_nearest(
    organism: LanguageModel, organism_prompts: pl.DataFrame
) -> None:
    with pytest.raises(CircuitError, match="qualifies as a root"):
        find_roots(organism, organism_prompts.head(4), min_attention=1.1)
    with pytest.raises(CircuitError, match="count is 0"):
        find_roots(organism, organism_prompts.head(4), count=0)
