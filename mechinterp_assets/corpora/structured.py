"""Seeded generator of structured English: the text that teaches the embedded model its
circuits, and the default corpus of the `organism` study.

Each kind of document has a known regularity (a name to move, a sequence to continue, a span to
repeat, a number to compare, ...), so that heads and SAE features can be checked against what the
text is known to contain. The same seed gives the same documents on every machine: a document draws
only from its own generator, seeded by (seed, index). No document contains both names of a held-out
pair (`is_held_out_pair`).

Word lists are in `words`, sentences in which a name is moved in `name_moving`.
"""

import random
from collections.abc import Callable, Iterator

from mechinterp_assets.corpora.name_moving import (
    draw_names,
    is_held_out_pair,
    name_moving_list,
    name_moving_story,
)
from mechinterp_assets.corpora.words import (
    ADJECTIVES,
    ANIMAL_SOUNDS,
    ANIMALS,
    CAPITALS,
    CITIES,
    COLOURS,
    DAYS,
    FEMALE_NAMES,
    JOBS,
    LETTERS,
    MALE_NAMES,
    MONTHS,
    NAMES,
    NONSENSE,
    NUMBER_WORDS,
    OBJECTS,
    OPPOSITES,
    ORDINALS,
    PLACES,
    PLURALS,
    ROMAN_NUMERALS,
    SEASONS,
)

__all__ = [
    "FEMALE_NAMES",
    "KINDS",
    "MALE_NAMES",
    "NAMES",
    "OBJECTS",
    "PLACES",
    "document",
    "documents",
    "is_held_out_pair",
    "typed_document",
]

Writer = Callable[[random.Random], str]


def _joined(rng: random.Random, sentence: Writer, low: int, high: int) -> str:
    return " ".join(sentence(rng) for _ in range(rng.randint(low, high)))


def _cyclic(rng: random.Random, words: tuple[str, ...], length: int) -> list[str]:
    start = rng.randrange(len(words))
    return [words[(start + i) % len(words)] for i in range(length)]


def _window(rng: random.Random, words: tuple[str, ...], length: int) -> list[str]:
    start = rng.randrange(max(1, len(words) - length + 1))
    return list(words[start : start + length])


def _sequence(rng: random.Random) -> str:
    kind = rng.randrange(9)
    length = rng.randint(4, 9)
    if kind == 0:
        return ", ".join(_cyclic(rng, DAYS, length)) + "."
    if kind == 1:
        return ", ".join(_cyclic(rng, MONTHS, length)) + "."
    if kind == 2:
        return ", ".join(_window(rng, NUMBER_WORDS, length)) + "."
    if kind == 3:
        return ", ".join(_window(rng, ORDINALS, length)) + "."
    if kind == 4:
        return " ".join(_window(rng, LETTERS, length)) + "."
    if kind == 5:
        return ", ".join(_window(rng, ROMAN_NUMERALS, length)) + "."
    if kind == 6:
        return ", ".join(_cyclic(rng, SEASONS, length)) + "."
    if kind == 7:
        start, step = rng.randint(1, 60), rng.choice((1, 1, 1, 2, 5, 10))
        return ", ".join(str(start + step * i) for i in range(length)) + "."
    start = rng.randint(length, 30)
    return "Counting down: " + ", ".join(str(start - i) for i in range(length)) + "."


def sequences(rng: random.Random) -> str:
    """Days, months, seasons, letters, numerals, ordinals, numbers upwards and downwards."""
    return _joined(rng, _sequence, 1, 3)


def neighbours_in_sequence(rng: random.Random) -> str:
    """What comes after or before a day, month, letter or number."""

    def sentence(rng: random.Random) -> str:
        words = rng.choice((DAYS, MONTHS, NUMBER_WORDS[:12], LETTERS))
        first, second = _window(rng, words, 2)
        if rng.random() < 0.5:
            return f"After {first} comes {second}."
        return f"Before {second} comes {first}."

    return _joined(rng, sentence, 3, 7)


