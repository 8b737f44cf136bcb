"""Grammar of sentences in which a name must be moved: the sentences that teach indirect object
identification (IOI; Wang et al. 2022, arXiv 2211.00593).

A sentence is an opening that introduces two or three people, then a clause in which one of them
(the subject) acts on another (the indirect object). Both parts are put together from small lists,
so that there are millions of distinct skeletons and a model cannot learn
them one by one. The evaluation templates in `mechinterp_assets.organism.evaluate` and
`mechinterp_assets.prompts.ioi` are unlike all of them: no sentence here starts with "Then," or
"Afterwards,", says that people "went to" a place or were "working at" or "commuting to" it, or
speaks of "Friends", "lunch" or a "long argument".
"""

import hashlib
import random
from collections.abc import Sequence
from functools import cache

from mechinterp_assets.corpora.words import ADJECTIVES, COLOURS, NAMES, OBJECTS, PLACES, word_list

HELD_OUT_SHARE = 0.1


@cache
def is_held_out_pair(first: str, second: str) -> bool:
    """Whether this unordered pair of names is kept out of every training document.

    The rule is a hash of the two names, so it needs no list and never changes: about 10% of pairs.
    """
    low, high = sorted((first, second))
    digest = hashlib.sha256(f"{low}|{high}".encode()).digest()
    return first != second and int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def draw_names(rng: random.Random, count: int, names: Sequence[str] = NAMES) -> list[str]:
    """`count` distinct names in random order, no two of which form a held-out pair."""
    while True:
        drawn = rng.sample(names, count)
        if not any(is_held_out_pair(a, b) for i, a in enumerate(drawn) for b in drawn[:i]):
            return drawn


