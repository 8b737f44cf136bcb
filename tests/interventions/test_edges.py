"""Edge interventions against a dense, unbatched reference and exact identities."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.interventions.edge_choice import edge_interventions, heaviest_edges
from mechinterp_assets.interventions.edge_keys import EDGE_KEY
from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.kinds.edge import EditEdge
from mechinterp_assets.interventions.prompts import ROLE_COLUMNS
from mechinterp_assets.interventions.runner import run_interventions
from mechinterp_assets.interventions.sets import InterventionSet, Planned
from mechinterp_assets.interventions.sweeps import intervene_on_edges
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.interventions.traced_edges import (
    TracedEdges,
    control_slices,
    orthonormal_basis,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec

EdgeFrame = Callable[..., pl.DataFrame]

UP, DOWN = (0, 1), (1, 2)


def edge(side: str = "destination", **changes: object) -> EditEdge:
    fields: dict[str, object] = {
        "kind": "edge",
        "mode": "ablate",
        "layer": DOWN[0],
        "head": DOWN[1],
        "upstream_layer": UP[0],
        "upstream_head": UP[1],
        "destination_role": "END",
        "source_role": "S2",
        "side": side,
        "scope": "local",
        "receiver": "q" if side == "destination" else "k",
    }
    return EditEdge.model_validate({**fields, **changes})


def global_edge(side: str = "destination", **changes: object) -> EditEdge:
    return edge(side, scope="global", receiver=None, **changes)


def run(
    model: LanguageModel,
    prompts: pl.DataFrame,
    traced: pl.DataFrame,
    *what: Planned,
) -> pl.DataFrame:
    return run_interventions(EditContext(model, trace_edges=traced), prompts, list(what))


def values(frame: pl.DataFrame, metric: str, column: str) -> Tensor:
    return torch.tensor(frame.filter(metric=metric).sort("prompt")[column].to_list())


def dense_singular_vectors(model: LanguageModel, layer: int, head: int) -> tuple[Tensor, Tensor]:
    """U, V [d_model + 1, d_head] from a dense SVD of the whole Omega."""
    w = model.weights
    queries = torch.cat([w.W_Q[layer, head], w.b_Q[layer, head][None]]).double()
    keys = torch.cat([w.W_K[layer, head], w.b_K[layer, head][None]]).double()
    U, _, Vt = torch.linalg.svd(queries @ keys.T)
    rank = model.config.d_head
    return U[:, :rank], Vt[:rank].T


def reference_run(
    model: LanguageModel, prompt: dict[str, object], one: EditEdge, slices: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean score, patched score and patched logits of one prompt, from its tokens, in float64."""
    w = model.weights
    ids = torch.tensor([prompt["token_ids"]])
    _, cache = model.processed.run_with_cache(ids)
    destination = int(str(prompt[ROLE_COLUMNS[str(one.destination_role)]]))
    source = int(str(prompt[ROLE_COLUMNS[str(one.source_role)]]))
    place = destination if one.side == "destination" else source
    U, V = dense_singular_vectors(model, one.layer, one.head)
    vectors = (U if one.side == "destination" else V)[:-1, slices]
    up_layer, up_head = int(str(one.upstream_layer)), int(str(one.upstream_head))
    o = cache[f"blocks.{up_layer}.attn.hook_z"][0, place, up_head] @ w.W_O[up_layer, up_head]
    h = (vectors @ torch.linalg.lstsq(vectors, o.double()).solution).float()
    sign = one.alpha if one.mode == "boost" else -one.alpha
    scores: list[Tensor] = []

    def keep(value: Tensor, hook: object) -> None:
        scores.append(value[0, one.head, destination, source].clone())

    def edit_out(value: Tensor, hook: object) -> Tensor:
        value = value.clone()
        value[0, place] += sign * h
        return value

    def edit_of(weight: Tensor) -> object:
        def edit(value: Tensor, hook: object) -> Tensor:
            value = value.clone()
            scale = cache[f"blocks.{one.layer}.ln1.hook_scale"][0, place]
            value[0, place, one.head] += sign * (h / scale) @ weight[one.layer, one.head]
            return value

        return edit

    hooks: list[tuple[str, object]]
    if one.scope == "global":
        hooks = [(f"blocks.{up_layer}.hook_attn_out", edit_out)]
    else:
        weights = {"q": w.W_Q, "k": w.W_K, "v": w.W_V}
        hooks = [
            (f"blocks.{one.layer}.attn.hook_{name}", edit_of(weights[name]))
            for name in str(one.receiver)
        ]
    hooks.append((f"blocks.{one.layer}.attn.hook_attn_scores", keep))
    logits = model.processed.run_with_hooks(ids, fwd_hooks=hooks)[0, -1]
    clean = cache[f"blocks.{one.layer}.attn.hook_attn_scores"][0, one.head, destination, source]
    return clean, scores[0], logits