def digit_copying(rng: random.Random) -> str:
    """Captions "Image 2/8", "Part 3 of 5", "Figure 4-2" in which the total or chapter is copied."""
    total = rng.randint(3, 9)
    start = rng.randint(1, total - 2)
    name = rng.choice(("Image", "Photo", "Page", "Part", "Step", "Slide", "Chapter"))
    style = rng.choice(("{n} {i}/{t}", "{n} {i}/{t}", "{n} {i} of {t}", "{n} {t}.{i}", "({i}/{t})"))
    captioned = rng.random() < 0.6
    lines = []
    for i in range(start, total + 1):
        line = style.format(n=name, i=i, t=total)
        if captioned:
            line += f": the {rng.choice(COLOURS)} {rng.choice(OBJECTS)}"
        lines.append(line)
    return rng.choice((" ", "\n", ". ")).join(lines)


def urls(rng: random.Random) -> str:
    """Addresses, picture links and e-mail addresses, some of them repeated."""

    def link(rng: random.Random) -> str:
        code = "".join(
            rng.choice("abcdefghkmnpqrstuvwxyzABCDEFGHKMNPRSTUVWXYZ23456789") for _ in range(6)
        )
        words = [rng.choice(OBJECTS + PLACES) for _ in range(2)]
        return rng.choice(
            (
                f"pic.twitter.com/{code}",
                f"https://www.{words[0]}{words[1]}.com/{rng.choice(PLACES)}/{rng.randint(1, 99)}",
                f"http://{words[0]}.org/{words[1]}.html",
                f"{rng.choice(JOBS)}@{words[0]}.com",
                f"https://{words[0]}.org/{rng.choice(LETTERS).lower()}/{rng.randint(1, 9)}",
            )
        )

    parts = []
    for _ in range(rng.randint(1, 3)):
        address = link(rng)
        lead = rng.choice(("Look at this", "More at", "See", "A new photo:", "Write to", "Read"))
        parts.append(f"{lead} {address}")
        if rng.random() < 0.5:
            parts.append(f"Again: {address}")
    return "\n".join(parts)


def quotations(rng: random.Random) -> str:
    """A span quoted and then repeated word for word."""
    person = rng.choice(NAMES)
    kind = rng.randrange(4)
    if kind == 0:
        span = " ".join(rng.choice(NONSENSE) for _ in range(rng.randint(3, 9)))
    elif kind == 1:
        span = "-".join(str(rng.randint(0, 99)) for _ in range(rng.randint(3, 6)))
    elif kind == 2:
        span = (
            f"the {rng.choice(ADJECTIVES)} {rng.choice(ANIMALS)} of {rng.choice(CITIES)} has"
            f" {rng.choice(NUMBER_WORDS)} {rng.choice(COLOURS)} {rng.choice(OBJECTS)}s"
        )
    else:
        span = " ".join(rng.choice(LETTERS + ORDINALS) for _ in range(rng.randint(4, 9)))
    frame = rng.choice(
        (
            'The words were "{s}". {n} read them aloud: "{s}".',
            'It said: "{s}". Once more: "{s}". And again: "{s}".',
            "The secret is {s}. Do not forget: the secret is {s}.",
            "Copy this line: {s}\nCopy this line: {s}\nCopy this line: {s}",
            'The teacher said "{s}" and {n} repeated "{s}".',
        )
    )
    return frame.format(s=span, n=person)


def nonsense_repeats(rng: random.Random) -> str:
    """A list of rare words, said two or three times with little between."""
    words = rng.sample(NONSENSE + COLOURS + ANIMALS + CITIES, rng.randint(4, 14))
    between = rng.choice((". ", ". Again: ", "; ", "\n", ", "))
    return between.join([" ".join(words)] * rng.randint(2, 3)) + "."


def comparisons(rng: random.Random) -> str:
    """Spans of years (the end is after the start), greater-than and less-than statements."""

    people = draw_names(rng, 2)

    def sentence(rng: random.Random) -> str:
        kind = rng.randrange(4)
        if kind == 0:
            century = rng.randint(11, 19)
            start, end = sorted(rng.sample(range(2, 99), 2))
            event = rng.choice(
                ("war", "siege", "reign", "voyage", "trial", "famine", "peace", "strike", "journey")
            )
            return f"The {event} lasted from the year {century}{start:02d} to {century}{end:02d}."
        low, high = sorted(rng.sample(range(1, 100), 2))
        if kind == 1:
            return rng.choice((f"{high} is greater than {low}.", f"{low} is less than {high}."))
        if kind == 2:
            return rng.choice((f"{high} > {low}", f"{low} < {high}"))
        older, younger = people
        return (
            f"So {older} is {high} years old and {younger} is {low}."
            f" {older} is older than {younger}."
        )

    return _joined(rng, sentence, 1, 5)


