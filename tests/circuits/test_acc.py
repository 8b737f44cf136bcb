"""ACC and ACC++: identities on every architecture, a slow reference, a planted circuit."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.circuits.acc import (
    acc_plus_side,
    acc_side,
    attention_of,
    firing_limit,
    integrated_gradient,
)
from mechinterp_assets.circuits.acc_seeds import seeds_by_log_p, seeds_of_roots
from mechinterp_assets.circuits.acc_trace import RULES, acc_batches, acc_trace
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.score_model import ScoreModel
from mechinterp_assets.circuits.score_terms import KINDS, HeadReader, ScoreWriters, SideTerms
from mechinterp_assets.circuits.settings import AccRule
from mechinterp_assets.circuits.slices import select_slices
from mechinterp_assets.circuits.trace import Root
from mechinterp_assets.model.agreement import disagreement
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import table_specs
from tests.circuits.acc_reference import AccReference, Item
from tests.model.families import FAMILIES, NOT_LOADED
from tests.model.family_identities import LENGTH, OwnRun, load_family

# Families whose scores or stream are not sums of this kind, and what the refusal says.
REFUSED = {
    "bloom": "ALiBi",
    "falcon, ALiBi": "ALiBi",
    "mpt": "ALiBi",
    "openai-gpt": "its residual stream is no sum",
}
LOADED = [name for name in FAMILIES if name not in NOT_LOADED]
IDENTITY = 1e-5


# ---- the terms sum to the row, in every architecture ---------------------------------------------


@pytest.mark.parametrize("family", LOADED)
def test_terms_sum_to_the_scores_of_every_architecture(family: str, tmp_path: Path) -> None:
    """Of both sides; their softmax is transformers' own attention pattern."""
    model = load_family(family, tmp_path)
    own, scores, config = OwnRun(model), ScoreModel(model), model.config
    if family in REFUSED:
        with pytest.raises(CircuitError, match=REFUSED[family]) as raised:
            scores.run(own.ids, config.n_layers)
        assert config.architecture in str(raised.value)
        return
    run = scores.run(own.ids, config.n_layers)
    for layer in range(config.n_layers):
        head = (layer + 1) % config.n_heads
        reader = HeadReader(scores, layer, head)
        for d in (LENGTH - 1, 7):
            terms = reader.row(run, 1, d)
            expected = own.pattern[layer][1, head, d, : d + 1]
            assert torch.equal(terms.seen, expected > 0)
            for side in terms.sides:
                row = side.row(d + 1)
                assert disagreement(row, terms.row) < IDENTITY
                assert disagreement(attention_of(scores, row, terms.seen), expected) < IDENTITY


def test_softcapped_scores_are_capped_in_removal_too(tmp_path: Path) -> None:
    scores = ScoreModel(load_family("gemma2", tmp_path))
    assert scores.cap == 2.0
    capped = scores.capped(torch.tensor([50.0, -50.0, 0.0], dtype=torch.float64))
    assert capped.tolist() == pytest.approx([2.0, -2.0, 0.0])


# ---- a slow reference ----------------------------------------------------------------------------

CASES = ("tiny_gpt2", "tiny_llama")
# The reference reads processed weights, which are folded in float32, 1e-7 of each: its stream and
# singular vectors differ by some of these from those of raw weights.
ROUNDING = 1e-5


def _prompt(model: LanguageModel) -> list[int]:
    drawn = torch.Generator().manual_seed(3)
    return torch.randint(3, model.config.d_vocab, (7,), generator=drawn).tolist()


def _named(writers: ScoreWriters, side: SideTerms, at: int) -> Item:
    writer = int(side.writer[at])
    return (
        KINDS[writers.kind[writer]],
        int(writers.layer[writer]),
        int(writers.head[writer]),
        int(side.position[at]),
        int(side.token[at]),
    )