@pytest.mark.parametrize("side", ["destination", "source"])
@pytest.mark.parametrize("mode", ["ablate", "boost"])
def test_edits_equal_a_dense_unbatched_reference(
    two_layers: LanguageModel,
    toy_prompts: pl.DataFrame,
    traced_edge: EdgeFrame,
    side: str,
    mode: str,
) -> None:
    slices = [0, 2, 5]
    traced = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), side, slices)
    variants = [edge(side, mode=mode), edge(side, mode=mode, receiver="qkv", alpha=0.5)]
    variants.append(global_edge(side, mode=mode))
    frame = run(two_layers, toy_prompts, traced, *variants)
    for one in variants:
        got = frame.filter(intervention=one.id)
        assert got["n_slices"].unique().to_list() == [3]
        for prompt in toy_prompts.iter_rows(named=True):
            clean, patched, logits = reference_run(two_layers, prompt, one, slices)
            row = got.filter(prompt=prompt["prompt"], metric="attn_score")
            assert row["clean"][0] == pytest.approx(float(clean), abs=2e-4)
            assert row["patched"][0] == pytest.approx(float(patched), abs=2e-4)
            io, s = prompt["io_token_id"], prompt["s_token_id"]
            diff = got.filter(prompt=prompt["prompt"], metric="logit_diff")["patched"][0]
            assert diff == pytest.approx(float(logits[io] - logits[s]), abs=1e-3)
    assert (frame["patched"] - frame["clean"]).abs().max() > 0.1


@pytest.mark.parametrize("side", ["destination", "source"])
def test_all_slices_remove_the_whole_contribution(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame, side: str
) -> None:
    """With every slice, the score loses (o / s) W_Q . k (or q . (o / s) W_K), all of it."""
    model, w = two_layers, two_layers.weights
    everything = list(range(model.config.d_head))
    traced = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), side, everything)
    frame = run(model, toy_prompts, traced, edge(side))
    lost = []
    for prompt in toy_prompts.iter_rows(named=True):
        _, cache = model.processed.run_with_cache(torch.tensor([prompt["token_ids"]]))
        destination, source = prompt["pos_end"], prompt["pos_s2"]
        place = destination if side == "destination" else source
        o = cache["blocks.0.attn.hook_z"][0, place, UP[1]] @ w.W_O[UP]
        o = o / cache["blocks.1.ln1.hook_scale"][0, place]
        if side == "destination":
            change = (o @ w.W_Q[DOWN]) @ cache["blocks.1.attn.hook_k"][0, source, DOWN[1]]
        else:
            change = (o @ w.W_K[DOWN]) @ cache["blocks.1.attn.hook_q"][0, destination, DOWN[1]]
        lost.append(change / model.config.d_head**0.5)
    effect = values(frame, "attn_score", "patched") - values(frame, "attn_score", "clean")
    torch.testing.assert_close(effect, -torch.stack(lost), atol=2e-4, rtol=1e-3, check_dtype=False)
    assert effect.abs().max() > 0.05


@pytest.mark.parametrize("side", ["destination", "source"])
@pytest.mark.parametrize("mode", ["ablate", "boost"])
def test_global_equals_local_up_to_the_norm_where_nothing_lies_between(
    two_layers: LanguageModel,
    toy_prompts: pl.DataFrame,
    traced_edge: EdgeFrame,
    side: str,
    mode: str,
) -> None:
    """No MLP and no bias lies between: the scores differ by LayerNorm's new scale alone."""
    traced = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), side, [1, 3])
    frame = run(
        two_layers, toy_prompts, traced, edge(side, mode=mode), global_edge(side, mode=mode)
    )
    local = values(frame.filter(scope="local"), "attn_score", "patched")
    everywhere = frame.filter(scope="global")
    ratio = values(everywhere, "attn_score", "norm_ratio")
    torch.testing.assert_close(
        values(everywhere, "attn_score", "patched") * ratio, local, atol=2e-4, rtol=1e-3
    )
    torch.testing.assert_close(values(frame.filter(scope="local"), "kl", "norm_ratio"), ratio)
    assert (ratio - 1).abs().max() > 1e-3


