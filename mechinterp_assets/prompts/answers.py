"""How well logits answer: loss, probability, rank and logit difference at END.

Belongs here: numbers computed from logits and a prompt's answer tokens. Does not belong here: runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.model.precision import float64

ELEMENTS_AT_ONCE = 1 << 22  # of float64 logits, so that a large vocabulary does not fill memory


@dataclass(frozen=True)
class AnswerTokens:
    """Answer and wrong tokens of some prompts, padded; the masks say what is there.

    answer, wrong [row, choice] token ids; answer_mask, wrong_mask [row, choice].
    """

    answer: Tensor
    answer_mask: Tensor
    wrong: Tensor
    wrong_mask: Tensor

    @classmethod
    def of(cls, prompts: pl.DataFrame, device: torch.device) -> "AnswerTokens":
        """Those of rows of TASK_PROMPTS_SCHEMA."""
        answers, wrong = (prompts[f"{kind}_token_ids"].to_list() for kind in ("answer", "wrong"))
        return cls.padded(answers, wrong, device)

    @classmethod
    def padded(
        cls, answers: Sequence[Sequence[int]], wrong: Sequence[Sequence[int]], device: torch.device
    ) -> "AnswerTokens":
        """Those of token ids [row][choice]."""
        return cls(*_padded(answers, device), *_padded(wrong, device))

    def __getitem__(self, rows: Tensor | slice) -> "AnswerTokens":
        return AnswerTokens(
            self.answer[rows], self.answer_mask[rows], self.wrong[rows], self.wrong_mask[rows]
        )


def answer_metrics(
    logits: Tensor, answers: AnswerTokens, clean_logits: Tensor | None = None
) -> dict[str, Tensor]:
    """Metrics of each row: name -> [row] float64; logits [row, d_vocab] at END.

    loss        -log of the probability of all answer tokens together, in nats; like prob, rank and
                logit_diff NaN without answer tokens
    prob        that probability
    rank        1 + number of tokens that are no answer and score above the best answer
    logit_diff  mean logit of the answers - mean logit of the wrong tokens; NaN without wrong tokens
    kl          KL(clean || row) over the next token, in nats; only with clean_logits [row, d_vocab]
    """
    size = max(1, ELEMENTS_AT_ONCE // logits.shape[1])
    parts = [
        _metrics(
            logits[rows],
            answers[rows],
            None if clean_logits is None else clean_logits[rows],
        )
        for rows in (slice(start, start + size) for start in range(0, len(logits), size))
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


# ---- private -------------------------------------------------------------------------------------


def _metrics(
    logits: Tensor, answers: AnswerTokens, clean_logits: Tensor | None
) -> dict[str, Tensor]:
    logits = float64(logits)
    log_probs = logits.log_softmax(dim=-1)
    device = logits.device
    answer, mask = answers.answer.to(device), answers.answer_mask.to(device)
    absent = float("-inf")
    loss = -log_probs.gather(1, answer).masked_fill(~mask, absent).logsumexp(dim=1)
    best = logits.gather(1, answer).masked_fill(~mask, absent).amax(dim=1)
    better = (logits > best[:, None]).sum(dim=1)
    undefined = ~mask.any(dim=1)
    loss = loss.masked_fill(undefined, torch.nan)
    metrics = {
        "loss": loss,
        "prob": (-loss).exp(),
        "answer_rank": (1 + better.double()).masked_fill(undefined, torch.nan),
        "logit_diff": _mean_logit(logits, answer, mask)
        - _mean_logit(logits, answers.wrong.to(device), answers.wrong_mask.to(device)),
    }
    if clean_logits is not None:
        clean = float64(clean_logits).log_softmax(dim=-1)
        metrics["kl"] = (clean.exp() * (clean - log_probs)).sum(dim=-1)
    return metrics


def _mean_logit(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    total = (logits.gather(1, tokens) * mask).sum(dim=1)
    return total / mask.sum(dim=1)


def _padded(lists: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max([1, *map(len, lists)])
    ids = torch.zeros(len(lists), width, dtype=torch.long)
    mask = torch.zeros(len(lists), width, dtype=torch.bool)
    for row, tokens in enumerate(lists):
        ids[row, : len(tokens)] = torch.tensor(list(tokens), dtype=torch.long)
        mask[row, : len(tokens)] = True
    return ids.to(device), mask.to(device)
