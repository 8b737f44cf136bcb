"""The structured corpus: same seed same text, no held-out pairs, many kinds and skeletons."""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations

import pytest

from mechinterp_assets.corpora import words
from mechinterp_assets.corpora.name_moving import name_moving_sentence
from mechinterp_assets.corpora.structured import (
    KINDS,
    NAMES,
    OBJECTS,
    PLACES,
    document,
    documents,
    is_held_out_pair,
)

WORD = re.compile(r"[A-Za-z]+")


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, str]]:
    return list(documents(6000, seed=3))


def test_same_seed_gives_the_same_documents_and_another_seed_does_not() -> None:
    assert list(documents(50, 1)) == list(documents(50, 1))
    assert [d["text"] for d in documents(50, 1)] != [d["text"] for d in documents(50, 2)]


def test_a_longer_corpus_starts_with_the_shorter_one() -> None:
    assert list(documents(40, 5))[:15] == list(documents(15, 5))


@pytest.mark.parametrize("hash_seed", ["0", "42"])
def test_documents_do_not_depend_on_the_hash_seed(hash_seed: str) -> None:
    code = (
        "from mechinterp_assets.corpora.structured import documents;"
        "print(repr([d['text'] for d in documents(200, 7)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == repr([d["text"] for d in documents(200, 7)])


def test_documents_have_the_columns_of_corpus_documents(corpus: list[dict[str, str]]) -> None:
    assert set(corpus[0]) == {"doc_id", "title", "author", "source", "license", "text"}
    assert len({d["doc_id"] for d in corpus}) == len(corpus)
    assert all(d["text"].strip() for d in corpus)


def test_no_document_contains_a_held_out_pair(corpus: list[dict[str, str]]) -> None:
    names = set(NAMES)
    for row in corpus:
        present = sorted(names.intersection(w.capitalize() for w in WORD.findall(row["text"])))
        together = [pair for pair in combinations(present, 2) if is_held_out_pair(*pair)]
        assert not together, (together, row["text"])


def test_held_out_pairs_are_a_tenth_symmetric_and_cover_every_name() -> None:
    pairs = [p for p in combinations(NAMES, 2) if is_held_out_pair(*p)]
    assert 0.08 < len(pairs) / (len(NAMES) * (len(NAMES) - 1) / 2) < 0.12
    assert all(is_held_out_pair(b, a) for a, b in pairs)
    assert not any(is_held_out_pair(name, name) for name in NAMES)
    assert {name for pair in pairs for name in pair} == set(NAMES)


def test_every_kind_appears_at_about_its_share(corpus: list[dict[str, str]]) -> None:
    assert sum(share for share, _ in KINDS.values()) == pytest.approx(1)
    seen = Counter(d["title"].rsplit(" ", 1)[0].lower() for d in corpus)
    for kind, (share, _) in KINDS.items():
        assert seen[kind] / len(corpus) == pytest.approx(share, abs=0.02 + share / 5), kind


def test_documents_hardly_repeat_and_use_every_word_of_the_lists() -> None:
    drawn = [d["text"] for d in documents(20_000, seed=11)]
    assert len(set(drawn)) > 0.9 * len(drawn)
    used = {word.lower() for text in drawn for word in WORD.findall(text)}
    lists = (NAMES, PLACES, OBJECTS, words.COLOURS, words.DAYS, words.MONTHS, words.NONSENSE)
    assert {word.lower() for chosen in lists for word in chosen} <= used


def skeleton(sentence: str) -> str:
    """A sentence with names, places, objects and qualities blanked."""
    blanks = {
        **dict.fromkeys(NAMES, "N"),
        **dict.fromkeys(PLACES, "P"),
        **dict.fromkeys(OBJECTS, "O"),
        **dict.fromkeys(words.COLOURS + words.ADJECTIVES, "Q"),
    }
    return WORD.sub(lambda w: blanks.get(w.group(), w.group()), sentence)


def test_name_moving_sentences_have_too_many_skeletons_to_learn_one_by_one() -> None:
    rng = random.Random(0)
    skeletons = [skeleton(name_moving_sentence(rng, ["Mary", "John"])) for _ in range(4000)]
    assert len(set(skeletons)) > 0.97 * len(skeletons)


def test_both_name_orders_are_equally_frequent() -> None:
    rng = random.Random(1)
    abba = baba = 0
    for _ in range(3000):
        found = [w for w in WORD.findall(name_moving_sentence(rng, ["Mary", "John"])) if w in NAMES]
        if len(found) == 4 and found[0] != found[1] and found[2] != found[3]:
            abba += found[0] == found[3]
            baba += found[0] == found[2]
    assert abba + baba > 2800
    assert abba / (abba + baba) == pytest.approx(0.5, abs=0.04)


def test_structure_holds_where_the_text_states_it(corpus: list[dict[str, str]]) -> None:
    by_kind: dict[str, list[str]] = {}
    for row in corpus:
        by_kind.setdefault(row["title"].rsplit(" ", 1)[0].lower(), []).append(row["text"])
    for text in by_kind["comparisons"]:
        for low, high in re.findall(r"(\d+) (?:<|is less than) (\d+)", text):
            assert int(low) < int(high)
        for start, end in re.findall(r"from the year (\d+) to (\d+)", text):
            assert int(start) < int(end)
    for text in by_kind["arithmetic"]:
        for a, b, total in re.findall(r"(\d+) \+ (\d+) = (\d+)", text):
            assert int(a) + int(b) == int(total)
    for text in by_kind["coloured objects"]:
        listed = {
            thing: colour
            for colour, thing in re.findall(r"an? (\w+) (\w+)", text.split(". ")[0] + ".")
        }
        for thing, colour in re.findall(r"What colour is the (\w+)\? (?:It is|A:) (\w+)", text):
            assert listed[thing] == colour


def test_document_draws_from_the_given_generator_alone() -> None:
    assert document(random.Random(4)) == document(random.Random(4))
