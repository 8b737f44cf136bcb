"""What an exploration says of one prompt, against the Hugging Face forward pass: sums are exact on
random models with LayerNorm, with RMSNorm, rotary positions and grouped queries, and with attention
beside the MLP."""

import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.attribution.frozen_forward import RdfaError
from mechinterp_assets.attribution.rdfa_splits import InactiveFeatureError
from mechinterp_assets.attribution.rdfa_tree import Node
from mechinterp_assets.attribution.residual_saes import ResidualSaes
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.explore import explore
from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.explore.exploration import Exploration, Explorer, same_positions
from mechinterp_assets.explore.node_frames import node_name
from mechinterp_assets.explore.vocabulary import next_tokens, token_frame
from mechinterp_assets.model.language_model import LanguageModel

# The library's softmax (but GPT-2's) and rotary angles are float32 in a float64 model.
CLOSE = {"rel": 2e-6, "abs": 2e-6}


def z_of(explored: Exploration, layer: int) -> Tensor:
    """z_cat [position, d_z] of the Hugging Face model."""
    seen: list[Tensor] = []
    module = explored.model.output_projection(layer)
    hook = module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        explored.model.hf(explored.token_ids[None])
    hook.remove()
    return seen[0][0]


def a_feature(explored: Exploration, layer: int = 2) -> tuple[int, int, float]:
    """Feature, position, activation: the strongest at the last position."""
    rows = explored.features.filter((pl.col("layer") == layer) & (pl.col("position") == 8))
    feature, position, activation = rows.select("feature", "position", "activation").row(0)
    return feature, position, activation


# ---- tokens --------------------------------------------------------------------------------------


def test_tokens_say_what_the_model_predicted(explored: Exploration, logits: Tensor) -> None:
    log_p = logits.log_softmax(-1)
    frame = explored.tokens
    assert frame["token_id"].to_list() == explored.token_ids.tolist()
    assert frame["log_probability"][0] is None
    for position in range(1, len(explored)):
        own = int(explored.token_ids[position])
        row, before = frame.row(position, named=True), log_p[position - 1]
        assert row["log_probability"] == pytest.approx(float(before[own]), abs=1e-5)
        assert row["rank"] == int((before > before[own]).sum())
        assert row["top_token_id"] == int(log_p[position].argmax())
    # BOS and position 0 count nowhere.
    bos = explored.model.bos_token_id
    expected = [i > 0 and int(t) != bos for i, t in enumerate(explored.token_ids)]
    assert frame["counted"].to_list() == expected


def test_next_tokens_and_the_end_of_the_logit_lens_are_the_models_answer(
    explored: Exploration, logits: Tensor
) -> None:
    expected = logits[4].softmax(-1).topk(6)
    for frame in (
        explored.next_tokens(4, 6),
        explored.logit_lens(4, 6).filter(layer=3).drop("layer"),
    ):
        assert frame["token_id"].to_list() == expected.indices.tolist()
        assert frame["probability"].to_list() == pytest.approx(expected.values.tolist(), abs=1e-6)
    assert explored.logit_lens(4, 1)["layer"].to_list() == [0, 1, 2, 3]


def test_probabilities_of_large_logits_are_exact_and_everywhere_the_same() -> None:
    """Beside a logit of 300, a normalizer in float32 is wrong by up to 1.5e-5."""
    generator = torch.Generator().manual_seed(0)
    logits = 300 + torch.randn(5, 7, generator=generator)
    ids, strings = torch.tensor([3, 0, 6, 2, 2]), list("abcdefg")
    frame, exact = token_frame(ids, logits, strings), logits.double().log_softmax(-1)
    own = exact[torch.arange(4), ids[1:]]
    assert frame["log_probability"].to_list()[1:] == pytest.approx(own.tolist(), abs=1e-12)
    for position, row in enumerate(logits):
        likeliest = next_tokens(row, strings, 1).row(0, named=True)
        found = frame.row(position, named=True)
        assert found["top_token_id"] == likeliest["token_id"]
        assert found["top_probability"] == pytest.approx(likeliest["probability"], abs=1e-12)


