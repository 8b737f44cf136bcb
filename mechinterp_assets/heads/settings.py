"""Sizes and seeds of head scores.

Belongs here: what is asked of the scores. Does not belong here: the study file's keys
(study_sections.py).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class HeadScoreSettings:
    """Sizes of the data and of the nulls.

    n_sequences, period: repeated random tokens (BOS + 2 x period tokens); sink_length: T of the
    attention sink, previous-token and positional scores; batch_size: sequences in a forward pass;
    null_draws: rotations behind the null of weight scores; suppression_tokens: vocabulary tokens
    that copy suppression is measured on (all, if there are no more); cspa_sequences, cspa_length:
    text of the ablation that preserves copy suppression (0 sequences: left out).
    """

    n_sequences: int = 32
    period: int = 50
    sink_length: int = 64
    batch_size: int = 8
    null_draws: int = 20
    suppression_tokens: int = 1024
    cspa_sequences: int = 8
    cspa_length: int = 32
    seed: int = 0
