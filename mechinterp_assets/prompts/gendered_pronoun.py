"""Gendered pronoun: a question tag takes up a name with "he" or "she".

Belongs here: wording, names and tokenizer conditions of the family. Does not belong here: how
prompts are put together (prompts.py).

"I hear Mary was late again, wasn't" -> " she". Source of the task: Mathwin, Corlouer, Kran, Barez &
Nanda 2023, "Identifying a Preliminary Circuit for Predicting Gendered Pronouns in GPT-2 Small"; the
sentences are this project's own.
"""

import random
from collections.abc import Sequence

import polars as pl

from mechinterp_assets.corpora.words import FEMALE_NAMES, MALE_NAMES
from mechinterp_assets.prompts.common import (
    BASE,
    CORRUPT,
    PromptDraft,
    Segment,
    balanced_design,
    check_pairs,
    prompts_frame,
    single_token_words,
)
from mechinterp_assets.prompts.ioi import Encode, SegmentEncoder

TASK = "gendered_pronoun"
# Text before the name; verb; rest of the statement; the tag's verb.
TEMPLATES: tuple[tuple[str, str, str, str], ...] = (
    ("I hear", " was", " late again", " wasn't"),
    ("Well,", " is", " such a good cook", " isn't"),
    ("So", " is", " quite tall", " isn't"),
    ("You said", " has", " a new house", " hasn't"),
    ("Surely", " can", " swim", " can't"),
    ("As we know,", " will", " come back soon", " won't"),
    ("I suppose", " would", " like some tea", " wouldn't"),
    ("And", " plays", " the piano", " doesn't"),
    ("Of course", " was", " here last night", " wasn't"),
    ("They say", " did", " well this year", " didn't"),
)
PRONOUNS = {"female": " she", "male": " he"}
# Names that both women and men bear are no evidence.
NAMES: dict[str, tuple[str, ...]] = {
    "female": tuple(name for name in FEMALE_NAMES if name not in {"Ashley", "Rose", "Grace"}),
    "male": MALE_NAMES,
}
MINIMUM_NAMES = 8


def gendered_pronoun(
    encode: Encode,
    n: int,
    seed: int,
    bos_token_id: int | None,
    *,
    female: Sequence[str] = NAMES["female"],
    male: Sequence[str] = NAMES["male"],
) -> pl.DataFrame:
    """`n` base and `n` corrupt prompts (TASK_PROMPTS_SCHEMA); template x gender is balanced.

    A corrupt prompt has a name of the other gender. Roles: NAME, VERB, PUNCT, TAG (first token of
    the tag's verb), END. Answer: the pronoun of the name's gender; wrong: the other.
    Raises PromptError where fewer than MINIMUM_NAMES names of a gender, or a pronoun, are not
    single tokens.
    """
    encoder = SegmentEncoder(encode)
    names = {
        gender: single_token_words(
            encode, encoder, given, what=f"{gender} names", minimum=MINIMUM_NAMES
        )
        for gender, given in (("female", female), ("male", male))
    }
    cells = [(template, gender) for template in range(len(TEMPLATES)) for gender in names]
    drafts: dict[str, list[PromptDraft]] = {BASE: [], CORRUPT: []}
    for pair_id, (template, gender) in enumerate(
        balanced_design(cells, n, f"{TASK}/{seed}/design")
    ):
        rng = random.Random(f"{TASK}/{seed}/{pair_id}")
        other = next(name for name in names if name != gender)
        for variant, mine, theirs in ((BASE, gender, other), (CORRUPT, other, gender)):
            before, verb, rest, tag = TEMPLATES[template]
            drafts[variant].append(
                PromptDraft(
                    pair_id=pair_id,
                    template=template,
                    variant=variant,
                    segments=(
                        Segment(before),
                        Segment(f" {rng.choice(names[mine])}", "NAME"),
                        Segment(verb, "VERB"),
                        Segment(rest),
                        Segment(",", "PUNCT"),
                        Segment(tag, "TAG"),
                    ),
                    answers=(PRONOUNS[mine],),
                    wrong=(PRONOUNS[theirs],),
                )
            )
    every = [*drafts[BASE], *drafts[CORRUPT]]
    return check_pairs(prompts_frame(TASK, every, encode, bos_token_id, encoder=encoder))