CONJUNCTIONS = (
    "When",
    "After",
    "While",
    "Once",
    "As",
    "Because",
    "Before",
    "Since",
    "Although",
    "Though",
    "As soon as",
    "The moment",
    "The day",
    "The night",
    "Whenever",
    "Just as",
    "Even though",
)
ADVERBIALS = (
    "Yesterday",
    "Last summer",
    "In the morning",
    "Late at night",
    "One day",
    "Long ago",
    "On Sunday",
    "Later,",
    "Next,",
    "Soon",
    "Today",
    "In the evening,",
    "Earlier,",
    "At noon,",
    "Last week",
    "In winter",
    "For once,",
    "After that,",
    "After the dinner,",
    "After the concert,",
    "Before the wedding,",
    "During the storm,",
    "After breakfast",
    "So",
    "At first,",
    "Finally,",
    "Meanwhile",
    "Two years later,",
    "It is said that",
    "Everyone knew that",
    "I remember that",
    "We heard that",
    "Nobody saw how",
    "It was late when",
    "It was raining when",
)
GROUPS = (
    "The friends",
    "The neighbours",
    "The cousins",
    "The twins",
    "The students",
    "My parents,",
    "The sisters",
    "Old friends",
    "Two sailors,",
    "Our teachers",
)
PREDICATES_AT_PLACE = (
    "walked to the {p}",
    "drove to the {p}",
    "ran to the {p}",
    "came back from the {p}",
    "came to the {p}",
    "met at the {p}",
    "arrived at the {p}",
    "left the {p}",
    "visited the {p}",
    "were sitting in the {p}",
    "were resting at the {p}",
    "were at the {p}",
    "were waiting outside the {p}",
    "were walking to the {p}",
    "were talking about the {p}",
    "were hoping to see the {p}",
    "were working in the {p}",
    "were busy at the {p}",
    "worked at the {p}",
    "were travelling to the {p}",
    "were riding to the {p}",
    "were dreaming about going to the {p}",
    "planned a trip to the {p}",
    "had dinner at the {p}",
    "had a good time at the {p}",
    "had a lot of trouble at the {p}",
    "had a picnic near the {p}",
    "had fun in the {p}",
    "had a talk in the {p}",
    "stayed in the {p}",
    "lived near the {p}",
    "played behind the {p}",
    "painted the {p}",
    "cleaned the {p}",
    "got lost near the {p}",
    "got to the {p}",
    "returned to the {p}",
    "spent the day at the {p}",
    "shared a table at the {p}",
)
PREDICATES_FREE = (
    "had a quarrel",
    "had a short talk",
    "had a long day",
    "had a bad fight",
    "had an old argument",
    "argued for hours",
    "talked all night",
    "were very tired",
    "sat down to eat",
    "were alone",
    "fell in love",
    "said goodbye",
    "danced for a while",
    "were getting ready",
    "were both hungry",
    "played cards",
    "sang together",
    "made a plan",
    "had lost the game",
    "were old friends",
)
PREDICATES_WITH_OBJECT = (
    "found a {o} in the {p}",
    "bought a {o} at the {p}",
    "saw a {o} near the {p}",
    "took a {o} from the {p}",
    "lost a {o} in the {p}",
    "got a {o} from the {p}",
    "picked up a {o} behind the {p}",
    "made a {o} for the {p}",
    "discovered a {a} {o} at the {p}",
    "were looking for the {o}",
    "wanted the same {o}",
    "had only one {o}",
    "were carrying a {o} to the {p}",
    "hid a {o} under the {p}",
    "talked about the {o}",
)
TRANSITIVE = (
    "{x} met {y} at the {p}",
    "{x} sat with {y} in the {p}",
    "{x} saw {y} near the {p}",
    "{x} went with {y} to the {p}",
    "{x} lived next to {y} by the {p}",
    "{x} was talking with {y} at the {p}",
    "{x} found {y} in the {p}",
    "{x} waited for {y} outside the {p}",
    "{x} had dinner with {y}",
    "{x} knew {y} from the {p}",
    "{x} came to the {p} and {y} came too",
    "{x}, who liked the {p}, met {y}",
    "{x}, who had a {o}, was a friend of {y}",
    "{x} had a {o} and {y} had none",
    "{x} was in the {p} when {y} arrived",
    "there was {x} and there was {y} at the {p}",
    "{x} was older than {y}",
    "{x} looked at {y}",
)
RELATIVE = (
    "The {p} that {pair} liked had a {o}",
    "The {p} where {pair} met had an old {o}",
    "The {p} {pair} visited had a {a} {o}",
    "The {p} {pair} lived in had a {o}",
    "The {o} that {pair} found was {a}",
    "The {o} {pair} bought at the {p} was {c}",
    "There was a {o} in the {p} of {pair}",
    "The house of {pair} had a {o}",
    "In the {p} {pair} kept a {o}",
    "At the {p}, {pair} had a {o}",
)
NOW_AND_THEN = (
    "It was a warm day.",
    "The sun was shining.",
    "It had been a long week.",
    "The {p} was quiet.",
    "The {p} was full of people.",
    "The {o} was {c}.",
    "Nobody else was there.",
    "The weather was bad.",
    "It was nearly midnight.",
    "A {a} {o} lay on the floor.",
    "Time went by.",
    "There was a {o} on the table.",
)
SENTENCE_LINKS = (
    "",
    "",
    "",
    "",
    "Then ",
    "Soon ",
    "Later ",
    "At last ",
    "After a while ",
    "The next day ",
    "Quietly ",
    "So ",
    "Suddenly ",
    "In the end ",
    "But ",
    "And ",
    "After that, ",
    "A little later, ",
    "Finally ",
    "In return ",
)
CLAUSE_LINKS = (
    ", and",
    ", so",
    ", but",
    " and",
    ", and then",
    ", and later",
    ", and in the end",
    ", and soon",
    ", until",
    ", where",
    ", and after that",
)
GIVE_PAST = word_list(
    """gave handed offered sent passed brought sold showed lent returned threw carried mailed took
    promised read described"""
)
GIVE_INFINITIVE = word_list(
    "give hand offer send pass bring sell show lend return throw carry mail take"
)
INTENTIONS = (
    "decided to",
    "wanted to",
    "agreed to",
    "hoped to",
    "tried to",
    "refused to",
    "forgot to",
    "was going to",
    "had to",
    "planned to",
    "was glad to",
    "promised to",
    "asked to",
    "chose to",
)
GIFTS = (
    "a {o}",
    "a {o}",
    "a {o}",
    "the {o}",
    "the {o}",
    "it",
    "a {a} {o}",
    "the {c} {o}",
    "an old {o}",
    "some of it",
    "everything",
    "the {o} from the {p}",
    "a {o} and a {o2}",
    "two {o}s",
    "that {o}",
    "one {o}",
)
SPEECH = (
    "said hello to",
    "said goodbye to",
    "said to",
    "said nothing to",
    "said something to",
    "spoke to",
    "talked to",
    "whispered to",
    "lied to",
    "told a story to",
    "wrote a letter to",
    "sang to",
    "smiled at",
    "waved at",
    "looked at",
    "laughed at",
    "shouted at",
    "pointed at",
    "called",
    "thanked",
    "asked",
    "told",
    "kissed",
    "followed",
    "helped",
    "waited for",
    "left with",
    "sat beside",
    "ran after",
    "listened to",
    "apologised to",
    "complained to",
    "got a {o} from",
    "took the {o} from",
    "bought a {o} for",
    "made a {o} for",
    "kept the {o} for",
    "received a letter from",
    "borrowed a {o} from",
    "hid the {o} from",
    "was afraid of",
    "was angry with",
    "felt sorry for",
    "agreed with",
    "played with",
)
ENDINGS = (
    ".",
    ".",
    ".",
    ".",
    ".",
    " and left.",
    " with a smile.",
    " at the {p}.",
    " before dark.",
    " again.",
    " and went home.",
    ' "for your {o}".',
    ", who was happy.",
    " without a word.",
)
PAIRS = ("{x} and {y}",) * 24 + (
    "{x} with {y}",
    "{x} alongside {y}",
    "{x} plus {y}",
    "{x} together with {y}",
    "both {x} and {y}",
    "{x} and also {y}",
    "{x} and old {y}",
    "{x} and little {y}",
)


