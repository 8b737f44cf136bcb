"""Digit copying: a count such as "Image 2/8 ... Image 5/" is continued with its total.

Belongs here: the wording of the task. Does not belong here: the form of prompts (prompts.py).

The idea is Kissane et al. 2024 (arXiv 2406.17759), section 4.1.1 and Fig. 3; the sentences are this
project's own. The foil is another total, which is the answer of the corrupt prompt of the pair.
"""

import random

import polars as pl

from mechinterp_assets.prompts.common import (
    BASE,
    CORRUPT,
    PromptDraft,
    Segment,
    balanced_design,
    prompts_frame,
)
from mechinterp_assets.prompts.ioi import Encode, PromptError, SegmentEncoder, tokenizer_name

DIGIT_COPYING = "digit_copying"
LABELS = ("Image", "Photo", "Page", "Part", "Step", "Slide", "Chapter")
SHOWN = 3  # counts in a prompt, the last of which lacks its total
MINIMUM_DIGITS = 4

# Before a count, between number and total, after a count; whether the total carries a space.
_STYLES: tuple[tuple[str, str, str, bool], ...] = (
    ("{label}", "/", "", False),
    ("{label}", " of", ".", True),
    ("The {label}", "/", ",", False),
    ("{label}", " out of", ";", True),
)


def digit_copying_prompts(
    encode: Encode, n: int, seed: int, bos_token_id: int | None
) -> pl.DataFrame:
    """`n` pairs of prompts, a base one and one with another total: TASK_PROMPTS_SCHEMA.

    Roles: FIRST_TOTAL and LAST_TOTAL (the first and the last total shown), NUMBER (the last
    number), END. Raises PromptError when fewer than MINIMUM_DIGITS digits are single tokens.
    """
    encoder = SegmentEncoder(encode)
    digits = [d for d in range(SHOWN + 1, 10) if _is_digit_token(encoder, d)]
    if len(digits) < MINIMUM_DIGITS:
        raise PromptError(
            f"task {DIGIT_COPYING}: only the digits {digits} are single tokens of the tokenizer "
            f"{tokenizer_name(encode)}, with and without a space; at least {MINIMUM_DIGITS} of "
            f"{SHOWN + 1}..9 are needed: leave {DIGIT_COPYING} out of tasks.names"
        )
    drafts = []
    styles = balanced_design(range(len(_STYLES)), n, f"{DIGIT_COPYING}/{seed}/design")
    for pair_id, style in enumerate(styles):
        rng = random.Random(f"{DIGIT_COPYING}/{seed}/{pair_id}")
        total, other = rng.sample(digits, 2)
        # Both totals lie above every number shown: neither is ruled out by them.
        label, start = rng.choice(LABELS), rng.randint(1, min(total, other) - SHOWN)
        for variant, shown, foil in ((BASE, total, other), (CORRUPT, other, total)):
            space = " " if _STYLES[style][3] else ""
            segments = _segments(style, label, start, shown)
            answers, wrong = (f"{space}{shown}",), (f"{space}{foil}",)
            drafts.append(PromptDraft(pair_id, style, variant, segments, answers, wrong))
    return prompts_frame(DIGIT_COPYING, drafts, encode, bos_token_id, encoder=encoder)


def _is_digit_token(encoder: SegmentEncoder, digit: int) -> bool:
    return len(encoder(f" {digit}")) == 1 and encoder(f"/{digit}") == (
        *encoder("/"),
        *encoder(f"{digit}"),
    )


def _segments(style: int, label: str, start: int, total: int) -> tuple[Segment, ...]:
    before, between, after, space = _STYLES[style]
    name, end = before.format(label=label), f" {total}" if space else f"{total}"
    segments = []
    for place in range(SHOWN):
        last = place == SHOWN - 1
        segments += [
            Segment(f" {name}" if place else name),
            Segment(f" {start + place}", "NUMBER" if last else None),
            Segment(between),
        ]
        if not last:
            role = {0: "FIRST_TOTAL", SHOWN - 2: "LAST_TOTAL"}.get(place)
            segments.append(Segment(end, role))
            segments += [Segment(after)] if after else []
    return tuple(segments)