@pytest.mark.parametrize("case", CASES)
def test_terms_and_choices_are_those_of_the_slow_reference(
    case: str, request: pytest.FixtureRequest
) -> None:
    model: LanguageModel = request.getfixturevalue(case)
    ids = _prompt(model)
    reference, scores = AccReference(model, ids), ScoreModel(model)
    run = scores.run(torch.tensor([ids]), model.config.n_layers)
    layer, n_removed = 2, 0
    writers = ScoreWriters.before(run, layer)
    for head, d in itertools.product(range(3), (6, 4)):
        terms = HeadReader(scores, layer, head).row(run, 0, d)
        source = int(terms.row[1:].argmax()) + 1
        for side, name in zip(terms.sides, ("destination", "source"), strict=True):
            items = [_named(writers, side, at) for at in range(len(side.value))]
            expected = reference.terms(layer, head, d, name)
            assert len(set(items)) == len(items)
            assert {(item, k) for item in items for k in range(side.value.shape[1])} == set(
                expected
            )
            size = max(float(np.abs(row).max()) for row in expected.values())
            unit = torch.eye(d + 1, dtype=torch.float64)
            found = torch.stack([side.weighted(unit[s]) for s in range(d + 1)], -1)
            for at, item in enumerate(items):
                for k in range(side.value.shape[1]):
                    gap = np.abs(found[at, k].numpy() - expected[item, k]).max()
                    assert gap < ROUNDING * size, (item, k)

            chosen, effects, kept = reference.acc(layer, head, d, source, name)
            choice = acc_side(terms, side, source, 0.7)
            assert choice.slices.nonzero()[:, 0].tolist() == chosen
            assert {items[at] for at in choice.kept.nonzero()[:, 0].tolist()} == kept
            total = sum(map(abs, effects.values()))
            for at, item in enumerate(items):
                assert float(choice.effect[at]) == pytest.approx(
                    effects[item], abs=ROUNDING * total
                )

            plus = reference.acc_plus(layer, head, d, source, name)
            choice = acc_plus_side(scores, terms, side, source, firing_limit(d))
            assert choice.left == pytest.approx(plus.left, abs=ROUNDING)
            lost = {items[at]: float(choice.effect[at]) for at in choice.kept.nonzero()[:, 0]}
            assert lost == pytest.approx(plus.lost, abs=ROUNDING)
            assert choice.slices.nonzero()[:, 0].tolist() == sorted({k for _, k in plus.removed})
            n_removed += len(plus.removed)
    assert n_removed > 10


# ---- identities of the rules ---------------------------------------------------------------------


@pytest.mark.parametrize("case", [*CASES, "gemma2"])
def test_integrated_gradients_and_losses_sum_to_attention(
    case: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model: LanguageModel = (
        load_family(case, tmp_path) if case == "gemma2" else request.getfixturevalue(case)
    )
    scores, ids = ScoreModel(model), _prompt(model)
    run = scores.run(torch.tensor([ids]), model.config.n_layers)
    for head in range(model.config.n_heads):
        terms = HeadReader(scores, 1, head).row(run, 0, 6)
        attention = attention_of(scores, terms.row, terms.seen)
        source = int(attention[1:].argmax()) + 1
        gradient = integrated_gradient(scores, terms, source)
        uniform = 1 / int(terms.seen.sum())
        for side in terms.sides:
            whole = float(side.weighted(gradient).sum())
            # The error of 64 trapezoids grows with the largest score.
            assert whole == pytest.approx(float(attention[source]) - uniform, abs=2e-3)
            choice = acc_plus_side(scores, terms, side, source, firing_limit(6))
            assert choice.whole == pytest.approx(float(attention[source]), abs=1e-12)
            assert float(choice.effect.sum()) == pytest.approx(choice.whole - choice.left, abs=1e-9)
            if choice.kept.any():
                assert choice.whole >= firing_limit(6)
                assert choice.left < firing_limit(6)


def test_removal_does_not_depend_on_how_many_terms_are_removed_at_a_time(
    tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechinterp_assets.circuits import acc

    scores = ScoreModel(tiny_llama)
    run = scores.run(torch.tensor([_prompt(tiny_llama)]), 3)
    terms = HeadReader(scores, 2, 1).row(run, 0, 6)
    source = int(terms.row[1:].argmax()) + 1
    for side in terms.sides:
        whole = acc_plus_side(scores, terms, side, source, 1e-6)
        monkeypatch.setattr(acc, "_CHUNK", 3)
        parts = acc_plus_side(scores, terms, side, source, 1e-6)
        monkeypatch.undo()
        assert whole.kept.sum() > 3
        assert torch.equal(whole.kept, parts.kept)
        assert torch.allclose(whole.effect, parts.effect, atol=1e-12)


@given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=9))
@settings(max_examples=80, deadline=None)
def test_selection_is_the_smallest_sufficient_set(values: list[float]) -> None:
    mask = select_slices(torch.tensor(values, dtype=torch.float64)).numpy()
    shares = np.array(values) * (-1.0 if sum(values) < 0 else 1.0)
    total = shares.sum()
    if total <= 1e-9 * np.abs(shares).sum():  # sums near 0 may round either way
        return
    assert mask.any()
    assert shares[mask].sum() >= total * (1 - 1e-9)
    assert shares[mask].min() >= shares[~mask].max(initial=-np.inf)
    without = shares[mask].sum() - shares[mask].min()
    assert without < total