def test_alpha_zero_changes_nothing(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    traced = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), "source", [0, 1])
    frame = run(
        two_layers, toy_prompts, traced, edge("source", alpha=0.0), global_edge("source", alpha=0.0)
    )
    assert (frame["patched"] - frame["clean"]).abs().max() < 1e-5


def test_parallel_edges_are_made_together(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    """Two heads write into one query: both edits at once, against both made by hand."""
    first, second = edge(), edge(upstream_head=3)
    traced = pl.concat(
        traced_edge(toy_prompts, (0, head), DOWN, ("END", "S2"), "destination", slices)
        for head, slices in ((1, [0, 2]), (3, [1, 2, 6]))
    )
    both = InterventionSet(name="parallel", members=(first, second))
    frame = run(two_layers, toy_prompts, traced, first, second, both)
    for prompt in toy_prompts.iter_rows(named=True):
        edits = []
        for one, slices in ((first, [0, 2]), (second, [1, 2, 6])):
            U, _ = dense_singular_vectors(two_layers, *DOWN)
            edits.append((int(str(one.upstream_head)), U[:-1, slices]))
        logits = _edited_queries(two_layers, prompt, edits)
        row = frame.filter(intervention="set:parallel", prompt=prompt["prompt"])
        diff = float(logits[prompt["io_token_id"]] - logits[prompt["s_token_id"]])
        assert row.filter(metric="logit_diff")["patched"][0] == pytest.approx(diff, abs=1e-3)


def _edited_queries(
    model: LanguageModel, prompt: dict[str, object], edits: list[tuple[int, Tensor]]
) -> Tensor:
    ids = torch.tensor([prompt["token_ids"]])
    _, cache = model.processed.run_with_cache(ids)
    end = int(str(prompt["pos_end"]))

    def edit(q: Tensor, hook: object) -> Tensor:
        q = q.clone()
        for head, vectors in edits:
            o = cache["blocks.0.attn.hook_z"][0, end, head] @ model.weights.W_O[0, head]
            h = (vectors @ torch.linalg.lstsq(vectors, o.double()).solution).float()
            h = h / cache["blocks.1.ln1.hook_scale"][0, end]
            q[0, end, DOWN[1]] -= h @ model.weights.W_Q[DOWN]
        return q

    out: Tensor = model.processed.run_with_hooks(ids, fwd_hooks=[("blocks.1.attn.hook_q", edit)])
    return out[0, -1]


def test_serial_set_reads_the_edited_run(
    organism: LanguageModel, base: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    """A removes what feeds M, B removes M's output as read by D: B must see M after A."""
    few = base.head(2)
    last = organism.config.n_layers - 1
    everything = list(range(organism.config.d_head))
    traced = pl.concat(
        [
            traced_edge(few, (0, 0), (1, 1), ("END", "S2"), "destination", everything),
            traced_edge(few, (1, 1), (last, 0), ("END", "S2"), "destination", everything),
        ]
    )
    common = {"destination_role": "END", "source_role": "S2"}
    a = global_edge(upstream_layer=0, upstream_head=0, layer=1, head=1, **common)
    b = edge(upstream_layer=1, upstream_head=1, layer=last, head=0, **common)
    frame = run(organism, few, traced, InterventionSet(name="serial", members=(a, b)))
    w = organism.weights
    for prompt in few.iter_rows(named=True):
        end = prompt["pos_end"]
        ids = torch.tensor([prompt["token_ids"]])
        _, clean = organism.processed.run_with_cache(ids)
        o = (clean["blocks.0.attn.hook_z"][0, end, 0] @ w.W_O[0, 0]).double()
        U, _ = dense_singular_vectors(organism, 1, 1)
        h = (U[:-1] @ torch.linalg.lstsq(U[:-1], o).solution).float()
        live: dict[str, Tensor] = {}

        def edit_out(value: Tensor, hook: object, end: int = end, h: Tensor = h) -> Tensor:
            value = value.clone()
            value[0, end] -= h
            return value

        def keep_z(value: Tensor, hook: object, live: dict[str, Tensor] = live) -> None:
            live["z"] = value.clone()

        def keep_scale(value: Tensor, hook: object, live: dict[str, Tensor] = live) -> None:
            live["scale"] = value.clone()

        def edit_q(
            value: Tensor, hook: object, end: int = end, live: dict[str, Tensor] = live
        ) -> Tensor:
            value = value.clone()
            own = live["z"][0, end, 1] @ w.W_O[1, 1]
            value[0, end, 0] -= (own / live["scale"][0, end]) @ w.W_Q[last, 0]
            return value

        hooks = [
            ("blocks.0.hook_attn_out", edit_out),
            ("blocks.1.attn.hook_z", keep_z),
            (f"blocks.{last}.ln1.hook_scale", keep_scale),
            (f"blocks.{last}.attn.hook_q", edit_q),
        ]
        logits = organism.processed.run_with_hooks(ids, fwd_hooks=hooks)[0, -1]
        diff = float(logits[prompt["io_token_id"]] - logits[prompt["s_token_id"]])
        row = frame.filter(prompt=prompt["prompt"], metric="logit_diff")
        assert row["patched"][0] == pytest.approx(diff, abs=2e-3)


# ---- controls ------------------------------------------------------------------------------------


def test_controls_are_disjoint_of_equal_size_and_seeded() -> None:
    own = [1, 4, 9]
    drawn = control_slices(own, 16, 0, "edge|1")
    assert drawn is not None
    assert len(set(drawn)) == 3
    assert not set(drawn) & set(own)
    assert drawn == control_slices(own, 16, 0, "edge|1")
    others = [control_slices(own, 16, seed, "edge|1") for seed in range(1, 6)]
    others += [control_slices(own, 16, 0, f"edge|{prompt}") for prompt in range(2, 6)]
    assert any(other != drawn for other in others)
    assert control_slices(list(range(9)), 16, 0, "edge|1") is None
    assert control_slices(list(range(8)), 16, 0, "edge|1") == list(range(8, 16))


def test_control_leaves_the_edges_own_slices_alone(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    """With half of the slices the control is the other half: together they are the whole."""
    half = list(range(two_layers.config.d_head // 2))
    traced = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), "source", half)
    rest = [k for k in range(two_layers.config.d_head) if k not in half]
    traced_rest = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), "source", rest)
    control = edge("source", is_control=True, seed=3)
    drawn = run(two_layers, toy_prompts, traced, control)
    chosen = run(two_layers, toy_prompts, traced_rest, edge("source"))
    assert drawn["n_slices"].unique().to_list() == [len(half)]
    columns = ["prompt", "metric", "clean", "patched", "cosine", "norm_ratio", "n_slices"]
    assert drawn.select(columns).equals(chosen.select(columns))


def test_prompts_without_room_for_a_control_are_left_out(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    few = traced_edge(toy_prompts.head(2), UP, DOWN, ("END", "S2"), "source", [0])
    many = traced_edge(toy_prompts[2:], UP, DOWN, ("END", "S2"), "source", [0, 1, 2, 3, 4])
    control = edge("source", is_control=True, seed=0)
    frame = run(two_layers, toy_prompts, pl.concat([few, many]), control, edge("source"))
    counts = dict(
        frame.filter(metric="kl").group_by("is_control").agg(pl.col("prompt").sort()).iter_rows()
    )
    assert counts == {True: [0, 1], False: [0, 1, 2, 3, 4]}


# ---- choosing edges, bases, errors ---------------------------------------------------------------


def test_heaviest_edges_and_their_sweep(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    heavy = traced_edge(toy_prompts.head(3), UP, DOWN, ("END", "S2"), "source", [0, 3])
    light = traced_edge(toy_prompts.head(2), (0, 0), DOWN, ("END", "IO"), "destination", [1])
    dropped = light.with_columns(upstream_head=2, kept=False, contribution=99.0)
    mlp = light.with_columns(
        upstream_kind=pl.lit("mlp"), upstream_head=pl.lit(None, pl.Int32), contribution=99.0
    )
    traced = pl.concat([light, dropped, mlp, heavy], how="vertical_relaxed")
    found = heaviest_edges(traced, 5)
    assert found.select("upstream_head", "n_prompts", "contribution").rows() == [
        (1, 3, 3.0),
        (0, 2, 2.0),
    ]
    assert heaviest_edges(traced, 1).height == 1
    frame = intervene_on_edges(two_layers, toy_prompts, traced, n_edges=2, n_controls=2)
    assert frame.schema == polars_schema(table_spec("intervention_results"))
    # edges x (own + 2 controls) x scopes x modes
    assert frame["intervention"].n_unique() == 2 * 3 * 2 * 2
    assert frame.height == (3 + 2) * 3 * 2 * 2 * 5
    with_authors = edge_interventions(found, authors_receiver=True, n_controls=0)
    assert len(with_authors) == 2 * 3 * 2
    empty = intervene_on_edges(two_layers, toy_prompts, traced.filter(pl.col("prompt") > 90))
    assert empty.is_empty()
    assert empty.schema == frame.schema


def test_pairs_of_one_prompt_share_a_site(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    """Two pairs at one destination: their slices are joined, not applied twice."""
    one = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), "destination", [0, 2])
    other = one.with_columns(
        pl.col("source") - 1, pl.lit([2, 4], dtype=pl.List(pl.Int32)).alias("slices")
    )
    union = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), "destination", [0, 2, 4])
    joined = run(two_layers, toy_prompts, pl.concat([one, other]), edge(), global_edge())
    expected = run(two_layers, toy_prompts, union, edge(), global_edge())
    for metric in ("logit_diff", "kl", "prob"):
        torch.testing.assert_close(
            values(joined, metric, "patched"),
            values(expected, metric, "patched"),
            atol=1e-5,
            rtol=0,
        )
    assert joined["n_slices"].unique().to_list() == [4]


