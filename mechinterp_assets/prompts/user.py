"""Tasks that a user gives: texts, with answers and wrong answers where there are any.

Belongs here: reading and checking them, and bringing them into the common form. Does not belong
here: tasks that the platform makes itself (a file each).

Answers are read from one position, END: of an answer of several tokens the first is scored. A task
without answers has no loss, but what changes the next token's distribution can still be measured
(KL), so that heads have an importance on any text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mechinterp_assets.files.csv_reader import MAX_BYTES, csv_records
from mechinterp_assets.files.json_lines import json_lines
from mechinterp_assets.files.parquet_reader import parquet_columns, parquet_rows
from mechinterp_assets.files.regular_file import FileError, read_text
from mechinterp_assets.prompts.common import BASE, END, TASK_PROMPTS_SCHEMA, check_task_prompts
from mechinterp_assets.prompts.ioi import Encode, PromptError

COLUMNS = ("text", "answer", "wrong")
SUFFIXES = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class Example:
    """One prompt: `text` up to the answer, `answer` and `wrong` as they follow it, with spaces.

    answer None: the prompt has none, and then no wrong ones.
    """

    text: str
    answer: str | None = None
    wrong: tuple[str, ...] = ()


def read_examples(path: Path) -> list[Example]:
    """Rows of a CSV, Parquet or JSONL file with columns text and, if it likes, answer and wrong.

    Texts are taken as they stand, spaces included. `wrong` is one text or, in Parquet and JSONL, a
    list. Raises PromptError naming file and row.
    """
    if path.suffix not in SUFFIXES:
        raise PromptError(f"{path}: not a file of prompts; name a file ending in {SUFFIXES}")
    try:
        columns, rows = _READERS[path.suffix](path)
    except FileError as error:
        raise PromptError(str(error)) from None
    if "text" not in columns:
        raise PromptError(f"{path}: no column 'text'; it has {columns}")
    if foreign := [name for name in columns if name not in COLUMNS]:
        raise PromptError(f"{path}: unknown column {foreign[0]!r}; known: {', '.join(COLUMNS)}")
    examples = []
    for place, row in rows:
        try:
            examples.append(_example(row, has_answers="answer" in columns))
        except PromptError as error:
            raise PromptError(f"{place}: {error}") from None
    return examples


def own_task(
    name: str, examples: Sequence[Example], encode: Encode, bos_token_id: int | None, n_ctx: int
) -> pl.DataFrame:
    """The examples as TASK_PROMPTS_SCHEMA: one base prompt each, END its only role.

    Either all examples have an answer or none has. Raises PromptError, one line for every problem:
    no examples; an empty text or answer; an answer missing; a text given twice; an answer that is
    not cut off from its text by the tokenizer; an answer and a wrong one that begin with the same
    token; a prompt longer than the model's context.
    """
    if not examples:
        raise PromptError(f"task {name}: no prompts; give at least one")
    rows: list[dict[str, object]] = []
    problems: list[str] = []
    without = [example.answer is None for example in examples]
    seen: dict[str, int] = {}
    for number, example in enumerate(examples):
        try:
            if example.text in seen:
                raise PromptError(
                    f"the text {example.text!r} is that of prompt {seen[example.text]}"
                )
            seen[example.text] = number
            if without[number] and not all(without):
                raise PromptError(
                    f"the text {example.text!r} has no answer while others have one; give it, or "
                    "make a task of the texts without answers"
                )
            row = _row(example, encode, bos_token_id, n_ctx)
        except PromptError as error:
            problems.append(f"task {name}, prompt {number}: {error}")
            continue
        rows.append({"task": name, "prompt": number, "pair_id": number, **row})
    if problems:
        raise PromptError("\n".join(problems))
    frame = pl.DataFrame(rows, schema=TASK_PROMPTS_SCHEMA, orient="row")
    return check_task_prompts(frame, need_answers=not all(without))


# ---- private -------------------------------------------------------------------------------------


_Rows = tuple[list[str], list[tuple[str, Mapping[str, object]]]]
"""Columns, and each row with its place."""


def _csv(path: Path) -> _Rows:
    columns, records = csv_records(path, read_text(path, "a CSV file", MAX_BYTES))
    return columns, [(f"{path}:{line}", cells) for line, cells in records]


def _jsonl(path: Path) -> _Rows:
    rows: list[tuple[str, Mapping[str, object]]] = []
    columns: dict[str, None] = {}
    for number, row in json_lines(path):
        if isinstance(row, FileError):
            raise row
        columns |= dict.fromkeys(row)
        rows.append((f"{path}:{number}", row))
    return list(columns), rows


def _parquet(path: Path) -> _Rows:
    columns = list(parquet_columns(path))
    rows = enumerate(parquet_rows(path, columns), 1)
    return columns, [(f"{path} row {number}", row) for number, row in rows]


_READERS: dict[str, Callable[[Path], _Rows]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _jsonl,
}


def _example(row: Mapping[str, object], has_answers: bool) -> Example:
    wrong = row.get("wrong")
    listed = wrong if isinstance(wrong, list) else [] if wrong in (None, "", b"") else [wrong]
    text, answer, *others = (_text(cell) for cell in (row.get("text"), row.get("answer"), *listed))
    # A file without the column has no answers; an empty cell of one that has it is a mistake.
    return Example(text, answer if has_answers else None, tuple(others))


def _text(cell: object) -> str:
    """The text of a cell, "" for none. Raises PromptError for what is no text."""
    if cell is None:
        return ""
    if not isinstance(cell, str | bytes):
        raise PromptError(f"{cell!r} is no text; text, answer and wrong are strings")
    try:
        # The way through bytes finds half characters in a str too.
        return (cell.encode() if isinstance(cell, str) else cell).decode()
    except UnicodeError:
        raise PromptError(f"{cell!r} is not Unicode; write it in UTF-8, characters whole") from None


def _row(
    example: Example, encode: Encode, bos_token_id: int | None, n_ctx: int
) -> dict[str, object]:
    if not example.text or example.answer == "" or "" in example.wrong:
        raise PromptError(
            f"empty text, answer or wrong answer in {example}; give each, or leave wrong out"
        )
    if example.answer is None and example.wrong:
        raise PromptError(f"wrong answers without an answer in {example}; give the answer too")
    ids = list(encode(example.text))
    answer = None
    if example.answer is not None:
        answer = _first_token(example.text, ids, example.answer, encode)
    wrong = {_first_token(example.text, ids, text, encode): text for text in example.wrong}
    if answer in wrong:
        raise PromptError(
            f"the answer {example.answer!r} and the wrong answer {wrong[answer]!r} begin with the "
            "same token, and the first token is what is scored; give answers that differ in it"
        )
    whole = [*([] if bos_token_id is None else [bos_token_id]), *ids]
    if len(whole) > n_ctx:
        bos = "" if bos_token_id is None else " with BOS"
        raise PromptError(
            f"{len(whole)} tokens{bos}, but the model's context is {n_ctx}; shorten the text"
        )
    return {
        "template": 0,
        "variant": BASE,
        "text": example.text,
        "token_ids": whole,
        "n_tokens": len(whole),
        "roles": [END],
        "positions": [len(whole) - 1],
        "answer_token_ids": [] if answer is None else [answer],
        "wrong_token_ids": list(wrong),
    }


def _first_token(text: str, ids: Sequence[int], answer: str, encode: Encode) -> int:
    """First token of `answer` behind `text`, which must keep its own tokens there."""
    joined = list(encode(text + answer))
    if joined[: len(ids)] == list(ids) and len(joined) > len(ids):
        return joined[len(ids)]
    remedy = "end the text at the end of a word and begin the answer with what separates them"
    if text[-1].isspace():
        remedy = f"move the space from the text to the answer: {' ' + answer.lstrip()!r}"
    elif not answer[0].isspace():
        remedy = f"if it is a new word, give it its leading space: {' ' + answer!r}"
    raise PromptError(
        f"the tokens of {text!r} change when {answer!r} follows, so the answer is not what the "
        f"model would write next; {remedy}"
    )
