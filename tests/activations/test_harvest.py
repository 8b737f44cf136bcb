"""Harvested z against TransformerLens, and against the full forward pass."""

import pytest
import torch

from mechinterp_assets.activations.harvest import capture_z, difference_from_bridge, harvest
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError


def _ids(model: LanguageModel, n: int, context: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.config.d_vocab, (n, context), generator=generator)
    ids[:, 0] = model.bos_token_id
    return ids


def test_z_equals_the_bridge_hook_z(organism: LanguageModel) -> None:
    differences = difference_from_bridge(organism, _ids(organism, 4, 48))
    assert sorted(differences) == list(range(organism.config.n_layers))
    assert max(differences.values()) < 1e-4


def test_z_equals_the_bridge_hook_z_with_rope_and_grouped_queries(stories: LanguageModel) -> None:
    assert stories.config.n_kv_heads < stories.config.n_heads
    assert stories.config.positional == "rotary"
    differences = difference_from_bridge(stories, _ids(stories, 4, 48))
    assert max(differences.values()) < 1e-4


def test_stopping_at_the_last_wanted_layer_changes_nothing(organism: LanguageModel) -> None:
    ids = _ids(organism, 2, 16)
    everything = capture_z(organism, ids)
    one = capture_z(organism, ids, [1])
    assert list(one) == [1]
    assert torch.equal(one[1], everything[1])


def test_no_layer_runs_after_the_last_wanted_one(organism: LanguageModel) -> None:
    seen: list[int] = []
    handles = [
        organism.output_projection(layer).register_forward_hook(
            lambda module, args, output, layer=layer: seen.append(layer)
        )
        for layer in range(organism.config.n_layers)
    ]
    try:
        capture_z(organism, _ids(organism, 1, 8), [0, 1])
    finally:
        for handle in handles:
            handle.remove()
    assert seen == [0]


def test_hooks_are_gone_after_a_harvest_that_was_left_early(organism: LanguageModel) -> None:
    batches = harvest(organism, _ids(organism, 4, 8), batch_size=2)
    next(batches)
    module = organism.output_projection(0)
    assert not module._forward_pre_hooks


def test_batches_cover_all_sequences_in_order(organism: LanguageModel) -> None:
    ids = _ids(organism, 5, 12)
    batches = list(harvest(organism, ids, [0], batch_size=2, dtype=torch.bfloat16))
    assert [batch.first for batch in batches] == [0, 2, 4]
    assert torch.equal(torch.cat([batch.token_ids for batch in batches]), ids)
    z = torch.cat([batch.z[0] for batch in batches])
    assert z.dtype == torch.bfloat16
    whole = capture_z(organism, ids, [0])[0]
    torch.testing.assert_close(z.float(), whole, rtol=2**-7, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, model: ids + model.config.d_vocab, "vocabulary"),
        (lambda ids, model: ids.repeat(1, model.config.n_ctx), "context"),
        (lambda ids, model: ids[0], r"\[sequence, position\]"),
        (lambda ids, model: ids.float(), "integer"),
    ],
)
def test_token_ids_that_do_not_fit_are_refused(
    organism: LanguageModel, change: object, message: str
) -> None:
    assert callable(change)
    with pytest.raises(ModelError, match=message):
        next(harvest(organism, change(_ids(organism, 2, 8), organism)))


def test_unknown_layers_are_refused(organism: LanguageModel) -> None:
    with pytest.raises(ModelError, match="layer 99"):
        capture_z(organism, _ids(organism, 1, 8), [99])