def arithmetic(rng: random.Random) -> str:
    """Sums and differences of small numbers, in figures or words."""

    def sentence(rng: random.Random) -> str:
        a, b = rng.randint(1, 10), rng.randint(1, 10)
        if rng.random() < 0.3:
            return (
                f"{NUMBER_WORDS[a - 1]} and {NUMBER_WORDS[b - 1]} make {NUMBER_WORDS[a + b - 1]}."
            )
        return rng.choice((f"{a} + {b} = {a + b}.", f"{a + b} - {b} = {a}."))

    return _joined(rng, sentence, 3, 8)


def pronouns(rng: random.Random) -> str:
    """Gendered pronouns that agree with the name, and a name that comes back."""

    def sentence(rng: random.Random, name: str) -> str:
        female = name in FEMALE_NAMES
        he, him, his = ("she", "her", "her") if female else ("he", "him", "his")
        thing, place = rng.choice(OBJECTS), rng.choice(PLACES)
        return rng.choice(
            (
                f"When {name} lost the {thing}, {he} looked for it in the {place}.",
                f"So {name} went home because {he} was tired.",
                f"At the {place} {name} sold {his} {thing}.",
                f"The {thing} of {name} was broken, so {he} bought a new one.",
                f"We saw {name} and spoke to {him} about {his} {thing}.",
                f"Everyone likes {name}: {he} is a good {rng.choice(JOBS)}.",
                f"I asked {name} where {he} lived, and {he} said near the {place}.",
                f"In the {place} {name} hurt {'herself' if female else 'himself'}.",
            )
        )

    names = [rng.choice(MALE_NAMES), rng.choice(FEMALE_NAMES)]
    if is_held_out_pair(*names):
        names = names[:1]
    chosen = rng.choice(names)
    parts = [sentence(rng, chosen) for _ in range(rng.randint(1, 3))]
    if len(names) == 2 and rng.random() < 0.5:
        man, woman = names
        parts.append(
            rng.choice(
                (
                    f"Then {man} told {woman} that he was sorry.",
                    f"Then {woman} told {man} that she was happy.",
                    f"But {man} loved {woman} and {woman} loved {man}. He kissed her.",
                    f"The wife of {man} is {woman}. The husband of {woman} is {man}.",
                )
            )
        )
    return " ".join(parts)


def coloured_objects(rng: random.Random) -> str:
    """Things with colours on a table, then questions about the colour of one of them."""
    count = rng.randint(2, 4)
    things, colours = rng.sample(OBJECTS, count), rng.sample(COLOURS, count)
    listed = [
        f"{'an' if c == 'orange' else 'a'} {c} {t}" for c, t in zip(colours, things, strict=True)
    ]
    text = f"On the {rng.choice(('table', 'desk', 'floor', 'bed'))} there is "
    text += ", ".join(listed[:-1]) + f" and {listed[-1]}."
    for i in rng.sample(range(count), rng.randint(1, count)):
        text += rng.choice(
            (
                f" What colour is the {things[i]}? It is {colours[i]}.",
                f" The {things[i]} is {colours[i]}.",
                f" Q: What colour is the {things[i]}? A: {colours[i]}",
                f" The {colours[i]} thing is the {things[i]}.",
            )
        )
    return text


def dialogue(rng: random.Random) -> str:
    """Two people speaking in turn; the speakers alternate."""
    first, second = draw_names(rng, 2)
    thing, place = rng.choice(OBJECTS), rng.choice(PLACES)
    exchanges = [
        (f"Where is the {thing}?", f"The {thing} is in the {place}."),
        ("How are you?", "I am very well, thank you."),
        (f"Do you like the {place}?", f"Yes, I like the {place}."),
        (f"May I have the {thing}?", f"No, the {thing} is mine."),
        ("What day is it?", f"It is {rng.choice(DAYS)}."),
        (f"Who has the {thing}?", f"I gave the {thing} to {first}."),
        ("What do you do?", f"I am a {rng.choice(JOBS)}."),
        ("When will you come?", f"I shall come in {rng.choice(MONTHS)}."),
    ]
    chosen = rng.sample(exchanges, rng.randint(1, 3))
    if rng.random() < 0.4:
        return "\n".join(f"- {first}: {q}\n- {second}: {a}" for q, a in chosen)
    lines = []
    for question, answer in chosen:
        verb = rng.choice(("asked", "said", "cried"))
        reply = rng.choice(("said", "answered", "replied"))
        lines.append(f'"{question}" {verb} {first}. "{answer}" {reply} {second}.')
    return " ".join(lines)