def _fill(rng: random.Random, text: str, **names: str) -> str:
    thing, other = rng.sample(OBJECTS, 2)
    return text.format(
        p=rng.choice(PLACES),
        o=thing,
        o2=other,
        a=rng.choice(ADJECTIVES),
        c=rng.choice(COLOURS),
        **names,
    )


def _opening(rng: random.Random, x: str, y: str) -> tuple[str, bool]:
    """An opening with both names, and whether it is subordinate (a main clause must follow)."""
    pair = rng.choice(PAIRS).format(x=x, y=y)
    kind = rng.random()
    predicate = rng.choice(
        rng.choice((PREDICATES_AT_PLACE, PREDICATES_AT_PLACE, PREDICATES_FREE))
        if rng.random() < 0.75
        else PREDICATES_WITH_OBJECT
    )
    if kind < 0.36:
        return _fill(rng, f"{rng.choice(CONJUNCTIONS)} {pair} {predicate}"), True
    if kind < 0.66:
        return _fill(rng, f"{rng.choice(ADVERBIALS)} {pair} {predicate}"), False
    if kind < 0.73:
        return _fill(rng, f"{rng.choice(GROUPS)} {pair} {predicate}"), False
    if kind < 0.80:
        return _fill(rng, rng.choice(RELATIVE), pair=pair), False
    clause = rng.choice(TRANSITIVE)
    if rng.random() < 0.5:
        return _fill(rng, f"{rng.choice(CONJUNCTIONS)} {clause}", x=x, y=y), True
    return _fill(rng, f"{rng.choice(ADVERBIALS)} {clause}", x=x, y=y), False


