"""Greater-than: the second year of a span must come after the first.

Belongs here: wording, years and tokenizer conditions of the family. Does not belong here: how
prompts are put together (prompts.py).

"The war lasted from the year 1732 to the year 17" -> two digits above 32. Where a tokenizer reads
a year digit by digit, the next token is the tens digit alone: digits above that of the first year
are right and digits below it wrong, and the same digit, which leaves it open, is neither.

Source: Hanna, Liu & Variengien 2023 (arXiv 2305.00586), section 2, whose counterfactual start year
ends in 01; the sentences are this project's own.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mechinterp_assets.prompts.common import (
    BASE,
    CORRUPT,
    PromptDraft,
    Segment,
    balanced_design,
    check_pairs,
    prompts_frame,
)
from mechinterp_assets.prompts.ioi import Encode, PromptError, SegmentEncoder, tokenizer_name

TASK = "greater_than"
TEMPLATES: tuple[str, ...] = (
    "The {noun} lasted from the year {start} to the year {century}",
    "The {noun} began in the year {start} and was over in the year {century}",
    "From the year {start} the {noun} went on until the year {century}",
    "The long {noun} started in {start} and ended in {century}",
    "Records of the {noun} begin in {start} and stop in {century}",
    "A {noun} of the years {start} to {century}",
    "It is known that the {noun} ran from {start} to {century}",
    "People spoke of the {noun} between {start} and {century}",
)
NOUNS: tuple[str, ...] = (
    "war",
    "siege",
    "drought",
    "journey",
    "voyage",
    "reign",
    "project",
    "dispute",
    "campaign",
    "trial",
    "famine",
    "strike",
    "plague",
    "festival",
    "marriage",
    "partnership",
    "treaty",
    "tradition",
)
CENTURIES: tuple[int, ...] = tuple(range(11, 20))
MINIMUM_YEARS = 20


@dataclass(frozen=True)
class _Years:
    """How a tokenizer reads the years of a century: what follows it, one tuple per year.

    choices: parts of a base year after its century; corrupt: those of the counterfactual year;
    answers: texts that may follow the century, in the order of their value.
    """

    choices: tuple[tuple[str, ...], ...]
    corrupt: tuple[str, ...]
    answers: tuple[str, ...]


def greater_than(
    encode: Encode,
    n: int,
    seed: int,
    bos_token_id: int | None,
    *,
    templates: Sequence[str] = TEMPLATES,
    nouns: Sequence[str] = NOUNS,
    centuries: Sequence[int] = CENTURIES,
) -> pl.DataFrame:
    """`n` base and `n` corrupt prompts (TASK_PROMPTS_SCHEMA); templates are balanced.

    A corrupt prompt has the same century and an early start year that still has a wrong answer: 01
    where two digits are one token, the first of 10 to 19 where digits are read one by one.
    Roles: NOUN, CENTURY (first token of the start year), YEAR (what follows its century), UNIT (its
    last digit, where digits are read one by one), END (last token of the second century).
    Answers: continuations that make the second year the later one; wrong: those that make it the
    same or earlier (by digits: earlier).
    Raises PromptError where the tokenizer reads a year in another way.
    """
    encoder = SegmentEncoder(encode)
    forms = _forms(encode, encoder, centuries)
    drafts: dict[str, list[PromptDraft]] = {BASE: [], CORRUPT: []}
    design = balanced_design(range(len(templates)), n, f"{TASK}/{seed}/design")
    for pair_id, template in enumerate(design):
        rng = random.Random(f"{TASK}/{seed}/{pair_id}")
        noun, century = rng.choice(nouns), rng.choice(list(forms))
        years = forms[century]
        for variant, year in ((BASE, rng.choice(years.choices)), (CORRUPT, years.corrupt)):
            drafts[variant].append(
                PromptDraft(
                    pair_id=pair_id,
                    template=template,
                    variant=variant,
                    segments=_segments(templates[template], noun, century, year),
                    answers=tuple(a for a in years.answers if a > year[0]),
                    wrong=tuple(
                        a for a in years.answers if a < year[0] or (a == year[0] and len(year) == 1)
                    ),
                )
            )
    every = [*drafts[BASE], *drafts[CORRUPT]]
    return check_pairs(prompts_frame(TASK, every, encode, bos_token_id, encoder=encoder))


def _segments(template: str, noun: str, century: int, year: Sequence[str]) -> tuple[Segment, ...]:
    """Segments of a prompt; the space before a slot belongs to the slot."""
    texts: dict[str, tuple[Segment, ...]] = {
        "noun": (Segment(f" {noun}", "NOUN"),),
        "start": (
            Segment(f" {century}", "CENTURY"),
            *(Segment(part, role) for part, role in zip(year, ("YEAR", "UNIT"), strict=False)),
        ),
        "century": (Segment(f" {century}"),),
    }
    segments: list[Segment] = []
    rest = template
    while rest:
        before, _, after = rest.partition(" {")
        if before:
            segments.append(Segment(before))
        slot, _, rest = after.partition("}")
        segments += texts.get(slot, ())
    return tuple(segments)


def _forms(encode: Encode, encoder: SegmentEncoder, centuries: Sequence[int]) -> dict[int, _Years]:
    """Century -> its years, of one kind for all centuries: two digits, else digit by digit."""
    numbers = tuple(f"{year:02d}" for year in range(100))
    digits = tuple(str(digit) for digit in range(10))
    for answers, parts, first, last in (
        (numbers, [(number,) for number in numbers], "01", "98"),
        (digits, [(number[0], number[1]) for number in numbers], "1", "8"),
    ):
        if any(len(encoder(answer)) != 1 for answer in answers):
            continue
        forms = {}
        for century in centuries:
            years = _readable(encoder, century, parts)
            earliest = [year for year in years if year[0] == first]
            choices = tuple(year for year in years if first < year[0] <= last)
            if earliest and len(choices) >= MINIMUM_YEARS:
                forms[century] = _Years(choices, earliest[0], answers)
        if forms:
            return forms
    shown = [f"{len(encoder(text))} for {text!r}" for text in (" 1732", " 17", "32", "3")]
    raise PromptError(
        f"task {TASK}: the tokenizer {tokenizer_name(encode)} does not read years as a century "
        "followed by two digits, in one token or in two (numbers of tokens: "
        f"{', '.join(shown)}); leave {TASK} out of tasks.families"
    )


def _readable(
    encoder: SegmentEncoder, century: int, years: Sequence[tuple[str, ...]]
) -> list[tuple[str, ...]]:
    """Years whose tokens are those of the century followed by those of their parts."""
    first = encoder(f" {century}")
    return [
        year
        for year in years
        if encoder(f" {century}{''.join(year)}")
        == (*first, *(token for part in year for token in encoder(part)))
    ]
