"""The common form of prompts: assembly, checks that name what is wrong, other forms."""

from typing import Any

import polars as pl
import pytest

from mechinterp_assets.prompts.common import (
    PromptDraft,
    Segment,
    check_pairs,
    check_task_prompts,
    prompts_frame,
    single_token_words,
)
from mechinterp_assets.prompts.ioi import PromptError, SegmentEncoder
from mechinterp_assets.prompts.roles import answer_tokens, position_roles, role_positions

WORDS = ["The", " cat", " and", " the", " dog", " sat", " ran", " down"]


def encode(text: str) -> list[int]:
    """Words with their leading space; what is not listed is read letter by letter."""
    ids, rest = [], text
    while rest:
        word = next((w for w in WORDS if rest.startswith(w)), rest[0])
        ids.append(WORDS.index(word) + 1 if word in WORDS else 100 + ord(word))
        rest = rest[len(word) :]
    return ids


def draft(*segments: Segment, answers: tuple[str, ...] = (" sat",), **other: Any) -> PromptDraft:
    return PromptDraft(0, 0, "base", segments, answers, (" ran",), **other)


CAT = draft(Segment("The"), Segment(" cat", "WHO"), Segment(" and the"), Segment(" dog", "OTHER"))


def test_roles_stand_where_their_segments_begin() -> None:
    frame = prompts_frame("pets", [CAT, CAT], encode, 0)
    row = frame.row(1, named=True)
    assert row["token_ids"] == [0, 1, 2, 3, 4, 5]
    assert dict(zip(row["roles"], row["positions"], strict=True)) == {
        "END": 5,
        "WHO": 2,
        "OTHER": 5,
    }
    assert (row["prompt"], row["text"]) == (1, "The cat and the dog")
    assert answer_tokens(frame) == [([6], [7])] * 2
    # END is listed first, so it names the position that it shares.
    assert position_roles(frame)[0] == ["BOS", "other", "WHO", "other", "other", "END"]


def test_a_role_that_some_prompts_lack() -> None:
    short = draft(Segment("The"), Segment(" dog", "OTHER"))
    frame = prompts_frame("pets", [CAT, short], encode, 0)
    assert role_positions(frame, "WHO") == [2, -1]
    with pytest.raises(PromptError, match="role 'WHERE'; roles: END, WHO, OTHER"):
        role_positions(frame, "WHERE")


def test_segments_and_answers_that_a_tokenizer_splits_are_refused() -> None:
    with pytest.raises(PromptError, match="joins segments of 'The cat'"):
        prompts_frame("pets", [draft(Segment("The"), Segment(" c"), Segment("at"))], encode, 0)
    with pytest.raises(PromptError, match="the answer ' slept' is 6 tokens"):
        prompts_frame("pets", [draft(Segment("The cat"), answers=(" slept",))], encode, 0)
    with pytest.raises(PromptError, match="only 2 of 3 pets are single tokens"):
        single_token_words(
            encode, SegmentEncoder(encode), ["cat", "dog", "bird"], what="pets", minimum=3
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_tokens": pl.lit(4, pl.Int32)}, "n_tokens is 4, but 6 token ids"),
        ({"positions": pl.lit([5, 2, 6], pl.List(pl.Int32))}, "position 6 .* outside 0..5"),
        ({"roles": pl.lit(["END", "WHO", "WHO"])}, "give every role once"),
        ({"roles": pl.lit(["AT", "WHO", "OTHER"])}, "END must stand at the last position, 5"),
        ({"answer_token_ids": pl.lit([], pl.List(pl.Int32))}, "no answer tokens"),
        ({"wrong_token_ids": pl.lit([6], pl.List(pl.Int32))}, "token 6 is an answer and wrong"),
        ({"prompt": pl.lit(3, pl.Int64)}, "task pets has two prompts numbered 3"),
        ({"prompt": pl.lit("3")}, "task prompts have columns"),
    ],
)
def test_frames_that_cannot_be_used(change: dict[str, pl.Expr], message: str) -> None:
    frame = prompts_frame("pets", [CAT, CAT], encode, 0)
    with pytest.raises(PromptError, match=message):
        check_task_prompts(frame.with_columns(**change))
    with pytest.raises(PromptError, match="no task prompts"):
        check_task_prompts(frame.clear())


def test_pairs_of_unequal_length_are_named() -> None:
    short = draft(Segment("The"), Segment(" dog", "OTHER"))
    with pytest.raises(PromptError, match=r"task pets, pair 0: its prompts have \[3, 6\] tokens"):
        check_pairs(prompts_frame("pets", [CAT, short], encode, 0))


def test_no_logit_difference_without_wrong_tokens() -> None:
    frame = prompts_frame("pets", [CAT], encode, 0)
    lacking = frame.with_columns(wrong_token_ids=pl.lit([], pl.List(pl.Int32)))
    check_task_prompts(lacking)
    with pytest.raises(PromptError, match="prompt 0 has 1 answer and 0 wrong tokens"):
        answer_tokens(lacking)