def test_heads_that_wrote_at_other_tokens_are_not_edited(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    """Rule relative: what was written at a third token changes no query or key of the pair."""
    traced = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), "source", [0, 2])
    own = traced.with_columns(written_at=pl.col("source"))
    elsewhere = own.with_columns(written_at=pl.col("source") - 1)
    assert heaviest_edges(pl.concat([own, elsewhere]), 5)["contribution"].to_list() == (
        heaviest_edges(traced, 5)["contribution"].to_list()
    )
    assert heaviest_edges(elsewhere, 5).is_empty()
    with pytest.raises(InterventionError, match="was not traced in any"):
        run(two_layers, toy_prompts, elsewhere, edge("source"))


def test_orthonormal_basis_spans_and_projects() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(3, 10, 4, dtype=torch.float64)
    vectors[1, :, 3] = 0.0
    vectors[2, :, 3] = vectors[2, :, 0] - 2 * vectors[2, :, 1]
    basis = orthonormal_basis(vectors)
    for own, made, rank in zip(vectors, basis, (4, 3, 3), strict=True):
        projector = made @ made.T
        torch.testing.assert_close(projector @ own, own)
        torch.testing.assert_close(projector @ projector, projector)
        assert float(projector.trace()) == pytest.approx(rank)


def test_untraced_edges_and_wrong_frames_are_refused(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    traced = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), "source", [0])
    with pytest.raises(InterventionError, match=r"L0H1>L1H2:END<-S2:destination was not traced"):
        run(two_layers, toy_prompts, traced, edge())
    with pytest.raises(InterventionError, match=r"lack the columns \['slices'\]"):
        TracedEdges(two_layers, traced.drop("slices"))
    with pytest.raises(InterventionError, match="n_edges is 0"):
        heaviest_edges(traced, 0)
    assert set(EDGE_KEY) <= set(traced.columns)