def test_a_negative_sum_is_mirrored() -> None:
    values = torch.tensor([[3.0, -1.0, 0.5], [-3.0, 1.0, -0.5]], dtype=torch.float64)
    mask = select_slices(values)
    assert mask.tolist() == [[True, False, False], [True, False, False]]


def test_firing_limits() -> None:
    assert [firing_limit(d) for d in (0, 1, 4, 24)] == [1.0, 1.0, 0.5, 0.1]


# ---- a circuit built by hand ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted_prompts() -> pl.DataFrame:
    """Token 5 stands at 1 and 6, and 9 stands nowhere twice: 4 at 2 and 6."""
    return pl.DataFrame(
        {
            "prompt": [10, 11],
            "token_ids": [[0, 5, 3, 7, 8, 2, 5], [0, 9, 4, 6, 1, 3, 4]],
            "n_tokens": [7, 7],
            "pos_io": [2, 3],
            "pos_end": [6, 6],
        }
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_planted_induction_circuit_is_found(
    rule: AccRule, planted: LanguageModel, planted_prompts: pl.DataFrame
) -> None:
    seeds = seeds_of_roots(planted_prompts, [Root(1, 0)])
    trace = acc_trace(planted, planted_prompts, seeds, rule)
    heads = trace.edges.filter(upstream_kind="head", side="source", downstream_layer=1)
    wrote = heads.filter(pl.col("written_at") == pl.col("source"))
    columns = ("prompt", "upstream_layer", "upstream_head", "written_at", "token_read")
    # Previous token's identity, written at the source, of the token before it; by 0.0 alone.
    assert wrote.select(columns).sort("prompt").rows() == [(10, 0, 0, 2, 1), (11, 0, 0, 3, 2)]
    assert wrote["upstream_reaches_limit"].all()
    assert wrote["edge_weight_share"].min() > 0.6
    assert set(heads["upstream_head"]) == {0}
    destination = trace.edges.filter(side="destination", downstream_layer=1)
    assert set(destination["upstream_kind"]) == {"embedding"}
    upstream = trace.pairs.filter(layer=0).select("prompt", "head", "destination", "source")
    assert {(10, 0, 2, 1), (11, 0, 3, 2)} <= set(upstream.rows())
    of_0 = trace.edges.filter(downstream_layer=0)
    assert set(of_0["upstream_kind"]) == {"position"}


def test_both_rules_and_any_batches_give_the_same_rows(
    planted: LanguageModel, planted_prompts: pl.DataFrame
) -> None:
    seeds = seeds_of_roots(planted_prompts, [Root(1, 0), Root(1, 1)])
    calls: list[tuple[int, int]] = []
    parts = list(
        acc_batches(
            *(planted, planted_prompts, seeds),
            memory_mib=1,
            progress=lambda *done: calls.append(done),
        )
    )
    assert calls[-1] == (2, 2)
    for rule in RULES:
        whole = acc_trace(planted, planted_prompts, seeds, rule)
        assert pl.concat([part[rule].edges for part in parts]).equals(whole.edges)
        assert pl.concat([part[rule].pairs for part in parts]).equals(whole.pairs)
        silent = whole.pairs.filter(head=1, layer=1)
        assert silent.height == 2
        assert not silent["reaches_limit"].any()
        assert (silent["path_multiplicity"] == 0).all()
        assert silent["destination_slices"].null_count() == 2


def test_paths_are_counted_from_every_seed(
    planted: LanguageModel, planted_prompts: pl.DataFrame
) -> None:
    once = seeds_of_roots(planted_prompts, [Root(1, 0)])
    one, two = (
        acc_trace(planted, planted_prompts, seeds, "acc++")
        for seeds in (once, pl.concat([once, once]))
    )
    assert two.edges.height == one.edges.height > 0
    expected = (2 * one.edges["path_multiplicity"]).to_list()
    assert two.edges["path_multiplicity"].to_list() == expected


# ---- seeds ---------------------------------------------------------------------------------------


def _with_answers(model: LanguageModel, prompts: pl.DataFrame) -> pl.DataFrame:
    with torch.no_grad():
        logits = model.raw(torch.tensor(prompts["token_ids"].to_list()))[:, -1]
    top = logits.topk(2, -1).indices
    return prompts.with_columns(
        io_token_id=pl.Series(top[:, 0].tolist()), s_token_id=pl.Series(top[:, 1].tolist())
    )


@pytest.mark.parametrize("case", CASES)
def test_seeds_by_log_p_are_the_smallest_prefix(
    case: str,
    request: pytest.FixtureRequest,
    make_prompts: Callable[..., pl.DataFrame],
) -> None:
    model: LanguageModel = request.getfixturevalue(case)
    prompts = _with_answers(model, make_prompts(model, 12, 8))
    n_seeds = 0
    for share in (0.8, 0.3):
        seeds = seeds_by_log_p(model, prompts, share=share)
        for prompt, ids, answer in prompts.select("prompt", "token_ids", "io_token_id").rows():
            of = seeds.filter(prompt=prompt)
            expected = AccReference(model, ids).log_p_seeds(answer, share)
            assert of.select("layer", "head", "source").rows() == expected
            assert (of["destination"] == len(ids) - 1).all()
            log_p = float(model.raw(torch.tensor([ids]))[0, -1].log_softmax(-1)[answer])
            assert of["log_p"].to_list() == pytest.approx([log_p] * of.height, abs=1e-5)
            n_seeds += of.height
    assert n_seeds > 0


def test_bad_requests_are_named(planted: LanguageModel, planted_prompts: pl.DataFrame) -> None:
    seeds = seeds_of_roots(planted_prompts, [Root(1, 0)])
    with pytest.raises(CircuitError, match=r"L9H0 at \(6, 2\) of prompt 10 does not exist"):
        list(acc_batches(planted, planted_prompts, seeds.with_columns(layer=pl.lit(9))))
    with pytest.raises(CircuitError, match="name some of acc, acc"):
        list(acc_batches(planted, planted_prompts, seeds, []))
    with pytest.raises(CircuitError, match="no role NOBODY"):
        seeds_of_roots(planted_prompts, [Root(1, 0, "NOBODY")])
    with pytest.raises(CircuitError, match="share is 0"):
        seeds_by_log_p(planted, planted_prompts, share=0)


@pytest.mark.parametrize("rule", RULES)
def test_frames_follow_their_tables(
    rule: AccRule, planted: LanguageModel, planted_prompts: pl.DataFrame
) -> None:
    trace = acc_trace(planted, planted_prompts, seeds_of_roots(planted_prompts, [Root(1, 0)]), rule)
    for name, frame in (("acc_pairs", trace.pairs), ("acc_edges", trace.edges)):
        declared = {
            c.name: c.polars_type for c in table_specs()[name].science_columns if c.name != "task"
        }
        assert dict(frame.schema) == declared
        assert frame.height > 0