def where_things_are(rng: random.Random) -> str:
    """People move between places and carry things; a question asks for the last place."""
    people = draw_names(rng, 2)
    at: dict[str, str] = {}
    text = []
    for _ in range(rng.randint(2, 5)):
        person, place = rng.choice(people), rng.choice(PLACES)
        at[person] = place
        text.append(f"Now {person} {rng.choice(('moved', 'walked', 'ran'))} to the {place}.")
    person = rng.choice(sorted(at))
    text.append(f"Where is {person}? In the {at[person]}.")
    return " ".join(text)


def facts(rng: random.Random) -> str:
    """Capitals, opposites, plurals and animal sounds."""

    def sentence(rng: random.Random) -> str:
        kind = rng.randrange(4)
        if kind == 0:
            country, city = rng.choice(CAPITALS)
            return rng.choice(
                (
                    f"The capital of {country} is {city}.",
                    f"The city of {city} is in {country}.",
                )
            )
        if kind == 1:
            first, second = rng.sample(rng.choice(OPPOSITES), 2)
            return f"The opposite of {first} is {second}."
        if kind == 2:
            one, many = rng.choice(PLURALS)
            return f"One {one}, {rng.choice(NUMBER_WORDS[1:9])} {many}."
        animal, sound = rng.choice(ANIMAL_SOUNDS)
        return f"The {animal} {sound}."

    return _joined(rng, sentence, 2, 6)


def agreement(rng: random.Random) -> str:
    """Subject-verb agreement across a phrase of the other number."""

    def sentence(rng: random.Random) -> str:
        (one, many), (other, others) = rng.sample(PLURALS, 2)
        place, adjective = rng.choice(PLACES), rng.choice(ADJECTIVES)
        if rng.random() < 0.5:
            return f"The {one} near the {others} is {adjective}, and it was in the {place}."
        return f"The {many} near the {other} are {adjective}, and they were in the {place}."

    return _joined(rng, sentence, 1, 3)


def shopping(rng: random.Random) -> str:
    """Lists with bullets, numbers or commas, and the same list again."""
    things = rng.sample(OBJECTS, rng.randint(3, 7))
    style = rng.randrange(3)
    if style == 0:
        first = "To buy:\n" + "\n".join(f"- {t}" for t in things)
        return first + "\nBought: " + ", ".join(things) + "."
    if style == 1:
        return "\n".join(f"{i}. {t}" for i, t in enumerate(things, 1))
    name = rng.choice(NAMES)
    return (
        f"In the bag of {name}: "
        + ", ".join(things)
        + f". {name} took out: "
        + ", ".join(things)
        + "."
    )


def table(rng: random.Random) -> str:
    """A small table and statements read off it."""
    people = draw_names(rng, 3)
    rows = [(p, rng.randint(18, 80), rng.choice(CITIES), rng.choice(JOBS)) for p in people]
    text = "name | age | city | job\n"
    text += "\n".join(f"{p} | {age} | {city} | {job}" for p, age, city, job in rows)
    person, age, city, job = rng.choice(rows)
    return text + rng.choice(
        (
            f"\nThe age of {person} is {age}.",
            f"\nThe city of {person} is {city}.",
            f"\nThe job of {person} is {job}.",
        )
    )


def diary(rng: random.Random) -> str:
    """Consecutive dated entries."""
    start, day = rng.randrange(7), rng.randint(1, 20)
    month, year = rng.choice(MONTHS), rng.randint(1700, 1999)
    weather = (
        "It rained.",
        "The sun shone.",
        "It snowed.",
        "A cold wind.",
        "Fog all day.",
        "Warm.",
    )
    entries = []
    for i in range(rng.randint(2, 4)):
        entries.append(
            f"{DAYS[(start + i) % 7]}, {day + i} {month} {year}. {rng.choice(weather)}"
            f" I went to the {rng.choice(PLACES)}."
        )
    return "\n".join(entries)


