"""The model as functions computes what the model computes."""

import pytest
import torch

from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
from mechinterp_assets.faithfulness.prompt_pairs import PromptBatch
from mechinterp_assets.faithfulness.split_model import SplitModel, Tail
from mechinterp_assets.model.language_model import LanguageModel


def test_logits_are_the_bridges(gpt2: LanguageModel, llama: LanguageModel) -> None:
    ids = torch.randint(0, 40, (3, 8), generator=torch.Generator().manual_seed(0))
    assert SplitModel(gpt2).check(gpt2, ids) < 1e-10
    # Llama's RMSNorm and rotary angles are float32 inside transformers, whatever the model's type.
    assert SplitModel(llama).check(llama, ids) < 1e-5


def test_logits_of_trained_models(organism: LanguageModel, stories: LanguageModel) -> None:
    ids = torch.randint(0, 500, (2, 20), generator=torch.Generator().manual_seed(0))
    for model in (organism, stories):
        assert SplitModel(model).check(model, ids) < 1e-5


def test_another_architecture_is_refused(gpt2: LanguageModel) -> None:
    split = SplitModel(gpt2)
    split.W_out = split.W_out * 1.1
    with pytest.raises(FaithfulnessError, match="differ from the model's"):
        split.check(gpt2, torch.arange(6)[None])


def test_nodes_add_up_to_the_residual_stream(split: SplitModel, pairs: PromptBatch) -> None:
    run = split.run(pairs.clean, nodes=True)
    assert run.nodes is not None
    torch.testing.assert_close(run.nodes.sum(0) + split.b_O.sum(0), run.final)


def test_norm_gradient_is_autograds(split: SplitModel) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(split.normalise(x), x, g)
    torch.testing.assert_close(split.norm_gradient(x.detach(), g), expected)


def test_runs_that_start_late_end_alike(split: SplitModel, pairs: PromptBatch) -> None:
    run = split.run(pairs.clean)
    other = split.run(pairs.corrupt)
    at_end = run.final[torch.arange(len(pairs)), pairs.end]
    # Before the first token that differs keys and values may be those of the counterfactual run.
    for first, of in ((pairs.end * 0, run), (pairs.first_difference, other), (pairs.end, run)):
        tail = Tail.of(of, first, pairs.end)
        for layer in range(split.shape.n_layers):
            mid, pre = tail.take(run.mid[layer]), tail.take(run.pre[layer])
            torch.testing.assert_close(split.finish(layer, mid, tail), at_end)
            torch.testing.assert_close(split.finish_from(layer, pre, tail), at_end)


def test_padding_behind_end_changes_nothing(split: SplitModel, pairs: PromptBatch) -> None:
    run = split.run(pairs.clean)
    for row, end in enumerate(pairs.end.tolist()):
        alone = split.run(pairs.clean[row : row + 1, : end + 1])
        torch.testing.assert_close(run.final[row, end], alone.final[0, end])