def test_the_logit_lens_of_a_layer_is_the_model_without_later_layers(explored: Exploration) -> None:
    """The stream before layer 2, through the model's own final norm and head."""
    model, seen = explored.model, []
    hook = model.block(2).register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    with torch.no_grad():
        model.hf(explored.token_ids[None])
        hook.remove()
        trunk = model.hf.base_model
        norm = getattr(trunk, "ln_f", None) or getattr(trunk, "norm", None)
        norm = norm or trunk.final_layer_norm
        expected = model.hf.get_output_embeddings()(norm(seen[0]))[0, 6].softmax(-1)
    frame = explored.logit_lens(6, 4).filter(layer=2)
    assert frame["token_id"].to_list() == expected.topk(4).indices.tolist()
    assert frame["probability"].to_list() == pytest.approx(
        expected.topk(4).values.tolist(), abs=1e-6
    )


# ---- features ------------------------------------------------------------------------------------


def test_features_and_errors_are_those_of_the_saes(explored: Exploration) -> None:
    for layer, sae in explored.saes.items():
        z = z_of(explored, layer)[1:]
        f, error = sae.encode(z), (z - sae(z)).norm(dim=-1)
        rows = explored.features.filter(layer=layer)
        found = torch.zeros(len(explored), sae.d_sae, dtype=torch.float64)
        at = torch.tensor(rows["position"].to_list()), torch.tensor(rows["feature"].to_list())
        found[at] = torch.tensor(rows["activation"].to_list(), dtype=torch.float64)
        assert not found[0].any()  # no SAE is trained on position 0
        torch.testing.assert_close(found[1:], f, rtol=2e-6, atol=2e-6)
        errors = explored.errors.filter(layer=layer)
        assert errors["n_active"].to_list() == (f > 0).sum(-1).tolist()
        assert errors["error_norm"].to_list() == pytest.approx(error.tolist(), rel=1e-5)
        assert errors["z_norm"].to_list() == pytest.approx(z.norm(dim=-1).tolist(), rel=1e-5)


def test_dfa_sums_to_the_activation(explored: Exploration) -> None:
    feature, position, activation = a_feature(explored)
    frame = explored.dfa(2, feature, position)
    expected = explored.saes[2].pre_activations(z_of(explored, 2)[position][None])[0, feature]
    assert frame["value"].sum() == pytest.approx(float(expected), **CLOSE)
    assert activation == pytest.approx(float(expected), **CLOSE)
    # By head: w . z of the head; sources are split by the pattern.
    z, w = z_of(explored, 2)[position], explored.saes[2].W_enc[:, feature]
    d_head = explored.model.config.d_head
    by_head = (z * w).reshape(-1, d_head).sum(-1)
    for (head,), rows in frame.filter(kind="source").group_by("head"):
        assert rows["value"].sum() == pytest.approx(float(by_head[int(str(head))]), **CLOSE)
        assert rows["attention"].sum() == pytest.approx(1)
        assert rows["source"].max() == position


def test_difference_of_two_prompts(explorer: Explorer, explored: Exploration) -> None:
    other = explorer.explore([explorer.model.bos_token_id, 7, 3, 11])
    frame = explored.difference(2, 4, other, 3)
    here, there = (
        explorer.saes[2].encode(z_of(one, 2)[at][None])[0]
        for one, at in ((explored, 4), (other, 3))
    )
    either = ((here > 0) | (there > 0)).nonzero()[:, 0].tolist()
    assert sorted(frame["feature"]) == either
    for feature, difference in frame.select("feature", "difference").iter_rows():
        assert difference == pytest.approx(float(here[feature] - there[feature]), **CLOSE)
    assert frame["difference"].abs().is_sorted(descending=True)
    # The same tokens up to there. A softmax in float32 sums rows of two lengths in two orders.
    same = explored.difference(2, 2, other, 2)
    float64 = explorer.model.hf.config.model_type == "gpt2"
    assert same["difference"].abs().max() < (1e-9 if float64 else CLOSE["abs"])


