"""The subspace check: what the next weights cannot read changes nothing."""

from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
from mechinterp_assets.faithfulness.prompt_pairs import PromptBatch, prompt_pairs
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.faithfulness.subspace import (
    Direction,
    Site,
    mean_difference_directions,
    row_space,
    site_weights,
    split_direction,
    subspace_patching,
    swapped_tokens,
)
from mechinterp_assets.model.language_model import LanguageModel


@pytest.fixture(scope="module")
def positions(pairs: PromptBatch) -> dict[str, Tensor]:
    return {"S": torch.full((len(pairs),), 2), "END": pairs.end}


def test_parts_add_up_and_the_null_part_is_not_read(split: SplitModel) -> None:
    generator = torch.Generator().manual_seed(0)
    for site in ("z", "mlp_hidden"):
        weights = site_weights(split, site, 1)
        v = torch.randn(len(weights), generator=generator, dtype=torch.float64)
        parts = split_direction(v, row_space(weights))
        torch.testing.assert_close(parts.row + parts.null, v)
        assert float((parts.null @ weights).norm()) < 1e-4 * float(v.norm())
        assert 0 < parts.share_row <= 1
        assert parts.rank == torch.linalg.matrix_rank(weights, rtol=1e-5)


def test_centred_weights_are_rank_deficient(gpt2: LanguageModel) -> None:
    """W_O is 16 x 16 here, but what it writes is centred: rank 15, which a QR would not show."""
    model = SplitModel(gpt2)
    v = torch.randn(16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert split_direction(v, row_space(site_weights(model, "z", 0))).rank == 15


def test_null_is_a_no_op_and_component_is_the_source(
    split: SplitModel, pairs: PromptBatch, positions: dict[str, Tensor]
) -> None:
    directions = mean_difference_directions(split, pairs, positions, name="difference")
    assert len(directions) == 2 * 2 * split.shape.n_layers
    frame = subspace_patching(split, pairs, positions, directions, batch_rows=2)
    null = frame.filter(patched_part="null")
    assert (null["m_patched"] - null["m_clean"]).abs().max() < 1e-5  # float32 inside the folding
    assert null["fldd"].abs().max() < 1e-4
    # All hidden activations at END of the last layer's MLP: its output is the counterfactual's.
    layer = split.shape.n_layers - 1
    whole = frame.filter(
        patched_part="component", site="mlp_hidden", layer=layer, position_role="END"
    )
    rows = torch.arange(len(pairs))
    clean, corrupt = split.run(pairs.clean), split.run(pairs.corrupt)
    swapped = split.mlp(layer, corrupt.mlp_in[layer]) - split.mlp(layer, clean.mlp_in[layer])
    at_end = (clean.final + swapped)[rows, pairs.end]
    expected = (split.normalise(at_end) * pairs.direction).sum(-1) + pairs.offset
    assert whole["m_patched"][0] == pytest.approx(float(expected.mean()), rel=1e-9)


@pytest.mark.parametrize("site", ["z", "mlp_hidden"])
@torch.no_grad()
def test_patches_are_those_of_hooks(
    organism: LanguageModel, ioi_pairs: pl.DataFrame, site: Site
) -> None:
    model = SplitModel(organism)
    pairs = prompt_pairs(model, ioi_pairs, counterfactual="S2_to_IO", count=3)
    positions = {"END": pairs.end}
    found = [
        one
        for one in mean_difference_directions(model, pairs, positions, name="x", sites=(site,))
        if one.layer == 1
    ]
    frame = subspace_patching(model, pairs, positions, found)
    unit = found[0].vector / found[0].vector.norm()
    name = "blocks.1.attn.hook_z" if site == "z" else "blocks.1.mlp.hook_post"
    values = []
    for row, end in enumerate(pairs.end.tolist()):
        clean, corrupt = (ids[row : row + 1, : end + 1] for ids in (pairs.clean, pairs.corrupt))
        _, cache = organism.processed.run_with_cache(corrupt)
        source = cache[name][0, end].flatten().double()

        def patch(x: Tensor, hook: Any, end: int = end, source: Tensor = source) -> Tensor:
            own = x[0, end].flatten().double()
            new = own + unit * (unit @ (source - own))
            x[0, end] = new.view(x[0, end].shape).float()
            return x

        logits = organism.processed.run_with_hooks(clean, fwd_hooks=[(name, patch)])[0, -1]
        values.append(float(logits @ _answers(organism, ioi_pairs, pairs.prompt[row])))
    expected = sum(values) / len(values)
    assert frame.filter(patched_part="direction")["m_patched"][0] == pytest.approx(
        expected, abs=1e-3
    )


def _answers(model: LanguageModel, prompts: pl.DataFrame, prompt: int) -> Tensor:
    row = prompts.filter(prompt=prompt).row(0, named=True)
    signs = torch.zeros(model.config.d_vocab)
    signs[row["answer_token_ids"]] = 1
    signs[row["wrong_token_ids"]] = -1
    return signs


def test_a_planted_null_direction_is_dormant(
    split: SplitModel, pairs: PromptBatch, positions: dict[str, Tensor]
) -> None:
    weights = site_weights(split, "mlp_hidden", 0)
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(len(weights), generator=generator, dtype=torch.float64)
    null = split_direction(v, row_space(weights)).null
    one = Direction("mlp_hidden", 0, "END", "planted", null)
    frame = subspace_patching(split, pairs, positions, [one])
    by_part = {row["patched_part"]: row for row in frame.to_dicts()}
    assert by_part["direction"]["share_row"] < 1e-9
    assert abs(by_part["direction"]["fldd"]) < 1e-4
    assert abs(by_part["component"]["fldd"]) > 1e-3


def test_groups_and_swaps(split: SplitModel, pairs: PromptBatch) -> None:
    at = {"S": torch.full((len(pairs),), 2)}
    groups = torch.tensor([True, False, True, False, True])
    (one,) = mean_difference_directions(
        split, pairs, at, name="order", groups=groups, sites=("z",), batch_rows=2
    )[1:2]
    z = split.run(pairs.clean).z[1].flatten(-2)[:, 2]
    torch.testing.assert_close(one.vector, z[groups].mean(0) - z[~groups].mean(0))
    swapped = swapped_tokens(pairs, at["S"], at["S"] + 1)
    assert torch.equal(swapped.corrupt[:, 2], pairs.clean[:, 3])
    assert torch.equal(swapped.corrupt[:, 4:], pairs.clean[:, 4:])
    with pytest.raises(FaithfulnessError, match="all prompts are in one group"):
        mean_difference_directions(split, pairs, at, name="x", groups=torch.ones_like(groups))


def test_bad_directions_are_named(split: SplitModel, pairs: PromptBatch) -> None:
    weights = site_weights(split, "z", 0)
    with pytest.raises(FaithfulnessError, match="zero or not finite"):
        split_direction(torch.zeros(len(weights)), row_space(weights))
    with pytest.raises(FaithfulnessError, match="the weights read 16"):
        split_direction(torch.ones(3), row_space(weights))
    with pytest.raises(FaithfulnessError, match="layer 7 does not exist"):
        site_weights(split, "z", 7)
    one = Direction("z", 0, "S2", "x", torch.ones(16, dtype=torch.float64))
    with pytest.raises(FaithfulnessError, match="no positions of role 'S2'"):
        subspace_patching(split, pairs, {"END": pairs.end}, [one])
