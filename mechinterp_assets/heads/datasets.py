"""Token sequences that head scores are computed on.

Belongs here: random token sequences, repeated random tokens (RRT) and windows of given text. Does
not belong here: reading corpora, scoring.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel


class DatasetError(ValueError):
    """Sequences that cannot be made; the message names the setting and the remedy."""


@dataclass(frozen=True)
class TokenDataset:
    """Token sequences of one length, each with BOS at position 0.

    `period` is the length of the repeated block (0: not repeated): the tokens at positions
    1 .. period occur again, in order, at period+1 .. 2*period, and nowhere else.
    """

    name: str
    token_ids: Tensor  # [sequence, position] int64
    period: int = 0

    @property
    def length(self) -> int:
        """Positions in a sequence, BOS included."""
        return int(self.token_ids.shape[1])


def ordinary_token_ids(model: LanguageModel) -> Tensor:
    """Ids that the tokenizer can produce and that are not special, ascending [n]."""
    special = {int(i) for i in model.tokenizer.all_special_ids} | {model.bos_token_id}
    known = min(len(model.tokenizer), model.config.d_vocab)
    return torch.tensor([i for i in range(known) if i not in special])


def fitting_length(model: LanguageModel, length: int) -> int:
    """The longest sequence of BOS and different ordinary tokens, at most `length`, that fits."""
    return min(length, model.config.n_ctx, len(ordinary_token_ids(model)) + 1)


def fitting_period(model: LanguageModel, period: int) -> int:
    """The longest block of different ordinary tokens, at most `period`, that fits twice."""
    return min(period, (model.config.n_ctx - 1) // 2, len(ordinary_token_ids(model)))


def random_tokens(
    model: LanguageModel, *, n_sequences: int, length: int, seed: int
) -> TokenDataset:
    """BOS + `length` - 1 ordinary tokens, drawn without replacement within a sequence."""
    ids = _with_bos(model, _draw(model, n_sequences, length - 1, seed))
    name = f"random tokens ({n_sequences} x {length}, seed {seed})"
    return TokenDataset(name, _checked(model, ids, "sink_length"))


def repeated_random_tokens(
    model: LanguageModel, *, n_sequences: int, period: int, seed: int
) -> TokenDataset:
    """RRT: BOS + `period` ordinary tokens + the same tokens again.

    Tokens are drawn without replacement within a sequence, so that "the earlier occurrence" of a
    token in the second half is one position, `period` before it.
    """
    if period < 3:
        raise DatasetError(f"period is {period}; RRT need a period of at least 3")
    half = _draw(model, n_sequences, period, seed)
    ids = _with_bos(model, torch.cat([half, half], dim=1))
    name = f"repeated random tokens ({n_sequences} x 2 x {period}, seed {seed})"
    return TokenDataset(name, _checked(model, ids, "period"), period=period)


def text_windows(
    model: LanguageModel, token_ids: Tensor, *, length: int, name: str
) -> TokenDataset:
    """The first `length` positions of tokenized text [sequence, position] that starts with BOS."""
    if token_ids.ndim != 2 or token_ids.shape[1] < length:
        raise DatasetError(
            f"text has shape {tuple(token_ids.shape)} but windows of {length} tokens are needed; "
            "give longer sequences or lower sink_length"
        )
    if not bool((token_ids[:, 0] == model.bos_token_id).all()):
        raise DatasetError(
            f"text sequences must start with BOS (id {model.bos_token_id}); "
            "tokenize with prepend_bos"
        )
    ids = token_ids[:, :length]
    return TokenDataset(f"{name} ({ids.shape[0]} x {length})", _checked(model, ids, "sink_length"))


def _draw(model: LanguageModel, n_sequences: int, count: int, seed: int) -> Tensor:
    allowed = ordinary_token_ids(model)
    if n_sequences < 1:
        raise DatasetError(f"n_sequences is {n_sequences}; at least 1 sequence is needed")
    if count > len(allowed):
        raise DatasetError(
            f"{count} different tokens are needed in a sequence but {model.source} has "
            f"{len(allowed)} ordinary tokens; lower the sequence length"
        )
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(len(allowed), generator=generator)[:count] for _ in range(n_sequences)]
    return allowed[torch.stack(rows)]


def _with_bos(model: LanguageModel, ids: Tensor) -> Tensor:
    bos = torch.full((ids.shape[0], 1), model.bos_token_id, dtype=ids.dtype)
    return torch.cat([bos, ids], dim=1)


def _checked(model: LanguageModel, ids: Tensor, setting: str) -> Tensor:
    if ids.shape[1] > model.config.n_ctx:
        raise DatasetError(
            f"sequences of {ids.shape[1]} tokens do not fit the context of {model.source} "
            f"({model.config.n_ctx}); lower {setting}"
        )
    return ids