def test_positions_of_what_two_prompts_share() -> None:
    assert same_positions([1, 5, 6, 7, 9], [1, 2, 6, 7, 8, 9]) == {0: 0, 2: 2, 3: 3, 4: 5}


# ---- attribution ---------------------------------------------------------------------------------


def every_node(explored: Exploration, node: Node, depth: int, seen: set[str]) -> None:
    """Values sum at each split below `node`, and names address single nodes."""
    seen.add(node.kind)
    if node.split is None or depth == 0:
        return
    parts = node.split()
    names = [node_name(part) for part in parts]
    assert len(set(names)) == len(names)
    size = sum(abs(part.value) for part in parts)
    assert sum(part.value for part in parts) == pytest.approx(node.value, abs=1e-9 * size)
    frame = explored.parts(node)
    assert frame["value"].sum() == pytest.approx(node.value, abs=1e-9 * size)
    assert frame["value"].abs().is_sorted(descending=True)
    by_kind = {(p.kind, p.layer): p for p in sorted(parts, key=lambda part: abs(part.value))}
    for part in by_kind.values():  # the largest of each kind and layer
        every_node(explored, part, depth - 1, seen)


def test_every_split_of_a_feature_sums(explored: Exploration) -> None:
    feature, position, activation = a_feature(explored)
    root = explored.feature_node(2, feature, position)
    assert root.value == pytest.approx(activation, **CLOSE)
    seen: set[str] = set()
    every_node(explored, root, 9, seen)
    # Through a layer with an SAE (features) and one without (heads), down to tokens.
    assert seen >= {"feature", "source", "attention", "head", "mlp", "embedding", "sae_error"}


def test_residual_features_open_down_to_tokens(
    explored_by_residual: Exploration, explored: Exploration
) -> None:
    """Below a source, through a head of the layer without an SAE on z too, and below a logit."""
    here = explored_by_residual
    feature, position, activation = a_feature(here)
    root = here.feature_node(2, feature, position)
    assert root.value == pytest.approx(activation, **CLOSE)
    seen: set[str] = set()
    every_node(here, root, 9, seen)
    assert seen >= {"residual_feature", "residual_error", "residual_bias", "head", "embedding"}
    source = f"source:L2:p{position}"
    parts = here.parts(root, [source]).filter(node_kind="residual_feature")
    assert parts["name"][0] == f"residual_feature:L2:f{parts['feature'][0]}"
    assert parts["can_split"].all()
    opened = here.parts(root, [source, parts["name"][0]])
    assert opened["value"].sum() == pytest.approx(parts["value"][0], abs=1e-9)
    # A logit reads the stream behind the last layer, which has no such SAE: its writers stay.
    first, second = (one.parts(one.logit_node(11, 5)) for one in (here, explored))
    assert first.equals(second)
    seen = set()
    every_node(here, here.logit_node(11, 5), 9, seen)
    assert "residual_feature" in seen


@pytest.mark.parametrize("versus", [None, 6])
def test_every_split_of_a_logit_sums(
    explored: Exploration, logits: Tensor, versus: int | None
) -> None:
    expected = logits[5, 11] - (logits[5].mean() if versus is None else logits[5, versus])
    root = explored.logit_node(11, 5, versus)
    assert root.value == pytest.approx(float(expected), **CLOSE)
    every_node(explored, root, 5, set())
    for by in ("head", "feature"):
        frame = explored.logit_attribution(11, 5, versus, by=by)
        assert frame["value"].sum() == pytest.approx(float(expected), **CLOSE)
        kinds = frame["node_kind"].value_counts()
        n_heads = explored.model.config.n_heads
        assert dict(kinds.iter_rows())["head"] == (3 * n_heads if by == "head" else n_heads)
        assert ("feature" in frame["node_kind"]) == (by == "feature")


