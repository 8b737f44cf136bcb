"""Indirect object identification (IOI) prompts, assembled from typed segments.

Belongs here: templates, variants, token spans and position roles of IOI prompts, and grouping by
length. Does not belong here: anything that needs a model's weights or activations.

A prompt introduces two people, then one of them (the subject, S) gives something to the other (the
indirect object, IO); the text stops before the answer: "When Mary and John got a ring at the
store, John decided to give it to" -> " Mary". Prompts are built from typed segments that are
tokenised one by one, so the position of every role is known from assembly and never searched for.

Sources: Wang et al. 2022 (arXiv 2211.00593) section 2 and appendix; Kissane et al. 2024 (arXiv
2406.17759) section 4 for the variants. The sentences are this project's own.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import polars as pl

from mechinterp_assets.corpora.words import NAMES, OBJECTS, PLACES

if TYPE_CHECKING:  # study files are checked without torch
    from torch import Tensor

Encode = Callable[[str], Sequence[int]]
NameOrder = Literal["ABBA", "BABA"]
Variant = Literal[
    "base",
    "ABC",
    "swap",
    "S2_to_IO",
    "random_names",
    "filler_before",
    "filler_between",
    "names_and_fillers",
    "and_alongside",
    "and_besides",
    "and_plus",
    "and_with",
    "and_comma",
    "and_including",
]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
NAME_ORDERS: tuple[NameOrder, ...] = get_args(NameOrder)

CONJUNCTIONS: dict[str, str] = {
    "and_alongside": " alongside",
    "and_besides": " besides",
    "and_plus": " plus",
    "and_with": " with",
    "and_comma": ",",
    "and_including": " including",
}
FILLER_BEFORE = "It was a nice day."
FILLER_BETWEEN = {".": " It was a nice day.", ",": " on that nice day,"}
MINIMUM_NAMES = 20
# The templates write "a {object}".
CONSONANT_OBJECTS: tuple[str, ...] = tuple(word for word in OBJECTS if word[0] not in "aeiou")

# {first} and {second} are the two names in order of appearance, {subject} is S2.
TEMPLATES: tuple[str, ...] = (
    "Then, {first} {and} {second} walked over to the {place}{punct:.}"
    " {subject} {verb:gave} a {object} to",
    "When {first} {and} {second} got a {object} at the {place}{punct:,}"
    " {subject} {verb:decided} to give it to",
    "After {first} {and} {second} finished lunch at the {place}{punct:,}"
    " {subject} {verb:gave} a {object} to",
    "Friends {first} {and} {second} spotted a {object} near the {place}{punct:.}"
    " {subject} {verb:handed} it to",
    "While {first} {and} {second} were commuting to the {place}{punct:,}"
    " {subject} {verb:passed} a {object} to",
    "Then, {first} {and} {second} had a lot of fun at the {place}{punct:.}"
    " Afterwards, {subject} {verb:sent} a {object} to",
    "As {first} {and} {second} left the {place} together{punct:,}"
    " {subject} {verb:offered} a {object} to",
    "Then, {first} {and} {second} had a long argument about the {object}{punct:,}"
    " and afterwards {subject} {verb:said} to",
    "The {place} where {first} {and} {second} worked was closing{punct:.}"
    " {subject} {verb:brought} a {object} to",
    "Since {first} {and} {second} were working at the {place}{punct:,}"
    " {subject} {verb:promised} a {object} to",
    "Early this morning {first} {and} {second} opened the {place}{punct:.}"
    " {subject} {verb:showed} a {object} to",
    "Because {first} {and} {second} loved the {place}{punct:,}"
    " {subject} {verb:wanted} to give the {object} to",
    "Last night {first} {and} {second} were thinking about the {place}{punct:.}"
    " {subject} {verb:lent} the {object} to",
    "Once {first} {and} {second} reached the {place}{punct:,}"
    " {subject} {verb:returned} the {object} to",
    "Two classmates, {first} {and} {second}, shared a {object} at the {place}{punct:.}"
    " {subject} {verb:sold} it to",
    "Before lunch {first} {and} {second} cleaned the {place}{punct:,}"
    " and {subject} {verb:threw} the {object} to",
)

# A position can play several roles ("and" follows S1 in BABA order): the first listed names it.
ROLE_PRECEDENCE: tuple[tuple[str, str], ...] = (
    ("IO", "pos_io"),
    ("S1", "pos_s1"),
    ("S2", "pos_s2"),
    ("END", "pos_end"),
    ("S1+1", "pos_s1_next"),
    ("AND", "pos_and"),
    ("PUNCT", "pos_punct"),
    ("VERB", "pos_verb"),
    ("PLACE", "pos_place"),
    ("OBJECT", "pos_object"),
)

IOI_SCHEMA: dict[str, pl.DataType] = {
    "prompt": pl.Int64(),
    "pair_id": pl.Int64(),
    "template": pl.Int32(),
    "name_order": pl.String(),
    "variant": pl.String(),
    "io": pl.String(),
    "subject": pl.String(),
    "subject2": pl.String(),
    "place": pl.String(),
    "object": pl.String(),
    "text": pl.String(),
    "token_ids": pl.List(pl.Int32()),
    "n_tokens": pl.Int32(),
    "pos_io": pl.Int32(),
    "pos_s1": pl.Int32(),
    "pos_s1_next": pl.Int32(),
    "pos_and": pl.Int32(),
    "pos_s2": pl.Int32(),
    "pos_verb": pl.Int32(),
    "pos_end": pl.Int32(),
    "pos_punct": pl.Int32(),
    "pos_place": pl.Int32(),
    "pos_object": pl.Int32(),
    "io_token_id": pl.Int32(),
    "s_token_id": pl.Int32(),
}


class PromptError(ValueError):
    """Prompts that cannot be built or used; the message names the value and the remedy."""


# ---- templates -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """One typed piece of a template: its kind, its fixed text (if any) and its leading space."""

    kind: str
    text: str
    space: bool


_SLOT = re.compile(r"( ?)\{(\w+)(?::([^}]*))?\}")
_FREE = {"first", "and", "second", "subject", "place", "object"}
_FIXED = {"verb", "punct"}
_REQUIRED = ("first", "and", "second", "punct", "subject", "verb")


def parse_template(template: str) -> tuple[Slot, ...]:
    """Slots of a template in order; a space before a slot belongs to the slot.

    Raises PromptError for an unknown slot, a role that is missing, repeated or out of order, a name
    at the very start (its token would lack the leading space) or a text that ends in a slot.
    """
    slots: list[Slot] = []
    at = 0
    for match in _SLOT.finditer(template):
        if match.start() > at:
            slots.append(Slot("text", template[at : match.start()], False))
        space, kind, text = match.groups()
        if kind not in _FREE | _FIXED or (kind in _FIXED) != bool(text):
            known = [*(f"{{{k}}}" for k in sorted(_FREE)), "{verb:gave}", "{punct:.}"]
            raise PromptError(f"template {template!r} has slot {match[0].strip()}; known: {known}")
        slots.append(Slot(kind, text or "", bool(space)))
        at = match.end()
    if at < len(template):
        slots.append(Slot("text", template[at:], False))

    kinds = [slot.kind for slot in slots if slot.kind != "text"]
    for kind in _REQUIRED:
        if kinds.count(kind) != 1:
            raise PromptError(
                f"template {template!r} has {kinds.count(kind)} {{{kind}}} slots; every template "
                f"needs exactly one of each of {list(_REQUIRED)}"
            )
    order = [kind for kind in kinds if kind in _REQUIRED]
    if order != list(_REQUIRED):
        raise PromptError(f"template {template!r} has its roles as {order}, not {list(_REQUIRED)}")
    if any(not s.space for s in slots if s.kind in {"first", "and", "second", "subject", "verb"}):
        raise PromptError(
            f"template {template!r}: names, conjunction and verb need a space before them, because "
            "their tokens carry it; start the template with some text"
        )
    for slot in slots:
        if slot.kind == "punct" and slot.text not in FILLER_BETWEEN:
            raise PromptError(f"template {template!r}: {{punct}} is {slot.text!r}, not ',' or '.'")
    if slots[-1].kind != "text" or template != template.strip():
        raise PromptError(f"template {template!r} must end with text, such as ' to', without space")
    return tuple(slots)


# ---- tokenising ----------------------------------------------------------------------------------


class SegmentEncoder:
    """Tokenises segments on their own so that their ids concatenate to the ids of the whole text.

    Tokenizers that put a space before any text (sentencepiece) are read behind an anchor.
    """

    ANCHOR = ","

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        if len(encode("")) > 0:
            raise PromptError(
                f'encode("") returns {list(encode(""))}: special tokens are added; pass an '
                "encode without them (add_special_tokens=False), BOS is added by ioi_prompts"
            )
        self._anchored = [*encode("We"), *encode(" met")] != [*encode("We met")]
        self._cache: dict[tuple[str, bool], tuple[int, ...]] = {}

    def __call__(self, text: str, *, at_start: bool = False) -> tuple[int, ...]:
        """Ids of a segment; `at_start` when no text comes before it."""
        key = (text, at_start)
        if key not in self._cache:
            if at_start or not self._anchored:
                ids = tuple(int(i) for i in self._encode(text))
            else:
                skip = len(self._encode(self.ANCHOR))
                ids = tuple(int(i) for i in self._encode(self.ANCHOR + text))[skip:]
            self._cache[key] = ids
        return self._cache[key]


def single_token_names(encode: Encode, names: Sequence[str] = NAMES) -> list[str]:
    """Names whose encoding with a leading space is one token, in the order given.

    Raises PromptError when fewer than MINIMUM_NAMES are left.
    """
    return _single_token_names(SegmentEncoder(encode), names, tokenizer_name(encode))


def _single_token_names(encoder: SegmentEncoder, names: Sequence[str], owner: str) -> list[str]:
    kept = [name for name in dict.fromkeys(names) if len(encoder(f" {name}")) == 1]
    if len(kept) < MINIMUM_NAMES:
        raise PromptError(
            f"only {len(kept)} of {len(set(names))} names are single tokens of the tokenizer "
            f"{owner}; at least {MINIMUM_NAMES} are needed: pass `names=` with names that "
            "its vocabulary holds as one token with a leading space"
        )
    return kept


def tokenizer_name(encode: Encode) -> str:
    """What error messages call the tokenizer behind `encode`."""
    model = getattr(encode, "__self__", None)
    return str(getattr(model, "source", None) or getattr(model, "name_or_path", None) or encode)


# ---- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cast:
    """Everything that is drawn for one pair: words, and which name comes first."""

    template: int
    order: NameOrder
    io: str
    subject: str
    place: str
    object: str


def ioi_prompts(
    encode: Encode,
    n: int,
    seed: int,
    bos_token_id: int | None,
    variants: Sequence[str] = ("base", "ABC"),
    *,
    templates: Sequence[str] = TEMPLATES,
    names: Sequence[str] = NAMES,
    places: Sequence[str] = PLACES,
    objects: Sequence[str] = CONSONANT_OBJECTS,
    allowed_pair: Callable[[str, str], bool] | None = None,
) -> pl.DataFrame:
    """`n` base prompts and their variants: table ioi_prompts, `n * len(variants)` rows.

    encode: text -> token ids without special tokens. bos_token_id: what prompts begin with; None:
    text. Rows are ordered by variant as given, then
    pair; `prompt` is the row number. Templates and name orders are balanced: their joint counts
    differ by at most one. The draw of a pair depends on `seed` and the pair alone, that of a
    variant's fresh names on `seed`, pair and variant, so adding a variant changes no other row.

    variants (all rows of a pair share `pair_id`, template, place and object):
      base            first names IO and S in `name_order`, S2 = S
      ABC             three fresh names: no repeated name, hence no answer
      swap            IO and S1 exchange places; S2 and the answer stay; `name_order` flips
      S2_to_IO        S2 becomes the IO name, so that the other name is the answer
      random_names    two fresh names in the same places
      filler_before   "It was a nice day. " before the text
      filler_between  a filler after the first clause
      names_and_fillers  two fresh names and both fillers: only template, order and "and" are kept
      and_*           "and" replaced by alongside / besides / plus / with / , / including
    `io`, `subject`, `subject2` and the positions are those of the row's own text: always
    `token_ids[pos_io] == io_token_id` and `token_ids[pos_s1] == s_token_id`.

    allowed_pair: predicate over the two introduced names (the organism study uses held-out pairs).
    Raises PromptError before any work for unusable arguments.
    """
    if n <= 0:
        raise PromptError(f"n is {n}; ask for at least one prompt")
    if unknown := [v for v in variants if v not in VARIANTS]:
        raise PromptError(f"unknown variants {unknown}; known: {list(VARIANTS)}")
    if not variants or len(set(variants)) != len(variants):
        raise PromptError(f"variants {list(variants)} must be distinct and at least one")
    for what, values in (("templates", templates), ("places", places), ("objects", objects)):
        if not values:
            raise PromptError(f"no {what}; pass at least one")
    parsed = [parse_template(template) for template in templates]
    encoder = SegmentEncoder(encode)
    usable = _single_token_names(encoder, names, tokenizer_name(encode))

    rows: list[dict[str, object]] = []
    casts = _draw_casts(n, seed, len(parsed), usable, places, objects, allowed_pair)
    for variant in variants:
        for pair_id, cast in enumerate(casts):
            rng = random.Random(f"ioi/{seed}/{pair_id}/{variant}")
            row = _assemble(
                encoder, parsed[cast.template], cast, variant, rng, usable, allowed_pair
            )
            ids = list(encode(str(row["text"])))
            if ids != row["token_ids"]:
                raise PromptError(
                    f"tokenizer {tokenizer_name(encode)} joins segments of {row['text']!r} into "
                    "other tokens than those of the segments; positions of roles would be wrong: "
                    "use templates whose slots lie on token boundaries"
                )
            row |= {"prompt": len(rows), "pair_id": pair_id, "template": cast.template}
            row |= {"variant": variant, "n_tokens": len(ids)}
            rows.append(row if bos_token_id is None else _with_bos(row, bos_token_id))
    return pl.DataFrame(rows, schema=IOI_SCHEMA, orient="row")


def _draw_casts(
    n: int,
    seed: int,
    n_templates: int,
    names: Sequence[str],
    places: Sequence[str],
    objects: Sequence[str],
    allowed_pair: Callable[[str, str], bool] | None,
) -> list[_Cast]:
    rng = random.Random(f"ioi/{seed}/design")
    cells = [(t, order) for t in range(n_templates) for order in NAME_ORDERS]
    design: list[tuple[int, NameOrder]] = []
    while len(design) < n:
        design += rng.sample(cells, len(cells))
    casts: list[_Cast] = []
    for pair_id, (template, order) in enumerate(design[:n]):
        draw = random.Random(f"ioi/{seed}/{pair_id}")
        io, subject = _draw_pair(draw, names, allowed_pair)
        casts.append(_Cast(template, order, io, subject, draw.choice(places), draw.choice(objects)))
    return casts


def _draw_pair(
    rng: random.Random,
    names: Sequence[str],
    allowed_pair: Callable[[str, str], bool] | None,
) -> tuple[str, str]:
    for _ in range(1000):
        first, second = rng.sample(names, 2)
        if allowed_pair is None or allowed_pair(first, second):
            return first, second
    assert allowed_pair is not None
    pairs = [(a, b) for a in names for b in names if a != b and allowed_pair(a, b)]
    if not pairs:
        raise PromptError(
            f"allowed_pair accepts no pair of the {len(names)} names; widen it or pass more names"
        )
    return rng.choice(pairs)


def _assemble(
    encoder: SegmentEncoder,
    slots: Sequence[Slot],
    cast: _Cast,
    variant: str,
    rng: random.Random,
    names: Sequence[str],
    allowed_pair: Callable[[str, str], bool] | None,
) -> dict[str, object]:
    """Text, ids and positions (before BOS) of one prompt."""
    io, subject, order = cast.io, cast.subject, cast.order
    subject2 = subject
    if variant in {"ABC", "random_names", "names_and_fillers"}:
        others = [name for name in names if name not in {cast.io, cast.subject}]
        io, subject = _draw_pair(rng, others, allowed_pair)
        subject2 = subject
        if variant == "ABC":
            subject2 = rng.choice([name for name in others if name not in {io, subject}])
    elif variant == "swap":
        order = "BABA" if order == "ABBA" else "ABBA"
    elif variant == "S2_to_IO":
        subject2 = io
    first, second = (io, subject) if order == "ABBA" else (subject, io)

    words = {
        "first": first,
        "second": second,
        "subject": subject2,
        "place": cast.place,
        "object": cast.object,
        "and": "and",
    }
    segments: list[tuple[str, str]] = []
    if variant in {"filler_before", "names_and_fillers"}:
        segments.append(("filler", FILLER_BEFORE))
    for slot in slots:
        text = words.get(slot.kind, slot.text)
        text = f" {text}" if slot.space or segments == [("filler", FILLER_BEFORE)] else text
        if slot.kind == "and" and variant in CONJUNCTIONS:
            text = CONJUNCTIONS[variant]
        segments.append((slot.kind, text))
        if slot.kind == "punct" and variant in {"filler_between", "names_and_fillers"}:
            segments.append(("filler", FILLER_BETWEEN[slot.text]))

    ids: list[int] = []
    start: dict[str, int] = {}
    for kind, text in segments:
        start.setdefault(kind, len(ids))
        ids += encoder(text, at_start=not ids)
    pos_first, pos_second = start["first"], start["second"]
    pos_io, pos_s1 = (pos_first, pos_second) if order == "ABBA" else (pos_second, pos_first)
    kinds = {slot.kind for slot in slots}
    return {
        "name_order": order,
        "io": io,
        "subject": subject,
        "subject2": subject2,
        "place": cast.place if "place" in kinds else None,
        "object": cast.object if "object" in kinds else None,
        "text": "".join(text for _, text in segments),
        "token_ids": ids,
        "pos_io": pos_io,
        "pos_s1": pos_s1,
        "pos_s1_next": pos_s1 + 1,
        "pos_and": start["and"],
        "pos_s2": start["subject"],
        "pos_verb": start["verb"],
        "pos_end": len(ids) - 1,
        "pos_punct": start["punct"],
        "pos_place": start.get("place"),
        "pos_object": start.get("object"),
        "io_token_id": ids[pos_io],
        "s_token_id": ids[pos_s1],
    }


def _with_bos(row: dict[str, object], bos_token_id: int) -> dict[str, object]:
    shifted = {
        key: value + 1 if key.startswith("pos_") and isinstance(value, int) else value
        for key, value in row.items()
    }
    ids = row["token_ids"]
    assert isinstance(ids, list)
    shifted["token_ids"] = [bos_token_id, *ids]
    shifted["n_tokens"] = len(ids) + 1
    return shifted


# ---- reading prompts -----------------------------------------------------------------------------


def equal_length_groups(
    prompts: pl.DataFrame, max_prompts: int | Callable[[int], int] | None = None
) -> Iterator[tuple[pl.DataFrame, "Tensor"]]:
    """Rows of equal n_tokens with their ids [prompt, position] int64, shortest first, no padding.

    `max_prompts` bounds a group's size, or says by n_tokens what bounds it. Rows keep their order
    within a group.
    """
    if max_prompts is not None and not callable(max_prompts) and max_prompts <= 0:
        raise PromptError(f"max_prompts is {max_prompts}; use a positive number or None")
    import torch

    for length in sorted(prompts["n_tokens"].unique().to_list()):
        rows = prompts.filter(pl.col("n_tokens") == length)
        size = max_prompts(length) if callable(max_prompts) else max_prompts
        for group in rows.iter_slices(size or rows.height):
            ids = np.stack([np.asarray(ids, dtype=np.int64) for ids in group["token_ids"]])
            yield group, torch.from_numpy(ids)