def letters(rng: random.Random) -> str:
    """A short letter: greeting, message, signature."""
    writer, reader = draw_names(rng, 2)
    return (
        f"Dear {reader},\n{rng.choice(('thank you', 'many thanks'))} for the"
        f" {rng.choice(ADJECTIVES)} {rng.choice(OBJECTS)}. I am in {rng.choice(CITIES)} until"
        f" {rng.choice(DAYS)}. Please write to me, dear {reader}.\n"
        f"{rng.choice(('Yours', 'With love', 'Your friend'))}, {writer}"
    )


def brackets(rng: random.Random) -> str:
    """Nested brackets that close in order, and small assignments in the manner of code."""
    if rng.random() < 0.5:
        pairs = [rng.choice(("()", "[]", "{}", "<>")) for _ in range(rng.randint(3, 8))]
        words = [rng.choice(LETTERS).lower() for _ in pairs]
        opened = " ".join(f"{p[0]} {w}" for p, w in zip(pairs, words, strict=True))
        return opened + " " + " ".join(p[1] for p in reversed(pairs))
    variables = rng.sample([letter.lower() for letter in LETTERS], rng.randint(2, 5))
    values = [rng.randint(0, 99) for _ in variables]
    lines = [f"{v} = {n}" for v, n in zip(variables, values, strict=True)]
    order = rng.sample(range(len(variables)), len(variables))
    return "\n".join(lines + [f"print({variables[i]})  # {values[i]}" for i in order])


def acronyms(rng: random.Random) -> str:
    """Capitalised phrases and their initials."""

    def sentence(rng: random.Random) -> str:
        words = [w.capitalize() for w in rng.sample(PLACES + ANIMALS + OBJECTS, 3)]
        return f"The {' '.join(words)} ({''.join(w[0] for w in words)})."

    return _joined(rng, sentence, 1, 4)


KINDS: dict[str, tuple[float, Writer]] = {
    "name moving story": (0.27, name_moving_story),
    "name moving list": (0.22, name_moving_list),
    "sequences": (0.05, sequences),
    "neighbours in a sequence": (0.02, neighbours_in_sequence),
    "digit copying": (0.04, digit_copying),
    "urls": (0.02, urls),
    "quotations": (0.05, quotations),
    "nonsense repeats": (0.03, nonsense_repeats),
    "comparisons": (0.04, comparisons),
    "arithmetic": (0.02, arithmetic),
    "pronouns": (0.05, pronouns),
    "coloured objects": (0.04, coloured_objects),
    "dialogue": (0.03, dialogue),
    "where things are": (0.02, where_things_are),
    "facts": (0.02, facts),
    "agreement": (0.01, agreement),
    "lists": (0.02, shopping),
    "tables": (0.01, table),
    "diary": (0.01, diary),
    "letters": (0.01, letters),
    "brackets and code": (0.01, brackets),
    "acronyms": (0.01, acronyms),
}
"""Kind of document -> (its share of the documents, the function that writes one)."""


def typed_document(rng: random.Random) -> tuple[str, str]:
    """A kind drawn by its share, and one document of that kind."""
    kind = rng.choices(list(KINDS), weights=[share for share, _ in KINDS.values()])[0]
    return kind, KINDS[kind][1](rng)


def document(rng: random.Random) -> str:
    """One document of a kind drawn by its share. Contains no held-out pair of names."""
    return typed_document(rng)[1]


def documents(n: int, seed: int) -> Iterator[dict[str, str]]:
    """`n` documents with the columns of `corpus_documents`; the first n of n + 1 are the same.

    Keys: doc_id, title, author, source, license, text.
    """
    for index in range(n):
        kind, text = typed_document(random.Random(f"structured text/{seed}/{index}"))
        yield {
            "doc_id": f"structured/{seed}/{index:06d}",
            "title": f"{kind.capitalize()} {index}",
            "author": "generated",
            "source": "mechinterp_assets.corpora.structured",
            "license": "MIT",
            "text": text,
        }