def test_rope_destination_edit_removes_the_whole_contribution(
    stories: LanguageModel, traced_edge: EdgeFrame
) -> None:
    """Rotary model with grouped queries: all slices of the pair's offset remove all of o."""
    ids = np.random.default_rng(0).integers(3, 400, (2, 9)).tolist()
    prompts = pl.DataFrame(
        {
            "prompt": [0, 1],
            "token_ids": ids,
            "n_tokens": [9, 9],
            "pos_end": [8, 8],
            "pos_s2": [4, 6],
            "io_token_id": [300, 301],
            "s_token_id": [302, 303],
        }
    )
    everything = list(range(stories.config.d_head))
    traced = traced_edge(prompts, (1, 3), (3, 5), ("END", "S2"), "destination", everything)
    one = edge(layer=3, head=5, upstream_layer=1, upstream_head=3)
    frame = run(stories, prompts, traced, one)
    w = stories.weights
    for prompt in prompts.iter_rows(named=True):
        tokens = torch.tensor([prompt["token_ids"]])
        _, cache = stories.processed.run_with_cache(tokens)
        o = cache["blocks.1.attn.hook_z"][0, 8, 3] @ w.W_O[1, 3]
        o = o / cache["blocks.3.ln1.hook_scale"][0, 8]

        def edit(q: Tensor, hook: object, o: Tensor = o) -> Tensor:
            q = q.clone()
            q[0, 8, 5] -= o @ w.W_Q[3, 5]
            return q

        logits = stories.processed.run_with_hooks(
            tokens, fwd_hooks=[("blocks.3.attn.hook_q", edit)]
        )
        diff = float(logits[0, -1, prompt["io_token_id"]] - logits[0, -1, prompt["s_token_id"]])
        row = frame.filter(prompt=prompt["prompt"], metric="logit_diff")
        assert row["patched"][0] == pytest.approx(diff, abs=1e-3)
    effect = values(frame, "attn_score", "patched") - values(frame, "attn_score", "clean")
    assert effect.abs().min() > 1e-2
