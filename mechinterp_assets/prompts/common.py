"""Prompts with answers in one form for every task, and how they are put together.

Belongs here: the frame that all tasks share, its checks, assembly of prompts from segments, reading
IOI prompts in the common form. Does not belong here: the wording of a task (a file per family) and
anything that needs a model's weights or activations.

A prompt is assembled from segments that are tokenised one by one, so that the position of a role
is known from assembly and never searched for. Answers and wrong answers are single tokens, read at
END: logit difference = mean logit of the answers - mean logit of the wrong tokens.
"""

import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from mechinterp_assets.prompts.ioi import (
    ROLE_PRECEDENCE,
    Encode,
    PromptError,
    SegmentEncoder,
    tokenizer_name,
)

END = "END"
IOI = "ioi"
BASE, CORRUPT = "base", "corrupt"

# One row per prompt. prompt: row number within the task. pair_id: shared by a base prompt and what
# was varied from it. token_ids: BOS first, where the study's prompts begin with it. roles,
# positions: role i stands at positions[i]; where two roles share a position the first listed names
# it; END is the last position. answer_token_ids and wrong_token_ids belong to the row's own text;
# without wrong tokens only loss, probability and KL are defined, without answers KL alone.
TASK_PROMPTS_SCHEMA: dict[str, pl.DataType] = {
    "task": pl.String(),
    "prompt": pl.Int64(),
    "pair_id": pl.Int64(),
    "template": pl.Int32(),
    "variant": pl.String(),
    "text": pl.String(),
    "token_ids": pl.List(pl.Int32()),
    "n_tokens": pl.Int32(),
    "roles": pl.List(pl.String()),
    "positions": pl.List(pl.Int32()),
    "answer_token_ids": pl.List(pl.Int32()),
    "wrong_token_ids": pl.List(pl.Int32()),
}

Choice = TypeVar("Choice", bound=Hashable)


@dataclass(frozen=True)
class Segment:
    """A piece of text that is tokenised on its own; `role` stands at its first token."""

    text: str
    role: str | None = None


@dataclass(frozen=True)
class PromptDraft:
    """A prompt before tokenising. Answers are texts of one token, as they follow the prompt."""

    pair_id: int
    template: int
    variant: str
    segments: tuple[Segment, ...]
    answers: tuple[str, ...]
    wrong: tuple[str, ...] = ()


# ---- assembly ------------------------------------------------------------------------------------


def prompts_frame(
    task: str,
    drafts: Iterable[PromptDraft],
    encode: Encode,
    bos_token_id: int | None,
    *,
    encoder: SegmentEncoder | None = None,
) -> pl.DataFrame:
    """Drafts as TASK_PROMPTS_SCHEMA, numbered in the order given.

    encode: text -> token ids without special tokens. bos_token_id: what prompts begin with; None:
    text. Raises PromptError when segments are joined into other tokens than their own, an answer is
    not one token, or check_task_prompts refuses.
    """
    encoder = encoder or SegmentEncoder(encode)
    rows = []
    for number, draft in enumerate(drafts):
        row = _assemble(task, draft, encode, bos_token_id, encoder)
        rows.append({"task": task, "prompt": number, **row})
    return check_task_prompts(pl.DataFrame(rows, schema=TASK_PROMPTS_SCHEMA, orient="row"))


def _assemble(
    task: str, draft: PromptDraft, encode: Encode, bos_token_id: int | None, encoder: SegmentEncoder
) -> dict[str, object]:
    first = [] if bos_token_id is None else [bos_token_id]
    ids: list[int] = []
    roles: list[str] = []
    positions: list[int] = []
    for segment in draft.segments:
        if segment.role is not None:
            roles.append(segment.role)
            positions.append(len(first) + len(ids))
        ids += encoder(segment.text, at_start=not ids)
    text = "".join(segment.text for segment in draft.segments)
    if list(encode(text)) != ids:
        raise PromptError(
            f"task {task}: tokenizer {tokenizer_name(encode)} joins segments of {text!r} into "
            "other tokens than those of the segments; positions of roles would be wrong: use "
            "wording whose roles lie on token boundaries"
        )
    if END not in roles:
        roles, positions = [END, *roles], [len(first) + len(ids) - 1, *positions]
    return {
        "pair_id": draft.pair_id,
        "template": draft.template,
        "variant": draft.variant,
        "text": text,
        "token_ids": [*first, *ids],
        "n_tokens": len(first) + len(ids),
        "roles": roles,
        "positions": positions,
        "answer_token_ids": [single_token(encode, encoder, a, task) for a in draft.answers],
        "wrong_token_ids": [single_token(encode, encoder, a, task) for a in draft.wrong],
    }


def single_token(encode: Encode, encoder: SegmentEncoder, text: str, task: str) -> int:
    """Id of a text that must be one token where it follows other text; PromptError if not."""
    ids = encoder(text)
    if len(ids) != 1:
        raise PromptError(
            f"task {task}: the answer {text!r} is {len(ids)} tokens of the tokenizer "
            f"{tokenizer_name(encode)}; answers are read from one logit: use an answer that is one "
            "token, with its leading space if it has one"
        )
    return ids[0]


def single_token_words(
    encode: Encode,
    encoder: SegmentEncoder,
    words: Sequence[str],
    *,
    what: str,
    minimum: int,
) -> list[str]:
    """Words that are one token behind a space, in the order given; PromptError below `minimum`."""
    kept = [word for word in dict.fromkeys(words) if len(encoder(f" {word}")) == 1]
    if len(kept) < minimum:
        raise PromptError(
            f"only {len(kept)} of {len(set(words))} {what} are single tokens of the tokenizer "
            f"{tokenizer_name(encode)}; at least {minimum} are needed: pass others that its "
            "vocabulary holds as one token with a leading space"
        )
    return kept


