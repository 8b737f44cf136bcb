"""URL strings: an address is followed by a string of letters and digits, which nothing tells.

Belongs here: the wording of the task, and whether a model knows such strings. Does not belong here:
the form of prompts (common.py), addresses that are shown before (url_completion.py).

Kissane et al. 2024 (arXiv 2406.17759), section 4.1.1 and Fig. 3b: "pic.twitter.com/" and a string
as in base64, with nothing to copy. The strings are drawn, so that none was seen before and no
answer is in the prompt; what can be known is that letters and digits go on where other text would
not. Prompts stop behind one, two or three tokens of the string, and the answer is its next token,
one that is nowhere before. There is no wrong answer, so loss and probability are defined and no
logit difference. The corrupt prompt of a pair has words in place of the address, the same string
and the same answer: how much lower the loss is behind the address is what a model knows of the
form.
"""

import random
import string

import numpy as np
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
from mechinterp_assets.prompts.url_completion import WORDS
from mechinterp_assets.statistics.bootstrap import mean_interval

URL_STRING = "url_string"
ADDRESS = " pic.twitter.com"
STRING_LENGTH = 10
ALPHABET = string.ascii_letters + string.digits
SHOWN_TOKENS = (1, 2, 3)
MOST_DRAWS = 200
_LEADS = ("What a day!", "Photo of the week:", "We are here:", "More of it later.")
_N_BOOTSTRAP = 1000


def url_string_prompts(encode: Encode, n: int, seed: int, bos_token_id: int | None) -> pl.DataFrame:
    """`n` pairs of prompts, a base one and one with words for the address: TASK_PROMPTS_SCHEMA.

    Roles: ADDRESS (its first token), SLASH (behind it), END. Raises PromptError where the tokenizer
    joins such strings with what stands before them, or has no words to put in place of the address.
    """
    encoder = SegmentEncoder(encode)
    words = [f" {word}" for word in dict.fromkeys(WORDS) if len(encoder(f" {word}")) == 1]
    length = len(encoder(ADDRESS))
    if len(words) < length:
        raise PromptError(
            f"task {URL_STRING}: only {len(words)} of {len(set(WORDS))} words are single tokens of "
            f"the tokenizer {tokenizer_name(encode)}, and {length} stand in place of the address: "
            f"leave {URL_STRING} out of tasks.names"
        )
    drafts: list[PromptDraft] = []
    seen: set[str] = set()
    cells = [(lead, shown) for lead in range(len(_LEADS)) for shown in SHOWN_TOKENS]
    design = balanced_design(range(len(cells)), n, f"{URL_STRING}/{seed}/design")
    for pair_id, template in enumerate(design):
        lead, shown = cells[template]
        rng = random.Random(f"{URL_STRING}/{seed}/{pair_id}")
        drafts += _pair(encode, encoder, rng, pair_id, template, (_LEADS[lead], shown, words), seen)
    return prompts_frame(URL_STRING, drafts, encode, bos_token_id, encoder=encoder)


def unknown_form(baseline: pl.DataFrame, seed: int) -> str | None:
    """Why a model is taken not to know the form, or None where it does.

    baseline: rows of task_baseline of this task's prompts, with pair_id. It knows it where the loss
    is lower behind the address than behind words, the 95% interval over pairs below 0.
    """
    pairs = baseline.pivot("variant", index="pair_id", values="loss").drop_nulls()
    difference = (pairs[BASE] - pairs[CORRUPT]).to_numpy()
    mean = float(np.mean(difference)) if len(difference) else float("nan")
    high = mean_interval(difference, n_bootstrap=_N_BOOTSTRAP, seed=seed)[1]
    if high is not None and high < 0:
        return None
    return (
        f"the model shows no knowledge of strings behind an address: its loss is {mean:+.3g} nats "
        f"against the same strings behind words ({len(difference)} pairs), not surely lower"
    )


# ---- private -------------------------------------------------------------------------------------


def _pair(
    encode: Encode,
    encoder: SegmentEncoder,
    rng: random.Random,
    pair_id: int,
    template: int,
    wording: tuple[str, int, list[str]],
    seen: set[str],
) -> list[PromptDraft]:
    """The two prompts of a pair, with a string whose tokens are the same behind both.

    seen: base texts that there are, to which this one is added.
    """
    lead, shown, words = wording
    for _ in range(MOST_DRAWS):
        text = "".join(rng.choice(ALPHABET) for _ in range(STRING_LENGTH))
        tokens = _pieces(encoder, text)
        if len(tokens) <= shown:
            continue
        before = Segment("".join(tokens[:shown]))
        instead = "".join(rng.sample(words, len(encoder(ADDRESS))))
        drafts = [
            PromptDraft(pair_id, template, variant, segments, (tokens[shown],))
            for variant, segments in (
                (BASE, _segments(lead, ADDRESS, before)),
                (CORRUPT, _segments(lead, instead, before)),
            )
        ]
        base = "".join(segment.text for segment in drafts[0].segments)
        if base not in seen and all(_can_be_used(encode, encoder, draft) for draft in drafts):
            seen.add(base)
            return drafts
    raise PromptError(
        f"task {URL_STRING}: the tokenizer {tokenizer_name(encode)} joins strings of letters and "
        f"digits with what stands before them ({MOST_DRAWS} were drawn): leave {URL_STRING} out of "
        "tasks.names"
    )


def _segments(lead: str, address: str, before: Segment) -> tuple[Segment, ...]:
    return (Segment(lead), Segment(address, "ADDRESS"), Segment("/", "SLASH"), before)


def _pieces(encoder: SegmentEncoder, text: str) -> list[str]:
    """Texts of the tokens of a string; none where they cannot be told apart."""
    ids = encoder(text)
    pieces: list[str] = []
    begin = 0
    for end in range(1, len(text) + 1):
        count = len(pieces) + 1
        if encoder(text[:end]) == ids[:count] and (
            end == len(text) or encoder(text[: end + 1]) != ids[:count]
        ):
            pieces.append(text[begin:end])
            begin = end
    alone = all(encoder(piece) == (token,) for piece, token in zip(pieces, ids, strict=False))
    return pieces if len(pieces) == len(ids) and alone else []


def _can_be_used(encode: Encode, encoder: SegmentEncoder, draft: PromptDraft) -> bool:
    """Whether the text, answer included, has the tokens of its segments, the answer but once."""
    texts = [*(segment.text for segment in draft.segments), *draft.answers]
    ids: list[int] = []
    for text in texts:
        ids += encoder(text, at_start=not ids)
    whole = [int(i) for i in encode("".join(texts))]
    prompt = [int(i) for i in encode("".join(texts[:-1]))]
    return whole == ids and prompt == ids[:-1] and ids[-1] not in prompt
