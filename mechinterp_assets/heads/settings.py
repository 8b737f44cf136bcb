"""The settings of head scores.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator

from mechinterp_assets.settings.section import Fraction, Positive, Section


class HeadSection(Section):
    """Data that head scores are measured on.

    `sequences` random repeated sequences of `repeat_length` tokens, twice, and as many held-out
    texts. `suppression_tokens`: vocabulary tokens that copy suppression is measured on.
    `cspa_sequences`: texts of the ablation that keeps only copy suppression, three forward passes
    per head; 0 leaves it out, as one may for large models. `ioi_prompts`: base prompts of the
    scores on IOI; `patched_prompts` of them are used for path patching into the movers' queries.
    `movers`: [layer, head] of the name movers; auto takes the heads with the role name_mover.

    `attention_examples` held-out sequences are kept per head; `top_features` features per head are
    listed and compared. Two of them are alike from `slice_similarity` (cosine of decoder slices) or
    `ngram_similarity` (weighted Jaccard index) on, and `similarity_draws` sets of random features
    are compared in the same way (head_polysemanticity_proxy).
    """

    sequences: Positive = 64
    repeat_length: Positive = 50
    attention_examples: Positive = 6
    top_features: Positive = 10
    slice_similarity: Fraction = 0.5
    ngram_similarity: Fraction = 1 / 3
    similarity_draws: Annotated[int, Field(ge=2)] = 100
    suppression_tokens: Positive = 1024
    cspa_sequences: Annotated[int, Field(ge=0)] = 8
    ioi_prompts: Positive = 128
    patched_prompts: Positive = 32
    movers: Literal["auto"] | list[tuple[int, int]] = "auto"
    seed: int = 0

    @field_validator("cspa_sequences")
    @classmethod
    def _enough_for_a_mean(cls, cspa_sequences: int) -> int:
        if cspa_sequences in (1, 2):
            raise ValueError("means over sequences need at least 3, or 0 to leave the score out")
        return cspa_sequences


class PrefixInductionSection(Section):
    """Induction by prefix length: how many matching tokens heads need (K24 section 4.2).

    `sequences` of random tokens for each prefix length 1 .. 9; `corpus_sequences` of held-out text;
    `cases` of a head's are edited in the causal check.
    """

    sequences: Positive = 400
    corpus_sequences: Positive = 512
    cases: Positive = 100
    seed: int = 0


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