def balanced_design(cells: Sequence[Choice], n: int, key: str) -> list[Choice]:
    """`n` cells in random order, their counts differing by at most one; `key` is the seed."""
    if n <= 0:
        raise PromptError(f"n is {n}; ask for at least one prompt")
    rng = random.Random(key)
    design: list[Choice] = []
    while len(design) < n:
        design += rng.sample(list(cells), len(cells))
    return design[:n]


# ---- checks --------------------------------------------------------------------------------------


def check_task_prompts(prompts: pl.DataFrame, *, need_answers: bool = True) -> pl.DataFrame:
    """`prompts` unchanged if it is a frame of TASK_PROMPTS_SCHEMA that can be used.

    need_answers: without, prompts may have neither answers nor wrong tokens: KL is defined then and
    nothing else. Raises PromptError that names the task and prompt: other columns or types, none at
    all, prompt numbers given twice in a task, token counts or positions that do not fit, a role
    given twice, no END at the last position, no answers, or a token that is both an answer and
    wrong.
    """
    if dict(prompts.schema) != TASK_PROMPTS_SCHEMA:
        raise PromptError(
            f"task prompts have columns {dict(prompts.schema)}; they are {TASK_PROMPTS_SCHEMA}"
        )
    if prompts.is_empty():
        raise PromptError("no task prompts; give at least one")
    if prompts.select("task", "prompt").is_duplicated().any():
        twice = prompts.filter(pl.struct("task", "prompt").is_duplicated()).row(0, named=True)
        raise PromptError(f"task {twice['task']} has two prompts numbered {twice['prompt']}")
    for row in prompts.iter_rows(named=True):
        if problem := _problem(row, need_answers):
            raise PromptError(f"task {row['task']}, prompt {row['prompt']}: {problem}")
    return prompts


def _problem(row: dict[str, object], need_answers: bool) -> str | None:
    ids, roles, positions = row["token_ids"], row["roles"], row["positions"]
    answers, wrong, length = row["answer_token_ids"], row["wrong_token_ids"], row["n_tokens"]
    assert isinstance(ids, list)
    assert isinstance(roles, list)
    assert isinstance(positions, list)
    assert isinstance(answers, list)
    assert isinstance(wrong, list)
    assert isinstance(length, int)
    if length != len(ids) or length < 1:
        return f"n_tokens is {length}, but {len(ids)} token ids are there; one at least"
    if len(roles) != len(positions) or len(set(roles)) != len(roles):
        return f"roles {roles} at {positions}: give every role once and one position each"
    if outside := [p for p in positions if not 0 <= p < length]:
        return f"position {outside[0]} of {roles} is outside 0..{length - 1}"
    if END not in roles or positions[roles.index(END)] != length - 1:
        return f"END must stand at the last position, {length - 1}; roles {roles} at {positions}"
    if not answers and (need_answers or wrong):
        return "it has no answer tokens; give at least one"
    if both := sorted(set(answers) & set(wrong)):
        return f"token {both[0]} is an answer and wrong; remove it from one"
    return None


def check_length(name: str, prompts: pl.DataFrame, n_ctx: int) -> pl.DataFrame:
    """`prompts` unchanged if the longest fits the context; else PromptError."""
    longest = int(prompts["n_tokens"].to_numpy().max())
    if longest > n_ctx:
        raise PromptError(
            f"task {name}: a prompt has {longest} tokens but the model's context is {n_ctx}"
        )
    return prompts


def check_pairs(prompts: pl.DataFrame) -> pl.DataFrame:
    """`prompts` unchanged if all prompts of a (task, pair_id) are equally long; else PromptError.

    Counterfactual prompts of equal length can be patched position by position.
    """
    lengths = prompts.group_by("task", "pair_id").agg(pl.col("n_tokens").unique().sort())
    if (uneven := lengths.filter(pl.col("n_tokens").list.len() > 1)).height:
        task, pair, found = uneven.sort("task", "pair_id").row(0)
        raise PromptError(
            f"task {task}, pair {pair}: its prompts have {found} tokens; variants of a pair must "
            "be equally long"
        )
    return prompts


# ---- other forms ---------------------------------------------------------------------------------


def from_ioi(prompts: pl.DataFrame) -> pl.DataFrame:
    """Table ioi_prompts in the common form, task "ioi", prompt numbers and order kept.

    The answer is IO and the wrong token S, of the row's own text; in S2_to_IO prompts, whose second
    clause has the IO name as subject, the other way round. ABC prompts have no answer: their
    direction, IO - S1, only gives their logits a number.
    """
    known = [(role, column) for role, column in ROLE_PRECEDENCE if column in prompts.columns]
    rows = []
    for row in prompts.iter_rows(named=True):
        here = [(role, row[column]) for role, column in known if row[column] is not None]
        answer, wrong = row["io_token_id"], row["s_token_id"]
        if row["variant"] == "S2_to_IO":
            answer, wrong = wrong, answer
        rows.append(
            {
                "task": IOI,
                **{name: row[name] for name in TASK_PROMPTS_SCHEMA if name in row},
                "roles": [role for role, _ in here],
                "positions": [position for _, position in here],
                "answer_token_ids": [answer],
                "wrong_token_ids": [wrong],
            }
        )
    return pl.DataFrame(rows, schema=TASK_PROMPTS_SCHEMA, orient="row")
