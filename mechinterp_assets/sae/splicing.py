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
from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel


@dataclass
class CleanPass:
    """The unchanged model on one batch of sequences.

    ids [batch, position]; where [batch, position] (boolean), the n positions that take part;
    z {layer: [n, d_z]} float32, logits [n, d_vocab] float32 and probabilities [n, d_vocab] there,
    in order of sequence and position; log_normalizer [n], logsumexp of the logits; predicting [m],
    those of the n with a next token, and targets [m], the tokens.
    """

    ids: Tensor
    where: Tensor
    z: dict[int, Tensor]
    logits: Tensor
    log_normalizer: Tensor
    probabilities: Tensor
    predicting: Tensor
    targets: Tensor
    before: dict[int, Any] = field(repr=False)

    def cross_entropy(self, logits: Tensor, log_normalizer: Tensor) -> float:
        """Sum over predictions of the next-token cross-entropy of a pass over this batch, nats."""
        return float(self.losses(logits, log_normalizer).sum())

    def losses(self, logits: Tensor, log_normalizer: Tensor) -> Tensor:
        """Cross-entropy of every prediction [m] of a pass over this batch, nats, float64."""
        chosen = logits[self.predicting, self.targets]
        return log_normalizer[self.predicting].double() - chosen.double()


@dataclass
class SplicedLosses:
    """Sums over passes, nats: cross_entropy over the positions with a next token, kl, of
    KL(clean || spliced), over all positions that take part.
    """

    cross_entropy: float = 0.0
    kl: float = 0.0

    def add(self, clean: CleanPass, logits: Tensor) -> None:
        """Add a pass over the same batch, whose logits are [n, d_vocab] float32."""
        log_normalizer = logits.logsumexp(1)
        self.cross_entropy += clean.cross_entropy(logits, log_normalizer)
        # sum p (log p - log q), with the difference of logits taken first: it is small where the
        # two passes agree, so that nothing cancels
        difference = torch.linalg.vecdot(clean.probabilities, clean.logits - logits)
        kl = difference - clean.log_normalizer + log_normalizer
        self.kl += float(kl.double().sum())


@torch.no_grad()
def clean_pass(
    model: LanguageModel, layers: Sequence[int], ids: Tensor, where: Tensor
) -> CleanPass:
    """The unchanged model on ids [batch, position] (int64, on its device), with z of `layers`, at
    the positions where `where` [batch, position] holds.
    """
    z: dict[int, Tensor] = {}
    before: dict[int, Any] = {}
    with ExitStack() as stack:
        for layer in layers:
            projection = model.output_projection(layer)
            handle = projection.register_forward_pre_hook(
                lambda module, args, layer=layer: z.__setitem__(layer, args[0][where].float())
            )
            stack.callback(handle.remove)
            if layer > 0:
                handle = model.block(layer - 1).register_forward_hook(
                    lambda module, args, output, layer=layer: before.__setitem__(layer, output)
                )
                stack.callback(handle.remove)
        logits = _logits(model, ids, where)
    log_normalizer = logits.logsumexp(1)
    last = torch.zeros_like(where)
    last[:, -1] = True
    return CleanPass(
        ids=ids,
        where=where,
        z=z,
        logits=logits,
        log_normalizer=log_normalizer,
        probabilities=(logits - log_normalizer[:, None]).exp_(),
        predicting=(~last[where]).nonzero()[:, 0],
        targets=ids[:, 1:][where[:, :-1]],
        before=before,
    )


@torch.no_grad()
def spliced_logits(model: LanguageModel, clean: CleanPass, layer: int, rows: Tensor) -> Tensor:
    """Logits [n, d_vocab] float32 with z of `layer` replaced by rows [n, d_z] at the n positions
    of the clean pass.
    """

    def replace(z: Tensor) -> Tensor:
        spliced = z.clone()
        spliced[clean.where.to(z.device)] = rows.to(z)
        return spliced

    with model.replaced_z(layer, replace), _starting_at(model, layer, clean.before):
        return _logits(model, clean.ids, clean.where)


# ---- private -------------------------------------------------------------------------------------


def _logits(model: LanguageModel, ids: Tensor, where: Tensor) -> Tensor:
    logits: Tensor = model.hf(input_ids=ids, use_cache=False).logits
    return logits[where].float()


@contextmanager
def _starting_at(model: LanguageModel, layer: int, before: Mapping[int, Any]) -> Iterator[None]:
    """Inside, blocks below `layer` give the clean output of block layer - 1 at no cost."""
    skipped = [model.block(below) for below in range(layer)] if layer in before else []
    try:
        for block in skipped:
            # an instance attribute hides the class's method until it is deleted
            block.forward = lambda *args, **kwargs: before[layer]
        yield
    finally:
        for block in skipped:
            block.__dict__.pop("forward", None)
