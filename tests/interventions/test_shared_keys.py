"""Grouped-query attention: what an edit of a key or value that heads share does, and to whom.

A model with grouped queries is the same function as one with as many key-value heads as heads and
every group's weights repeated. There each head has its own key, so that an edit of a shared key
must be the same edit of all heads of the group made there one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mechinterp_assets.interventions.api import request, run
from mechinterp_assets.interventions.experiments import edges_together
from mechinterp_assets.interventions.kinds.edge import EditEdge
from mechinterp_assets.interventions.kinds.path_patching import PatchPath
from mechinterp_assets.interventions.runner import intervention_sets
from mechinterp_assets.interventions.sets import InterventionSet, Planned
from mechinterp_assets.interventions.terms import InterventionError, Watched
from mechinterp_assets.model.language_model import LanguageModel
from tests.interventions.conftest import EdgeFrame

N_HEADS, D_HEAD = 4, 8
UP, DOWN = (0, 3), (1, 1)


@dataclass(frozen=True)
class Pair:
    """One function twice: heads that share keys and values, and heads with their own copies."""

    grouped: LanguageModel
    ungrouped: LanguageModel

    def group(self, head: int) -> list[int]:
        size = N_HEADS // self.grouped.config.n_kv_heads
        return [other for other in range(N_HEADS) if other // size == head // size]


@pytest.fixture(scope="module", params=[2, 1], ids=["4 heads, 2 keys", "4 heads, 1 key"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.manual_seed(3)

    def config(n_kv_heads: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=30,
            hidden_size=N_HEADS * D_HEAD,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=N_HEADS,
            num_key_value_heads=n_kv_heads,
            max_position_embeddings=16,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=0,
        )

    shared = LlamaForCausalLM(config(request.param)).eval()
    copies = LlamaForCausalLM(config(N_HEADS)).eval()
    weights = dict(shared.state_dict())
    for name, value in weights.items():
        if name.endswith(("k_proj.weight", "v_proj.weight")):
            heads = value.reshape(request.param, D_HEAD, -1)
            repeated = heads.repeat_interleave(N_HEADS // request.param, dim=0)
            weights[name] = repeated.reshape(N_HEADS * D_HEAD, -1)
    copies.load_state_dict(weights)
    folders = [tmp_path_factory.mktemp(name) for name in ("shared", "copies")]
    for model, folder in zip((shared, copies), folders, strict=True):
        model.save_pretrained(folder)
    return Pair(*map(LanguageModel.load, folders))


def edge(head: int = DOWN[1], *, side: str = "source", receiver: str | None = "k") -> EditEdge:
    return EditEdge.model_validate(
        {
            "mode": "ablate",
            "layer": DOWN[0],
            "head": head,
            "upstream_layer": UP[0],
            "upstream_head": UP[1],
            "destination_role": "END",
            "source_role": "S2",
            "side": side,
            "scope": "global" if receiver is None else "local",
            "receiver": receiver,
        }
    )


Traced = Callable[[str], pl.DataFrame]


@pytest.fixture
def traced(toy_prompts: pl.DataFrame, traced_edge: EdgeFrame) -> Traced:
    """The edges into all heads of the layer, through all slices of each.

    All right (left) singular vectors of any head of a group span the column space of their common
    key weights (of its own query weights).
    """
    roles, slices = ("END", "S2"), list(range(D_HEAD))

    def make(side: str) -> pl.DataFrame:
        return pl.concat(
            traced_edge(toy_prompts, UP, (DOWN[0], head), roles, side, slices)
            for head in range(N_HEADS)
        )

    return make


def results(
    model: LanguageModel, prompts: pl.DataFrame, what: Planned, traced: pl.DataFrame | None = None
) -> pl.DataFrame:
    frame = run(model, prompts, [what], trace_edges=traced).filter(pl.col("metric") != "attn_score")
    return frame.sort("metric", "prompt")


def same(one: pl.DataFrame, other: pl.DataFrame) -> None:
    for name in ("clean", "patched"):
        assert one[name].to_list() == pytest.approx(other[name].to_list(), abs=1e-4, rel=1e-4)
    moved = (one["patched"] - one["clean"]).abs().max()
    assert float(moved) > 1e-2


def test_both_are_one_function(pair: Pair) -> None:
    ids = torch.arange(1, 9)[None]
    torch.testing.assert_close(pair.grouped.raw(ids), pair.ungrouped.raw(ids), atol=1e-4, rtol=1e-4)


def test_a_shared_key_is_edited_for_all_heads_of_its_group(
    pair: Pair, toy_prompts: pl.DataFrame, traced: Traced
) -> None:
    edges = traced("source")
    group = pair.group(DOWN[1])
    every = InterventionSet(name="all of the group", members=tuple(map(edge, group)))
    one = results(pair.grouped, toy_prompts, edge(), edges)
    same(one, results(pair.ungrouped, toy_prompts, every, edges))
    others = "+".join(f"L{DOWN[0]}H{head}" for head in group if head != DOWN[1])
    assert set(one["shared_with"]) == {others}
    # Named by another head of the group it is the same edit.
    same(one, results(pair.grouped, toy_prompts, edge(group[-1]), edges))


def test_queries_and_global_edits_are_of_one_head(
    pair: Pair, toy_prompts: pl.DataFrame, traced: Traced
) -> None:
    edges = traced("destination")
    for one in (edge(side="destination", receiver="q"), edge(side="destination", receiver=None)):
        grouped = results(pair.grouped, toy_prompts, one, edges)
        same(grouped, results(pair.ungrouped, toy_prompts, one, edges))
        assert grouped["shared_with"].null_count() == grouped.height


def test_keys_and_values_of_the_authors_receiver_are_those_of_the_group(
    pair: Pair, toy_prompts: pl.DataFrame, traced: Traced
) -> None:
    """qkv edits the named head's query, and the group's key and value."""
    edges = traced("source")
    others = [edge(head, receiver="k") for head in pair.group(DOWN[1]) if head != DOWN[1]]
    grouped = results(pair.grouped, toy_prompts, edge(receiver="qkv"), edges)
    keys = results(pair.grouped, toy_prompts, edge(receiver="k"), edges)
    assert (grouped["patched"] - keys["patched"]).abs().max() > 1e-3
    assert set(grouped["shared_with"]) == {"+".join(f"L{one.layer}H{one.head}" for one in others)}


@pytest.mark.parametrize("watched", range(N_HEADS))
def test_scores_of_other_groups_stay(
    pair: Pair, toy_prompts: pl.DataFrame, traced: Traced, watched: int
) -> None:
    watch = Watched(layer=DOWN[0], head=watched, destination_role="END", source_role="S2")
    one = edge().model_copy(update={"watch": watch})
    frame = run(pair.grouped, toy_prompts, [one], trace_edges=traced("source"))
    scores = frame.filter(metric="attn_score")
    moved = (scores["patched"] - scores["clean"]).abs()
    if watched in pair.group(DOWN[1]):
        assert moved.min() > 1e-3
    else:
        assert moved.max() < 1e-6  # rounding of a shorter pass


@pytest.mark.parametrize("receiver", ["k", "v"])
def test_paths_into_shared_keys_and_values_reach_the_group(
    pair: Pair, toy_prompts: pl.DataFrame, receiver: str
) -> None:
    other = toy_prompts.with_columns(
        pl.col("prompt") + 100,
        pl.col("prompt").alias("pair_id"),
        pl.lit("swapped").alias("variant"),
        pl.col("token_ids").list.reverse(),
    )
    prompts = pl.concat(
        [
            toy_prompts.with_columns(pair_id="prompt", variant=pl.lit("base")).select(
                other.columns
            ),
            other,
        ]
    )

    def path(heads: list[int]) -> PatchPath:
        return PatchPath.model_validate(
            {
                "senders": [UP],
                "source_variant": "swapped",
                "receiver": receiver,
                "receivers": [(DOWN[0], head) for head in heads],
                "receiver_role": "all",
            }
        )

    group = pair.group(DOWN[1])
    grouped = results(pair.grouped, prompts, path([DOWN[1]]))
    same(grouped, results(pair.ungrouped, prompts, path(group)))
    # Several receivers of one group are given what they share once.
    twice = path(group).model_copy(update={"alpha": 0.5})
    same(results(pair.grouped, prompts, twice), results(pair.ungrouped, prompts, twice))
    assert results(pair.grouped, prompts, twice)["shared_with"].null_count() == grouped.height


def test_a_shared_key_is_edited_once(pair: Pair, toy_prompts: pl.DataFrame, traced: Traced) -> None:
    edges = traced("source")
    first, second = pair.group(DOWN[1])[:2]
    both = InterventionSet(name="both", members=(edge(first), edge(second)))
    with pytest.raises(InterventionError, match=r"set:both: .*share keys and values"):
        run(pair.grouped, toy_prompts, [both], trace_edges=edges)
    plan = request(pair.grouped, toy_prompts, [both, edge()], trace_edges=edges).plan()
    assert [one.id for one in plan.runs] == [edge().id]
    assert list(plan.reasons) == [both.id]
    made = edges_together(edges.filter(prompt=0), "out", pair.grouped.config)
    alone = edges_together(edges.filter(prompt=0), "out", pair.ungrouped.config)
    n_groups = pair.grouped.config.n_kv_heads
    assert alone is not None
    assert len(alone.members) == N_HEADS
    if n_groups == 1:
        assert made is None
    else:
        assert made is not None
        heads = [member.head for member in made.members if isinstance(member, EditEdge)]
        assert heads == [0, 2]
        listed = intervention_sets([made], pair.grouped.config)
        assert listed["shared_with"].to_list() == ["L1H1", "L1H3"]
