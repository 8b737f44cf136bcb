"""URL completion: an address that was shown before is begun again and must be continued.

Belongs here: the wording of the task. Does not belong here: the form of prompts (prompts.py).

After Kissane et al. 2024 (arXiv 2406.17759), section 4.1.1 and Fig. 3, whose text has
"pic.twitter.com/" and nothing to copy (url_string.py): here the answer stands in the prompt, so
that heads that copy have an effect. The addresses are made up, from words that are single tokens
inside an address.
The foil is the word of another address in the same place, which is the answer of the corrupt prompt
of the pair.
"""

import random

import polars as pl

from mechinterp_assets.corpora.words import ANIMALS, COLOURS, OBJECTS, PLACES
from mechinterp_assets.prompts.common import (
    BASE,
    CORRUPT,
    PromptDraft,
    Segment,
    balanced_design,
    prompts_frame,
)
from mechinterp_assets.prompts.ioi import Encode, PromptError, SegmentEncoder, tokenizer_name

URL_COMPLETION = "url_completion"
MINIMUM_WORDS = 6
WORDS: tuple[str, ...] = (*OBJECTS, *PLACES, *COLOURS, *ANIMALS)

# {a} and {b} are two words of one address; the blank is where the prompt stops.
_TEMPLATES: tuple[tuple[str, str], ...] = (
    ("More at http://{a}.org/{b}\nAgain: http://{a}.org/", "b"),
    ("See http://{a}.org/{b}.html\nAgain: http://", "a"),
    ("Files at ftp://{b}@{a}.com\nAgain: ftp://{b}@", "a"),
    ("Read https://www.{a}.com/{b}\nAgain: https://www.{a}.com/", "b"),
)


def url_completion_prompts(
    encode: Encode, n: int, seed: int, bos_token_id: int | None
) -> pl.DataFrame:
    """`n` pairs of prompts, a base one and one with another word: TASK_PROMPTS_SCHEMA.

    Roles: ANSWER (the word to be repeated, where it was first shown), END. Raises PromptError when
    fewer than MINIMUM_WORDS of WORDS are single tokens inside an address.
    """
    encoder = SegmentEncoder(encode)
    words = [word for word in dict.fromkeys(WORDS) if _is_word_token(encoder, word)]
    if len(words) < MINIMUM_WORDS:
        raise PromptError(
            f"task {URL_COMPLETION}: only {len(words)} of {len(set(WORDS))} words are single "
            f"tokens inside an address for the tokenizer {tokenizer_name(encode)}; at least "
            f"{MINIMUM_WORDS} are needed: leave {URL_COMPLETION} out of tasks.names"
        )
    drafts = []
    design = balanced_design(range(len(_TEMPLATES)), n, f"{URL_COMPLETION}/{seed}/design")
    for pair_id, template in enumerate(design):
        rng = random.Random(f"{URL_COMPLETION}/{seed}/{pair_id}")
        answer, other, beside = rng.sample(words, 3)
        for variant, shown, foil in ((BASE, answer, other), (CORRUPT, other, answer)):
            segments = _segments(template, shown, beside)
            drafts.append(PromptDraft(pair_id, template, variant, segments, (shown,), (foil,)))
    return prompts_frame(URL_COMPLETION, drafts, encode, bos_token_id, encoder=encoder)


def _is_word_token(encoder: SegmentEncoder, word: str) -> bool:
    ids = encoder(word)
    return len(ids) == 1 and all(
        encoder(f"{mark}{word}") == (*encoder(mark), *ids) for mark in ("://", "/", "@", "www.")
    )


def _segments(template: int, answer: str, beside: str) -> tuple[Segment, ...]:
    text, blank = _TEMPLATES[template]
    words = {blank: answer, ("b" if blank == "a" else "a"): beside}
    segments: list[Segment] = []
    for piece in text.replace("{", "\0{").replace("}", "}\0").split("\0"):
        if piece.startswith("{"):
            name = piece.strip("{}")
            first = name == blank and all(s.role is None for s in segments)
            segments.append(Segment(words[name], "ANSWER" if first else None))
        elif piece:
            segments.append(Segment(piece))
    return tuple(segments)
