"""Forward passes in which z of one layer is replaced.

Belongs here: the clean pass, a pass with z replaced at chosen positions, and the losses of the two.
Does not belong here: what z is replaced by and what the numbers mean (evaluation.py).

A pass with z of layer l replaced is the clean pass up to block l: it starts from what block l - 1
gave in the clean pass, so its cost is the blocks from l on and the unembedding. The result is bit
for bit that of a whole pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mechinterp_assets.language_model import LanguageModel


@dataclass
class CleanPass:
    """The unchanged model on one batch of sequences.

    ids [batch, position]; z {layer: [batch, position, d_z]}; targets [n] the next token of every
    position but the last, in order of sequence and position; logits [n, d_vocab] float32 and
    probabilities [n, d_vocab] of those; log_normalizer [n], logsumexp of the logits.
    """

    ids: Tensor
    z: dict[int, Tensor]
    targets: Tensor
    logits: Tensor
    log_normalizer: Tensor
    probabilities: Tensor
    before: dict[int, Any] = field(repr=False)

    @property
    def cross_entropy(self) -> float:
        """Sum of next-token cross-entropies, nats."""
        return _cross_entropy(self.logits, self.log_normalizer, self.targets)


@dataclass
class SplicedLosses:
    """Sums over predictions: next-token cross-entropy and KL(clean || spliced), nats."""

    cross_entropy: float = 0.0
    kl: float = 0.0

    def add(self, clean: CleanPass, logits: Tensor) -> None:
        """Add a pass over the same batch, whose logits are [n, d_vocab] float32."""
        log_normalizer = logits.logsumexp(1)
        self.cross_entropy += _cross_entropy(logits, log_normalizer, clean.targets)
        # sum p (log p - log q), with the difference of logits taken first: it is small where the
        # two passes agree, so that nothing cancels
        difference = torch.linalg.vecdot(clean.probabilities, clean.logits - logits)
        kl = difference - clean.log_normalizer + log_normalizer
        self.kl += float(kl.double().sum())


@torch.no_grad()
def clean_pass(model: LanguageModel, layers: Sequence[int], ids: Tensor) -> CleanPass:
    """The unchanged model on ids [batch, position] (int64, on its device), with z of `layers`."""
    z: dict[int, Tensor] = {}
    before: dict[int, Any] = {}
    blocks = _blocks(model)
    with ExitStack() as stack:
        for layer in layers:
            projection = model.output_projection(layer)
            handle = projection.register_forward_pre_hook(
                lambda module, args, layer=layer: z.__setitem__(layer, args[0])
            )
            stack.callback(handle.remove)
            if blocks is not None and layer > 0:
                handle = blocks[layer - 1].register_forward_hook(
                    lambda module, args, output, layer=layer: before.__setitem__(layer, output)
                )
                stack.callback(handle.remove)
        logits = _logits(model, ids)
    log_normalizer = logits.logsumexp(1)
    return CleanPass(
        ids=ids,
        z=z,
        targets=ids[:, 1:].flatten(),
        logits=logits,
        log_normalizer=log_normalizer,
        probabilities=(logits - log_normalizer[:, None]).exp_(),
        before=before,
    )


@torch.no_grad()
def spliced_logits(
    model: LanguageModel, clean: CleanPass, layer: int, where: Tensor, rows: Tensor
) -> Tensor:
    """Logits [n, d_vocab] float32 with z of `layer` replaced by rows [n_where, d_z] where `where`
    [batch, position] (boolean) holds, in order of sequence and position. n as in CleanPass.
    """

    def replace(z: Tensor) -> Tensor:
        spliced = z.clone()
        spliced[where] = rows.to(z.dtype)
        return spliced

    with model.replaced_z(layer, replace), _starting_at(model, layer, clean.before):
        return _logits(model, clean.ids)


# ---- private -------------------------------------------------------------------------------------


def _logits(model: LanguageModel, ids: Tensor) -> Tensor:
    logits: Tensor = model.hf(input_ids=ids, use_cache=False).logits
    return logits[:, :-1].flatten(0, 1).float()


def _cross_entropy(logits: Tensor, log_normalizer: Tensor, targets: Tensor) -> float:
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return float((log_normalizer.double() - chosen.double()).sum())


def _blocks(model: LanguageModel) -> nn.ModuleList | None:
    """The transformer blocks in layer order, or None for a model that names no such list."""
    lists = [
        module
        for module in model.trunk.modules()
        if isinstance(module, nn.ModuleList) and len(module) == model.config.n_layers
    ]
    return lists[0] if len(lists) == 1 else None


@contextmanager
def _starting_at(model: LanguageModel, layer: int, before: Mapping[int, Any]) -> Iterator[None]:
    """Inside, blocks below `layer` give the clean output of block layer - 1 at no cost."""
    blocks = _blocks(model)
    if blocks is None or layer not in before:
        yield
        return
    skipped = list(blocks)[:layer]
    try:
        for block in skipped:
            # an instance attribute hides the class's method until it is deleted
            block.forward = lambda *args, **kwargs: before[layer]
        yield
    finally:
        for block in skipped:
            block.__dict__.pop("forward", None)
