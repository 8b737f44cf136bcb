"""Colored objects: three objects of different colors, and a question about one of them.

Belongs here: wording, words and tokenizer conditions of the family. Does not belong here: how
prompts are put together (prompts.py).

"Q: On the desk there is a red cup, a blue pen and a green hat. What color is the pen?\\nA:" ->
" blue". Source of the task: Merullo, Eickhoff & Pavlick 2024, "Circuit Component Reuse Across Tasks
in Transformer Language Models" (arXiv 2310.08744), after a BIG-bench task; the sentences are this
project's own.
"""

import random
from collections.abc import Sequence

import polars as pl

from mechinterp_assets.corpora.words import COLOURS, OBJECTS
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

TASK = "colored_objects"
# Text before the list; between the list and the question's object; after it.
TEMPLATES: tuple[tuple[str, str, str], ...] = (
    ("Q: On the desk there is", ". What color is the", "?\nA:"),
    ("Q: In the box I see", ". What is the color of the", "?\nA:"),
    ("Question: On the shelf you can find", ". What color is the", "?\nAnswer:"),
    ("Q: The shop sells", ". What color is the", "?\nA:"),
    ("Q: She took", ". Which color does the", " have?\nA:"),
    ("Question: We bought", ". What is the color of the", "?\nAnswer:"),
    ("Q: On the floor there is", ". Tell me the color of the", ".\nA:"),
    ("Q: In the picture there is", ". Which color is the", "?\nA:"),
)
# The list has "a" before each color.
COLORS: tuple[str, ...] = tuple(word for word in COLOURS if word[0] not in "aeiou")
THINGS: tuple[str, ...] = tuple(word for word in OBJECTS if word != "kiss")
N_OBJECTS = 3
LABELS = ("", "_B", "_C")
MINIMUM_COLORS, MINIMUM_OBJECTS = 5, 8


def colored_objects(
    encode: Encode,
    n: int,
    seed: int,
    bos_token_id: int | None,
    *,
    colors: Sequence[str] = COLORS,
    objects: Sequence[str] = THINGS,
) -> pl.DataFrame:
    """`n` base and `n` corrupt prompts (TASK_PROMPTS_SCHEMA); template x asked object is balanced.

    A corrupt prompt asks about another object of the same list. Roles: COLOR and OBJECT of the
    object asked about, COLOR_B, OBJECT_B, COLOR_C, OBJECT_C of the others in order, QUERY (the
    object in the question), END. Answer: the color of that object; wrong: the two others.
    Raises PromptError where too few colors or objects are single tokens.
    """
    encoder = SegmentEncoder(encode)
    hues = single_token_words(encode, encoder, colors, what="colors", minimum=MINIMUM_COLORS)
    things = single_token_words(encode, encoder, objects, what="objects", minimum=MINIMUM_OBJECTS)
    cells = [(template, at) for template in range(len(TEMPLATES)) for at in range(N_OBJECTS)]
    drafts: dict[str, list[PromptDraft]] = {BASE: [], CORRUPT: []}
    design = balanced_design(cells, n, f"{TASK}/{seed}/design")
    for pair_id, (template, asked) in enumerate(design):
        rng = random.Random(f"{TASK}/{seed}/{pair_id}")
        hue, thing = rng.sample(hues, N_OBJECTS), rng.sample(things, N_OBJECTS)
        other = rng.choice([at for at in range(N_OBJECTS) if at != asked])
        for variant, at in ((BASE, asked), (CORRUPT, other)):
            drafts[variant].append(
                PromptDraft(
                    pair_id=pair_id,
                    template=template,
                    variant=variant,
                    segments=_segments(TEMPLATES[template], hue, thing, at),
                    answers=(f" {hue[at]}",),
                    wrong=tuple(f" {color}" for color in hue if color != hue[at]),
                )
            )
    every = [*drafts[BASE], *drafts[CORRUPT]]
    return check_pairs(prompts_frame(TASK, every, encode, bos_token_id, encoder=encoder))


def _segments(
    template: tuple[str, str, str], hue: Sequence[str], thing: Sequence[str], asked: int
) -> tuple[Segment, ...]:
    before, question, after = template
    order = [asked, *(at for at in range(N_OBJECTS) if at != asked)]
    label = {at: LABELS[rank] for rank, at in enumerate(order)}
    segments = [Segment(before)]
    for at, (color, name) in enumerate(zip(hue, thing, strict=True)):
        segments += [
            Segment((" a", ", a", " and a")[at]),
            Segment(f" {color}", f"COLOR{label[at]}"),
            Segment(f" {name}", f"OBJECT{label[at]}"),
        ]
    segments += [Segment(question), Segment(f" {thing[asked]}", "QUERY"), Segment(after)]
    return tuple(segments)
