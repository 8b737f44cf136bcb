"""The sections `heads` and `prefix_induction` of a study.

Belongs here: their keys and the checks that concern them alone. Does not belong here: the scores.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mechinterp_assets.settings.section import Count, Fraction, Index, Positive, Section


class HeadSettings(Section):
    """Data that head scores are measured on, their nulls, and what is kept of each head.

    Two features of a head are alike from `slice_similarity` or `ngram_similarity` on
    (head_polysemanticity_proxy).
    """

    sequences: Positive = 64
    """Random repeated sequences, and as many held-out texts."""
    repeat_length: Positive = 50
    """Tokens of the part that a random sequence repeats."""
    sink_length: Annotated[int, Field(ge=2)] = 64
    """Tokens of the texts behind attention-sink, previous-token and positional scores; texts of a
    smaller corpus.context_size are taken whole."""
    batch_size: Positive = 8
    """Sequences of a forward pass."""
    null_draws: Annotated[int, Field(ge=2)] = 20
    """Rotations behind the null of weight scores."""
    attention_examples: Positive = 12
    """Held-out examples kept per head, each of another sequence: half the strongest attention, half
    spread over its quantiles."""
    top_features: Positive = 10
    """Features per head that are listed and compared."""
    slice_similarity: Fraction = 0.5
    """Least mean cosine of decoder slices of features that are alike."""
    ngram_similarity: Fraction = 1 / 3
    """Least mean weighted Jaccard index of n-gram profiles of features that are alike; a third: two
    profiles of equal mass that share half of it."""
    similarity_draws: Annotated[int, Field(ge=2)] = 100
    """Sets of random features that are compared in the same way."""
    suppression_tokens: Positive = 1024
    """Vocabulary tokens that copy suppression is measured on; all, if there are no more."""
    cspa_sequences: Count = 8
    """Texts of the ablation that keeps only copy suppression, three forward passes per head; 0
    leaves it out, as one may for large models."""
    cspa_length: Positive = 32
    """Tokens of such a text."""
    ioi_prompts: Positive = 128
    """Base prompts of the scores on IOI."""
    patched_prompts: Positive = 32
    """The first of them, used for path patching into the movers' queries."""
    movers: Literal["auto"] | list[tuple[Index, Index]] = "auto"
    """[layer, head] of the name movers; auto takes the heads with the role name_mover."""
    seed: int = 0
    """Seed of random data and nulls."""

    @field_validator("cspa_sequences")
    @classmethod
    def _enough_for_a_mean(cls, cspa_sequences: int) -> int:
        if cspa_sequences in (1, 2):
            raise ValueError("means over sequences need at least 3, or 0 to leave the score out")
        return cspa_sequences


class PrefixInductionSettings(Section):
    """Induction by prefix length: how many matching tokens heads need (K24 section 4.2)."""

    sequences: Positive = 400
    """Random sequences for each prefix length 1 .. 9."""
    corpus_sequences: Positive = 512
    """Sequences of held-out text."""
    cases: Positive = 100
    """Cases of each induction head that are edited in the causal check."""
    seed: int = 0
    """Seed of random data and draws."""