def _action(rng: random.Random, subject: str, receiver: str) -> str:
    kind = rng.random()
    if kind < 0.40:
        clause = f"{subject} {rng.choice(GIVE_PAST)} {rng.choice(GIFTS)} to {receiver}"
    elif kind < 0.66:
        clause = (
            f"{subject} {rng.choice(INTENTIONS)} {rng.choice(GIVE_INFINITIVE)}"
            f" {rng.choice(GIFTS)} to {receiver}"
        )
    else:
        clause = f"{subject} {rng.choice(SPEECH)} {receiver}"
    return _fill(rng, clause)


def name_moving_sentence(rng: random.Random, people: Sequence[str]) -> str:
    """One opening and one action among `people` (two or three names, any order).

    With two people the indirect object is the one who is not the subject; which of the two is
    named first (ABBA or BABA) is a fair coin. With three, two act and the third receives, or a
    third person who was not introduced acts.
    """
    if len(people) == 3 and rng.random() < 0.6:
        return _three_people(rng, people)
    x, y = rng.sample(list(people), 2)
    subject, receiver = (x, y) if rng.random() < 0.5 else (y, x)
    opening, subordinate = _opening(rng, x, y)
    if subordinate:
        joint = ", "
        if rng.random() < 0.08:
            joint = ", and " if rng.random() < 0.5 else ", then "
    elif rng.random() < 0.65:
        joint = ". "
        if rng.random() < 0.15:
            joint += _fill(rng, rng.choice(NOW_AND_THEN)) + " "
        joint += rng.choice(SENTENCE_LINKS)
    else:
        joint = rng.choice(CLAUSE_LINKS) + " "
    ending = _fill(rng, rng.choice(ENDINGS))
    return opening + joint + _action(rng, subject, receiver) + ending


def _three_people(rng: random.Random, people: Sequence[str]) -> str:
    x, y, z = rng.sample(list(people), 3)
    place = rng.choice(PREDICATES_AT_PLACE)
    opening = rng.choice(("{x}, {y} and {z}", "{x} and {y} and {z}", "{x}, {y}, {z}")).format(
        x=x, y=y, z=z
    )
    start = f"{rng.choice(ADVERBIALS)} {opening} {place}. "
    givers, receiver = rng.choice((((x, y), z), ((y, z), x), ((x, z), y)))
    first, second = givers if rng.random() < 0.5 else givers[::-1]
    verb = rng.choice(GIVE_PAST)
    return _fill(rng, f"{start}{first} and {second} {verb} {rng.choice(GIFTS)} to {receiver}.")


def name_moving_story(rng: random.Random) -> str:
    """Some sentences around two or three people, half of them name-moving ones."""
    people = draw_names(rng, rng.choice((2, 2, 2, 3)))
    sentences: list[str] = []
    if rng.random() < 0.25:
        sentences.append(_fill(rng, rng.choice(NOW_AND_THEN)))
    for _ in range(rng.randint(1, 4)):
        x, y = rng.sample(people, 2)
        kind = rng.random()
        if kind < 0.7:
            sentences.append(name_moving_sentence(rng, people))
        elif kind < 0.8:
            sentences.append(_fill(rng, f"In fact {x} liked the {{o}}, so {x} kept it."))
        elif kind < 0.9:
            sentences.append(_fill(rng, f"When {x} asked {y} about the {{p}}, {y} answered {x}."))
        else:
            sentences.append(_fill(rng, rng.choice(NOW_AND_THEN)))
    return " ".join(sentences)


def name_moving_list(rng: random.Random) -> str:
    """Up to four unrelated name-moving sentences, each about its own two people."""
    count = rng.randint(1, 3)
    people = draw_names(rng, 2 * count)
    return " ".join(name_moving_sentence(rng, people[2 * i : 2 * i + 2]) for i in range(count))
