"""What if: the answer of a prompt with edits, against hooks on the Hugging Face model."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import Tensor

from mechinterp_assets.explore.exploration import Exploration, Explorer
from mechinterp_assets.interventions.terms import InterventionError

CLOSE = {"abs": 2e-5}


@contextmanager
def edited_z(explored: Exploration, layer: int, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block the Hugging Face model runs with edit(z [position, head, d_head])."""

    def replace(z: Tensor) -> Tensor:
        config = explored.model.config
        return edit(z[0].reshape(-1, config.n_heads, config.d_head).clone()).reshape(z.shape)

    with explored.model.replaced_z(layer, replace):
        yield


def answer(explored: Exploration, *edits: tuple[int, Callable[[Tensor], Tensor]]) -> Tensor:
    """Next-token probabilities [d_vocab] of the Hugging Face model with z edited."""
    with ExitStack() as stack, torch.no_grad():
        for layer, edit in edits:
            stack.enter_context(edited_z(explored, layer, edit))
        logits: Tensor = explored.model.hf(explored.token_ids[None]).logits[0, -1]
    return logits.double().softmax(-1)


def check(explored: Exploration, edits: list[dict[str, object]], expected: Tensor) -> None:
    """All probabilities before and after are those of the Hugging Face model."""
    found = explored.what_if(edits, k=40)
    assert len(found.tokens) == 40
    before = answer(explored)
    for token, was, becomes in found.tokens.select("token_id", "before", "after").iter_rows():
        assert was == pytest.approx(float(before[token]), **CLOSE)
        assert becomes == pytest.approx(float(expected[token]), **CLOSE)
    assert found.tokens["after"].is_sorted(descending=True)
    kl = float((before * (before / expected).log()).sum())
    assert found.kl == pytest.approx(kl, rel=1e-3, abs=1e-5)


def test_a_head_scaled(explored: Exploration) -> None:
    def scaled(z: Tensor) -> Tensor:
        z[:, 1] *= -0.5
        return z

    edit = {"kind": "head_scaling", "layer": 1, "head": 1, "alpha": -0.5}
    check(explored, [edit], answer(explored, (1, scaled)))


def test_a_head_ablated_at_one_position(explored: Exploration) -> None:
    def silenced(z: Tensor) -> Tensor:
        z[3, 0] = 0
        return z

    edit = {"kind": "head_scaling", "layer": 0, "head": 0, "alpha": 0, "position_role": "p3"}
    check(explored, [edit], answer(explored, (0, silenced)))


def test_a_feature_and_a_head_together(explored: Exploration) -> None:
    feature = int(explored.features.filter(layer=0, position=4)["feature"][0])
    sae = explored.saes[0]

    def without_feature(z: Tensor) -> Tensor:
        flat = z.flatten(1)
        f = sae.encode(flat)[:, feature].clone()
        f[0] = 0  # position 0 is no matter of SAEs
        return (flat - f[:, None] * sae.W_dec[feature]).reshape(z.shape)

    def doubled(z: Tensor) -> Tensor:
        z[:, 0] *= 2
        return z

    edits: list[dict[str, object]] = [
        {"kind": "sae_feature_ablation", "layer": 0, "feature": feature},
        {"kind": "head_scaling", "layer": 2, "head": 0, "alpha": 2},
    ]
    check(explored, edits, answer(explored, (0, without_feature), (2, doubled)))


def test_a_patch_from_another_prompt(explorer: Explorer, explored: Exploration) -> None:
    """What is taken from itself changes nothing; another prompt's last stream is its answer."""
    patch = {"kind": "activation_patching", "mode": "noise", "source_variant": "other"}
    z = {**patch, "site": "z", "layer": 1}
    same = explored.what_if([z], other=explored)
    assert same.kl == pytest.approx(0, abs=1e-9)
    assert same.tokens["logit_change"].abs().max() == pytest.approx(0, abs=1e-5)

    other = explorer.explore([explorer.model.bos_token_id, 30, 2, 8])
    last = {**patch, "site": "resid_post", "layer": 2, "position_role": "p8"}
    found = explored.what_if([last], other=other, matched={8: 3}, k=40)
    expected = other.next_tokens(3, 40)
    assert found.tokens["token_id"].to_list() == expected["token_id"].to_list()
    assert found.tokens["after"].to_list() == pytest.approx(
        expected["probability"].to_list(), **CLOSE
    )
    with pytest.raises(InterventionError, match="tokens"):
        explored.what_if([z], other=other)  # every position, of a prompt of another length
    with pytest.raises(InterventionError, match="no prompts of variant 'other'"):
        explored.what_if([z])


def test_an_earlier_position_is_the_prompt_cut_there(
    explorer: Explorer, explored: Exploration
) -> None:
    edit = [{"kind": "head_scaling", "layer": 0, "head": 1, "alpha": 0}]
    cut = explorer.explore(explored.token_ids[:5].tolist())
    found, expected = explored.what_if(edit, position=4), cut.what_if(edit)
    assert found.kl == pytest.approx(expected.kl, abs=1e-9)
    assert found.tokens.equals(expected.tokens)


def test_what_cannot_be_run_is_refused(explored: Exploration) -> None:
    for edits, what in (
        ([], "no intervention"),
        ([{"kind": "magic", "layer": 0}], "unknown kind 'magic'"),
        ([{"kind": "head_scaling", "layer": 7, "head": 0}], "layer 7 does not exist"),
        ([{"kind": "sae_feature_ablation", "layer": 1, "feature": 0}], "no SAE of layer 1"),
        (
            [{"kind": "head_scaling", "layer": 0, "head": 0, "position_role": "p12"}],
            "no role 'p12'",
        ),
        ([{"kind": "head_scaling", "layer": 0, "head": 0, "alpha": float("nan")}], "alpha"),
        ([{"kind": "head_scaling", "layer": 0, "head": 0}] * 2, "twice"),
    ):
        with pytest.raises((InterventionError, ValueError), match=what):
            explored.what_if(edits)
