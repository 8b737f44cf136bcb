"""Slices of attention scores: worked example, selection, signs, identities, table."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.omega import ModelOmega, OmegaFactors, omega_svd
from mechinterp_assets.circuits.slices import (
    attention_slices,
    firing_pairs,
    mask_lists,
    pair_slices,
    select_slices,
    slice_terms,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import PromptError
from mechinterp_assets.storage.declarations import table_specs


def formula(rows: int, columns: int, a: int, b: int, c: int) -> Tensor:
    """Small integers over 4 from a formula: inputs that any language can reproduce."""
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return (((a * i + b * j + c * i * j + 3) % 11 - 5) / 4).double()


class OneHead(ModelOmega):
    """Omega of given weights of one head; `flip` changes signs of singular pairs."""

    def __init__(self, factors: OmegaFactors, flip: Tensor | None = None) -> None:
        self.rotary = False
        self.centred = False
        self._only = factors
        self._flip = flip

    def factors(self, layer: int) -> OmegaFactors:
        return self._only

    def inner(self, layer: int, n_offsets: int) -> tuple[Tensor, Tensor, Tensor]:
        u, S, v = self._only.inner_svd()
        sign = torch.ones_like(S[0]) if self._flip is None else self._flip
        return (u * sign)[None], S[None], (v * sign)[None]


def worked_weights() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        formula(6, 3, 7, 3, 9)[None],
        formula(1, 3, 1, 4, 0),
        formula(6, 3, 5, 2, 9)[None],
        formula(1, 3, 1, 6, 0),
    )


@pytest.mark.parametrize("flip", [None, [-1.0, 1.0, -1.0], [1.0, 1.0, -1.0]])
def test_worked_example(flip: list[float] | None) -> None:
    x_i, x_j = formula(1, 6, 1, 1, 0), formula(1, 6, 1, 5, 0)
    o_i, o_j = formula(1, 6, 1, 7, 0), formula(1, 6, 1, 8, 0)
    W_Q, b_Q, W_K, b_K = worked_weights()
    svd = omega_svd(W_Q, b_Q, W_K, b_K)
    assert svd.S[0].numpy() == pytest.approx([6.811647, 2.926847, 1.952530], abs=1e-6)
    terms = slice_terms(svd.U[0], svd.S[0], svd.V[0], x_i, x_j)
    assert terms[0].numpy() == pytest.approx([-1.107741, 0.575904, 2.410743], abs=1e-6)
    score = (x_i @ W_Q[0] + b_Q) @ (x_j @ W_K[0] + b_K).T
    assert float(score) == pytest.approx(1.878906, abs=1e-6)
    assert float(terms.sum()) == pytest.approx(float(score))

    omega = OneHead(
        OmegaFactors.of(W_Q, b_Q, W_K, b_K), None if flip is None else torch.tensor(flip).double()
    )
    pairs = pair_slices(omega, 0, 0, x_i, x_j, torch.zeros(1, dtype=torch.long), 1)
    assert pairs.terms.numpy() == pytest.approx(terms.numpy())
    assert pairs.selected.tolist() == [[False, False, True]]
    contributions = (
        float(pairs.reading[0, 0, 0] @ o_i[0]) / 2.0,
        float(pairs.reading[0, 1, 0] @ o_j[0]) / 4.0,
    )
    assert contributions == pytest.approx((0.662752, -0.073480), abs=1e-6)
    # What the published code adds to every head by appending 1 to its output.
    assert float(pairs.constant[0, 0, 0]) / 2.0 == pytest.approx(-0.045856, abs=1e-6)


def test_reading_and_constant_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(1, 9, 4, generator=generator), torch.randn(1, 4, generator=generator)]
    omega = OneHead(OmegaFactors.of(*weights, *(2 * w.flip(1) for w in weights)))
    x = torch.randn(2, 30, 9, generator=generator).double()
    pairs = pair_slices(omega, 0, 0, x[0], x[1], torch.zeros(30, dtype=torch.long), 1)
    for side in (0, 1):
        # The input itself, split into three writers.
        parts = torch.stack([0.2 * x[side], x[side] ** 2, 0.8 * x[side] - x[side] ** 2])
        read = torch.einsum("wpd,pkd->pk", parts, pairs.reading[:, side])
        assert torch.allclose(read + pairs.constant[:, side], pairs.whole[:, side])
    kept = (pairs.terms * pairs.selected).sum(-1)
    assert torch.allclose(pairs.whole[:, 0, 1], kept)
    assert torch.allclose(pairs.whole[:, 1, 1], kept)
    assert (pairs.whole[:, 0, 0] >= 0).all()
    assert (pairs.whole[:, 1, 0].sign() == kept.sign()).all()


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        ([3.0, 1.0, 2.0], [0, 1, 2]),
        ([-3.0, 1.0, 1.0], [0]),
        ([-3.0, -1.0, 1.0, 0.5], [0]),
        ([-1.0, -2.0], [0, 1]),
        ([5.0, -2.0, 1.0, 1.0], [0]),
        ([0.0, 0.0], []),
        ([2.0, -2.0], []),
        ([1.0, 0.0], [0]),
    ],
)
def test_selection_examples(terms: list[float], kept: list[int]) -> None:
    assert select_slices(torch.tensor([terms]))[0].nonzero()[:, 0].tolist() == kept


@given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_selection_drops_the_largest_set_without_positive_sum(terms: list[float]) -> None:
    """Of a positive sum; a negative one is mirrored."""
    values = np.array(terms) * (-1 if sum(terms) < 0 else 1)
    mask = select_slices(torch.tensor([terms], dtype=torch.float64))[0].numpy()
    limit = 1e-12 * np.abs(values).sum()
    largest = max(
        size
        for size in range(len(values) + 1)
        for subset in itertools.combinations(values, size)
        if sum(subset) <= limit
    )
    assert (~mask).sum() == largest
    if mask.any():
        assert values[mask].min() >= values[~mask].max(initial=-np.inf)
        assert values[mask].sum() >= values.sum() - 1e-9
    if abs(values.sum()) > 1e3 * limit:  # sums that round to 0 may go either way
        assert mask.any()


def test_firing_rule() -> None:
    pattern = torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0.1, 0.4, 0.5]]])
    score = torch.tensor([[[1.0, 0, 0], [1.0, 0.0, 0], [1.0, 2.0, -0.1]]])
    assert firing_pairs(pattern, score).nonzero().tolist() == [[0, 1, 1]]
    assert firing_pairs(pattern, score, 0.4).nonzero().tolist() == [[0, 1, 1], [0, 2, 1]]


def test_mask_lists() -> None:
    mask = np.array([[True, False, True], [False, False, False], [False, True, False]])
    assert mask_lists(mask).to_list() == [[0, 2], [], [1]]


@pytest.mark.parametrize("which", ["organism", "stories", "tiny_gpt2", "tiny_llama"])
def test_slices_sum_to_the_scores_of_the_model(
    which: str, request: pytest.FixtureRequest, organism_prompts: pl.DataFrame
) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    make = request.getfixturevalue("make_prompts")
    prompts = organism_prompts.head(6) if which == "organism" else make(model, 4, 12)
    frame = attention_slices(model, prompts, memory_mib=1)
    columns = {
        c.name: c.polars_type
        for c in table_specs()["attention_slices"].science_columns
        if c.name != "task"
    }
    assert dict(frame.schema) == columns
    assert frame.height > 20
    assert frame["relative_identity_error"].to_numpy().max() < 1e-4
    total = frame["slice_terms"].list.sum().to_numpy()
    scores = frame["attention_score"].to_numpy() * model.config.d_head**0.5
    assert np.allclose(total, scores, rtol=1e-4, atol=1e-4)
    # Every pair that fires, by looping over the model's own patterns.
    expected = set()
    for prompt, ids in prompts.select("prompt", "token_ids").iter_rows():
        with torch.no_grad():
            _, cache = model.processed.run_with_cache(torch.tensor([ids]))
        for layer in range(model.config.n_layers):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0]
            score = cache[f"blocks.{layer}.attn.hook_attn_scores"][0]
            for head, i, j in ((pattern >= 0.5) & (score >= 0)).nonzero().tolist():
                if j >= 1:
                    expected.add((prompt, layer, head, i, j))
    got = frame.select("prompt", "layer", "head", "destination", "source").rows()
    borderline = {
        key
        for key, attention in zip(got, frame["attention"], strict=True)
        if abs(attention - 0.5) < 1e-4
    }
    assert len(got) == len(set(got))
    assert set(got) - borderline <= expected
    assert len(expected - set(got)) <= len(borderline) + 1


def test_organism_roles_and_counts(organism: LanguageModel, organism_prompts: pl.DataFrame) -> None:
    frame = attention_slices(organism, organism_prompts)
    ends = frame.filter(destination_role="END").join(organism_prompts, on="prompt")
    assert (ends["destination"] == ends["pos_end"]).all()
    assert (frame["n_slices"] == frame["slices"].list.len()).all()
    assert (frame["slice_sum"].to_numpy() > 0).all()
    row = frame.row(3, named=True)
    assert row["slice_sum"] == pytest.approx(
        sum(row["slice_terms"][k] for k in row["slices"]), rel=1e-5
    )


def test_bad_prompts_are_refused(organism: LanguageModel, organism_prompts: pl.DataFrame) -> None:
    with pytest.raises(PromptError, match="no prompts"):
        attention_slices(organism, organism_prompts.clear())
    long = organism_prompts.head(1).with_columns(
        n_tokens=pl.lit(organism.config.n_ctx + 1),
        token_ids=pl.lit([1] * (organism.config.n_ctx + 1)),
    )
    with pytest.raises(PromptError, match="reads"):
        attention_slices(organism, long)
    foreign = organism_prompts.head(1).with_columns(
        token_ids=pl.col("token_ids").list.eval(pl.element() + organism.config.d_vocab)
    )
    with pytest.raises(PromptError, match="token id"):
        attention_slices(organism, foreign)


def test_a_model_whose_scores_are_something_else_is_refused(
    tiny_gpt2: LanguageModel, make_prompts: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechinterp_assets.circuits import slices

    assert callable(make_prompts)
    monkeypatch.setattr(slices, "attention_scales", lambda model: [1.0] * model.config.n_layers)
    with pytest.raises(CircuitError, match="slices miss"):
        attention_slices(tiny_gpt2, make_prompts(tiny_gpt2, 3, 10))
