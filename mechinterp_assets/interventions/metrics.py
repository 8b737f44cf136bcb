"""Metrics of a run at END.

Belongs here: which of the metrics of prompts/answers.py interventions have. Does not belong here:
effects (patched - clean), which are views.
"""

from collections.abc import Sequence

from torch import Tensor

from mechinterp_assets.prompts.answers import AnswerTokens, answer_metrics

LOGIT_METRICS = ("logit_diff", "kl", "loss", "prob")


def logit_metrics(
    logits: Tensor,
    clean_logits: Tensor,
    answers: Sequence[Sequence[int]],
    wrong: Sequence[Sequence[int]],
) -> dict[str, Tensor]:
    """Metrics of each row: name -> [row] float64.

    logits, clean_logits [row, d_vocab] at END; answers, wrong: token ids of each row.
      logit_diff  mean logit of the answers - mean logit of the wrong tokens; NaN without wrong ones
      kl          KL(clean || patched) over the next token, in nats; 0 for the clean run itself
      loss        -log p of the answers together, in nats; NaN without answers, as the others but kl
      prob        p of the answers together
    """
    tokens = AnswerTokens.padded(answers, wrong, logits.device)
    metrics = answer_metrics(logits, tokens, clean_logits)
    return {name: metrics[name] for name in LOGIT_METRICS}
