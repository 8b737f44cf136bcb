"""Successor lists: numbers, number words, days, months or letters in order, and then the next one.

Belongs here: the wording of the task. Does not belong here: the form of prompts (prompts.py), and
which heads increment (heads/).

A list of SHOWN items is continued. The corrupt prompt of a pair is a list of the same kind from
another start, and its answer the foil.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import polars as pl

from mechinterp_assets.corpora.words import DAYS, LETTERS, MONTHS, NUMBER_WORDS
from mechinterp_assets.prompts.common import (
    BASE,
    CORRUPT,
    PromptDraft,
    Segment,
    prompts_frame,
)
from mechinterp_assets.prompts.ioi import Encode, PromptError, SegmentEncoder, tokenizer_name

SUCCESSOR_LISTS = "successor_lists"
SHOWN = 4
LEAD = "In order:"  # so that the first item has its space, as the others have


@dataclass(frozen=True)
class _Kind:
    """Items in order, whether the last is followed by the first, what stands between two."""

    items: tuple[str, ...]
    cyclic: bool
    between: str


KINDS: dict[str, _Kind] = {
    "numbers": _Kind(tuple(str(i) for i in range(1, 31)), False, ","),
    "number words": _Kind(NUMBER_WORDS[:12], False, ","),
    "days": _Kind(DAYS, True, ","),
    "months": _Kind(MONTHS, True, ","),
    "letters": _Kind(LETTERS, False, ""),
}


def successor_list_prompts(
    encode: Encode, n: int, seed: int, bos_token_id: int | None
) -> pl.DataFrame:
    """`n` pairs of prompts, two lists of one kind each: TASK_PROMPTS_SCHEMA.

    No base prompt occurs twice, so there are fewer pairs where the kinds have fewer starts (66 in
    all for a tokenizer with numbers up to 21). The kinds take turns until they run out. `template`
    is the place of the list's kind in KINDS. Kinds whose items are not single tokens are left out
    or, numbers and letters, shortened. Roles: FIRST and LAST (items shown), END.
    Raises PromptError when no kind is left.
    """
    encoder = SegmentEncoder(encode)
    usable = {place: starts for place in range(len(KINDS)) if (starts := _starts(encoder, place))}
    if not usable:
        raise PromptError(
            f"task {SUCCESSOR_LISTS}: none of {', '.join(KINDS)} is a run of single tokens of the "
            f"tokenizer {tokenizer_name(encode)}; leave {SUCCESSOR_LISTS} out of tasks.names"
        )
    drafts = []
    for pair_id, (place, shown) in enumerate(_design(usable, n, seed)):
        rng = random.Random(f"{SUCCESSOR_LISTS}/{seed}/{pair_id}")
        other = rng.choice([run for run in usable[place] if run != shown])
        between = list(KINDS.values())[place].between
        for variant, run, foil in ((BASE, shown, other), (CORRUPT, other, shown)):
            drafts.append(
                PromptDraft(
                    pair_id,
                    place,
                    variant,
                    _segments(run[:SHOWN], between),
                    (f" {run[SHOWN]}",),
                    (f" {foil[SHOWN]}",),
                )
            )
    return prompts_frame(SUCCESSOR_LISTS, drafts, encode, bos_token_id, encoder=encoder)


def _design(
    usable: dict[int, list[tuple[str, ...]]], n: int, seed: int
) -> list[tuple[int, tuple[str, ...]]]:
    """At most `n` kinds and runs, all different."""
    if n <= 0:
        raise PromptError(f"n is {n}; ask for at least one prompt")
    rng = random.Random(f"{SUCCESSOR_LISTS}/{seed}/design")
    by_kind = [[(k, run) for run in rng.sample(runs, len(runs))] for k, runs in usable.items()]
    turns = chain.from_iterable(zip_longest(*rng.sample(by_kind, len(by_kind))))
    return [cell for cell in turns if cell is not None][:n]


def _starts(encoder: SegmentEncoder, place: int) -> list[tuple[str, ...]]:
    """Runs of SHOWN items and their successor, all single tokens; none if fewer than two."""
    kind = list(KINDS.values())[place]
    items, length = kind.items, len(kind.items)
    single = {item for item in items if len(encoder(f" {item}")) == 1}
    ends = length if kind.cyclic else length - SHOWN
    runs = [
        tuple(items[(start + step) % length] for step in range(SHOWN + 1)) for start in range(ends)
    ]
    kept = [run for run in runs if single.issuperset(run)]
    return kept if len(kept) >= 2 else []


def _segments(items: Sequence[str], between: str) -> tuple[Segment, ...]:
    segments = [Segment(LEAD)]
    for place, item in enumerate(items):
        role = {0: "FIRST", len(items) - 1: "LAST"}.get(place)
        segments.append(Segment(f" {item}", role))
        segments += [Segment(between)] if between else []
    return tuple(segments)
