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

    Where a study's sequences have none (model.bos: none), position 0 holds text, or in sequences of
    random tokens one more of them, which occurs nowhere else: positions count as they do with BOS.

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
    return torch.tensor(model.ordinary_ids)


def fitting_length(model: LanguageModel, length: int) -> int:
    """The longest sequence of BOS and different ordinary tokens, at most `length`, that fits."""
    return min(length, model.config.n_ctx, len(model.ordinary_ids) + 1)


def fitting_period(model: LanguageModel, period: int) -> int:
    """The longest block of different ordinary tokens, at most `period`, that fits twice."""
    return min(period, (model.config.n_ctx - 1) // 2, len(model.ordinary_ids))


def random_tokens(
    model: LanguageModel, *, n_sequences: int, length: int, seed: int
) -> TokenDataset:
    """BOS + `length` - 1 ordinary tokens, drawn without replacement within a sequence."""
    ids = torch.cat(_drawn(model, n_sequences, length - 1, seed), dim=1)
    name = f"random tokens ({n_sequences} x {length}, seed {seed}) {model.sequence_start}"
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
    first, half = _drawn(model, n_sequences, period, seed)
    ids = torch.cat([first, half, half], dim=1)
    name = f"repeated random tokens ({n_sequences} x 2 x {period}, seed {seed})"
    name = f"{name} {model.sequence_start}"
    return TokenDataset(name, _checked(model, ids, "period"), period=period)


def text_windows(
    model: LanguageModel, token_ids: Tensor, *, length: int, name: str
) -> TokenDataset:
    """The first `length` positions of tokenized text [sequence, position].

    Raises DatasetError for text that does not begin with BOS where the study's does.
    """
    if token_ids.ndim != 2 or token_ids.shape[1] < length:
        raise DatasetError(
            f"text has shape {tuple(token_ids.shape)} but windows of {length} tokens are needed; "
            "give longer sequences or lower sink_length"
        )
    check_first_token(model, token_ids)
    ids = token_ids[:, :length]
    name = f"{name} ({ids.shape[0]} x {length}) {model.sequence_start}"
    return TokenDataset(name, _checked(model, ids, "sink_length"))


def check_first_token(model: LanguageModel, token_ids: Tensor) -> None:
    """Raise DatasetError for sequences that do not begin as the model's do."""
    first = model.first_token_id
    if first is not None and not bool((token_ids[:, 0] == first).all()):
        raise DatasetError(
            f"text sequences must start with BOS (id {first}); tokenize with prepend_bos, or load "
            "the model with bos='none'"
        )


def _drawn(model: LanguageModel, n_sequences: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """First token [sequence, 1] and `count` different ordinary tokens behind it."""
    first = model.first_token_id
    drawn = _draw(model, n_sequences, count + (first is None), seed)
    if first is None:
        return drawn[:, count:], drawn[:, :count]
    return torch.full((n_sequences, 1), first, dtype=drawn.dtype), drawn


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


def _checked(model: LanguageModel, ids: Tensor, setting: str) -> Tensor:
    if ids.shape[1] > model.config.n_ctx:
        raise DatasetError(
            f"sequences of {ids.shape[1]} tokens do not fit the context of {model.source} "
            f"({model.config.n_ctx}); lower {setting}"
        )
    return ids
