"""The embedded model as shipped: what results.json says is computed anew and must hold."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mechinterp_assets.corpora.structured import NAMES, documents, is_held_out_pair
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.organism.evaluate import (
    HELD_OUT_TEMPLATES,
    NAME_ORDERS,
    Organism,
    measure_heads,
    measure_ioi,
    measure_repetition,
    name_pairs,
    repeated_tokens,
    rounded,
)

MEGABYTE = 2**20


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shipped() -> Organism:
    return Organism.load()


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ORGANISM_FOLDER / "results.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def ioi(shipped: Organism) -> dict[str, Any]:
    return measure_ioi(shipped, prompts_per_cell=20)


def test_weights_are_small_and_of_the_stated_size(
    shipped: Organism, results: dict[str, Any]
) -> None:
    assert (ORGANISM_FOLDER / "model.safetensors").stat().st_size < 16 * MEGABYTE
    config = shipped.model.config
    assert results["model"] == {
        "layers": config.n_layer,
        "heads": config.n_head,
        "d_model": config.n_embd,
        "context": config.n_positions,
        "vocabulary": config.vocab_size,
        "parameters": sum(p.numel() for p in shipped.model.parameters()),
    }


def test_names_are_single_tokens_and_bos_is_eos(shipped: Organism) -> None:
    assert len({shipped.token(name) for name in NAMES}) == len(NAMES)
    assert shipped.tokenizer.bos_token_id == shipped.tokenizer.eos_token_id == 0
    with pytest.raises(ValueError, match="choose a word of one token"):
        shipped.token("Nebuchadnezzar")


def test_ioi_on_unseen_templates_and_unseen_pairs(ioi: dict[str, Any]) -> None:
    assert ioi["accuracy"] >= 0.95
    assert ioi["logit_difference"] >= 2
    for order in NAME_ORDERS:
        assert ioi["by_order"][order]["accuracy"] >= 0.93
        assert ioi["by_order"][order]["logit_difference"] >= 2


def test_results_file_agrees_with_the_weights(
    shipped: Organism, ioi: dict[str, Any], results: dict[str, Any]
) -> None:
    assert results["ioi"]["accuracy"] == pytest.approx(ioi["accuracy"], abs=0.03)
    assert results["ioi"]["logit_difference"] == pytest.approx(ioi["logit_difference"], rel=0.1)
    measured = rounded(measure_repetition(shipped))
    assert results["repetition"] == pytest.approx(measured, abs=0.01)


def test_heads_agree_with_the_results_file_and_one_is_an_induction_head(
    shipped: Organism, results: dict[str, Any]
) -> None:
    heads = measure_heads(shipped)
    for score, table in heads.items():
        for ours, stored in zip(table, results["heads"][score], strict=True):
            assert ours == pytest.approx(stored, abs=0.01), score
    assert max(max(row) for row in heads["induction"]) > 0.4


def test_evaluation_templates_never_occur_in_generated_text() -> None:
    patterns = [
        re.compile(re.sub(r"\\{\w+\\}", r"[\\w ]+?", re.escape(template)))
        for template in HELD_OUT_TEMPLATES
    ]
    filled = [
        t.format(x="Mary", y="John", s="John", place="park", object="hat")
        for t in HELD_OUT_TEMPLATES
    ]
    assert all(p.search(text) for p, text in zip(patterns, filled, strict=True))
    for row in documents(8000, seed=21):
        assert not any(p.search(row["text"]) for p in patterns), row["text"]


def test_held_out_pairs_are_those_of_the_generator() -> None:
    pairs = name_pairs()
    assert pairs
    assert all(is_held_out_pair(*pair) for pair in pairs)


def test_repeated_tokens_repeat_once_and_never_within_a_half() -> None:
    tokens = repeated_tokens(vocabulary=100, sequences=5, length=20, seed=0)
    assert tokens.shape == (5, 41)
    assert torch.equal(tokens[:, 1:21], tokens[:, 21:])
    assert (tokens[:, 0] == 0).all()
    assert all(len(set(row[1:21].tolist())) == 20 for row in tokens)


def test_head_scores_find_planted_patterns(
    shipped: Organism, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uniform previous-token, induction, duplicate and sink patterns score exactly 1."""
    length = 60

    def planted(self: Organism, tokens: torch.Tensor) -> torch.Tensor:
        batch, size = tokens.shape
        pattern = torch.zeros(1, batch, 4, size, size)
        for head, offset in enumerate((1, length, length - 1)):
            pattern[0, :, head] = torch.diag_embed(torch.ones(size - offset), -offset)[:size, :size]
        pattern[0, :, 3, :, 0] = 1
        return pattern

    monkeypatch.setattr(Organism, "patterns", planted)
    scores = measure_heads(shipped, sequences=2, length=length)
    assert scores["previous_token"][0][0] == 1
    assert scores["duplicate_token"][0][1] == 1
    assert scores["induction"][0][2] == 1
    assert scores["sink"][0][3] == 1
    assert scores["induction"][0][0] == scores["duplicate_token"][0][0] == 0


def test_padding_does_not_change_the_logits(shipped: Organism) -> None:
    short, long = (
        "Once Mary met Tom",
        "After that Mary and Tom walked to the garden. Tom gave it to",
    )
    together = shipped.last_logits([short, long])
    assert torch.allclose(together[0], shipped.last_logits([short])[0], atol=1e-4)