def test_direct_effects_of_heads_are_those_of_processed_weights(explored: Exploration) -> None:
    """z W_O W_U over the final scale with LayerNorm folded: another view of the weights."""
    model, at, token, versus = explored.model, 5, 11, 6
    _, cache = model.processed.run_with_cache(explored.token_ids[None])
    scale = float(cache["ln_final.hook_scale"][0, at])
    direction = model.weights.W_U[:, token] - model.weights.W_U[:, versus]
    frame = explored.logit_attribution(token, at, versus)
    for layer, head, value in (
        frame.filter(node_kind="head").select("layer", "head", "value").iter_rows()
    ):
        z = cache[f"blocks.{layer}.attn.hook_z"][0, at, head]
        raw = explored.explorer.frozen.weights(layer)  # whose biases processing takes out of z
        z = z + raw.b_V[head] + raw.norm_bias @ raw.W_V[head]
        expected = float(z @ model.weights.W_O[layer, head] @ direction) / scale
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_path_of_names_opens_the_same_node_again(explored: Exploration) -> None:
    feature, position, _ = a_feature(explored)
    root = explored.feature_node(2, feature, position)
    path: list[str] = []
    frame = explored.parts(root)
    while len(path) < 6 and frame["can_split"].any():
        chosen = frame.filter("can_split").row(0, named=True)
        path.append(chosen["name"])
        frame = explored.parts(explored.feature_node(2, feature, position), path)
        size = frame["value"].abs().sum()
        assert frame["value"].sum() == pytest.approx(chosen["value"], abs=1e-9 * size)
    assert len(path) >= 3


def test_a_grown_tree_is_that_of_the_platform(explored: Exploration) -> None:
    """With SAEs on all layers, as feature_rdfa has them, a tree is Rdfa's."""
    from mechinterp_assets.attribution.rdfa import Rdfa
    from tests.attribution.random_models import saes_of

    saes, settings = saes_of(explored.model), RdfaSettings(max_depth=2, branching=3)
    whole = explore(explored.model, saes, explored.token_ids.tolist())
    feature, position, _ = a_feature(whole)
    expected = Rdfa(explored.model, saes, settings.model_copy(update={"max_depth": 99})).tree(
        explored.token_ids, 2, feature, position
    )
    found = whole.tree(whole.feature_node(2, feature, position), settings)
    assert found.select("node_kind", "at_layer", "at_feature", "at_position").equals(
        expected.select("node_kind", "at_layer", "at_feature", "at_position")
    )
    assert found["dfa"].to_list() == pytest.approx(expected["dfa"].to_list(), rel=1e-9)


# ---- attention -----------------------------------------------------------------------------------


def test_patterns(explored: Exploration) -> None:
    _, cache = explored.model.raw.run_with_cache(explored.token_ids[None])
    A = cache["blocks.1.attn.hook_pattern"][0, 1]
    frame = explored.pattern(1, 1)
    assert len(frame) == 9 * 10 // 2
    for d, s, value in frame.iter_rows():
        assert value == pytest.approx(float(A[d, s]), abs=1e-9)
    top = explored.attended(7, 2).filter(layer=1, head=1)
    assert top["source"].to_list() == A[7].topk(2).indices.tolist()
    assert top["attention"].to_list() == pytest.approx(A[7].topk(2).values.tolist(), abs=1e-9)


def test_slices_sum_to_the_score_and_writers_to_slices(explored: Exploration) -> None:
    d, heads = 7, range(explored.model.config.n_heads)
    for head in heads:
        pairs = [explored.slices(2, head, d, s) for s in range(d + 1)]
        # The softmax of the scores is the pattern that the model has.
        scores = torch.tensor([pair.score for pair in pairs], dtype=torch.float64)
        pattern = explored.forward.pattern[2][head, d, : d + 1]
        torch.testing.assert_close(scores.softmax(0), pattern, rtol=1e-5, atol=1e-6)
        for pair, value in zip(pairs, pattern.tolist(), strict=True):
            assert pair.attention == pytest.approx(value, abs=1e-6)
            terms = pair.slices
            assert terms["term"].sum() == pytest.approx(pair.score, rel=1e-6, abs=1e-6)
            # What is dropped has no sum of the score's sign.
            kept = terms.filter("selected")["term"].sum()
            assert abs(kept) >= abs(pair.score) - 1e-9
            assert kept * pair.score > 0
        pair = pairs[3]
        for which in (None, pair.slices["slice"].to_list(), [0, 2]):
            chosen = pair.slices.filter(
                pl.col("selected") if which is None else pl.col("slice").is_in(which)
            )
            writers = pair.writers(which)
            for side in ("destination", "source"):
                total = writers.filter(side=side)["value"].sum()
                assert total == pytest.approx(chosen["term"].sum(), rel=1e-6, abs=1e-6)


# ---- what is refused -----------------------------------------------------------------------------


def test_prompts_that_cannot_be_explored(model: LanguageModel) -> None:
    explorer = Explorer(model, {}, max_tokens=10)
    n_vocab = model.config.d_vocab
    for ids, what in (
        ([], "no token ids"),
        ([3] * 11, "11 tokens; at most 10"),
        ([3, n_vocab], f"token id {n_vocab} does not exist"),
        ([-1], "token id -1 does not exist"),
        ("", "prompt is empty"),
        ("a " * 400, "800 characters"),
    ):
        with pytest.raises(ExploreError, match=what):
            explorer.explore(ids)
    too_long = Explorer(model, {}, max_tokens=10_000)
    with pytest.raises(ExploreError, match=f"at most {model.config.n_ctx} are explored"):
        too_long.explore([3] * (model.config.n_ctx + 1))


def test_questions_without_an_answer(explored: Exploration) -> None:
    feature, position, _ = a_feature(explored)
    active = explored.features.filter(layer=2, position=8)["feature"]
    silent = next(i for i in range(14) if i not in active)
    with pytest.raises(RdfaError, match="layer 1 has no SAE; layers with one: 0, 2"):
        explored.dfa(1, 0)
    with pytest.raises(RdfaError, match="feature 14 does not exist"):
        explored.dfa(2, 14)
    with pytest.raises(InactiveFeatureError, match=f"feature {silent} of layer 2 is not active"):
        explored.feature_node(2, silent, 8)
    with pytest.raises(ExploreError, match=r"position 9 does not exist; the prompt has 0\.\.8"):
        explored.next_tokens(9)
    with pytest.raises(ExploreError, match=r"layer 3 does not exist; the model has 0\.\.2"):
        explored.pattern(3, 0)
    with pytest.raises(ExploreError, match="does not see position 4"):
        explored.slices(1, 0, 2, 4)
    with pytest.raises(ExploreError, match="token id 40 does not exist"):
        explored.logit_node(40)
    root = explored.feature_node(2, feature, position)
    with pytest.raises(ExploreError, match="has no part 'source:L2:p99'"):
        explored.parts(root, ["source:L2:p99"])
    with pytest.raises(ExploreError, match="embedding is not split"):
        explored.parts(root, ["source:L2:p3", "embedding"])


def test_an_sae_of_another_width_is_refused(model: LanguageModel) -> None:
    from tests.attribution.random_models import random_sae

    with pytest.raises(RdfaError, match="reads 5 dimensions"):
        Explorer(model, {0: random_sae(5, "topk")})
    with pytest.raises(RdfaError, match="residual-stream SAE of layer 1 reads 5"):
        Explorer(model, {}, residual=ResidualSaes({1: random_sae(5, "topk")}))


def test_texts_begin_as_the_models_prompts_do(organism: LanguageModel) -> None:
    explored = explore(organism, {}, "Mary and John")
    assert explored.token_ids.tolist() == [
        organism.bos_token_id,
        *organism.encode("Mary and John"),
    ]
    assert "".join(explored.tokens["token"].to_list()[1:]) == "Mary and John"
    assert explored.token_id(" John") == organism.encode(" John")[0]
    with pytest.raises(ExploreError, match="2 tokens of this model"):
        explored.token_id(" John John")
