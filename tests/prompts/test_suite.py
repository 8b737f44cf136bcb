"""Tasks of the platform on the embedded model's tokenizer, and tasks that a user gives."""

import json
from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.answers import AnswerTokens, answer_metrics
from mechinterp_assets.prompts.common import END, check_pairs, check_task_prompts
from mechinterp_assets.prompts.ioi import PromptError
from mechinterp_assets.prompts.suite import TASKS, TaskSuite, TaskTokenizer, task_suite
from mechinterp_assets.prompts.user import Example, own_task, read_examples
from mechinterp_assets.tasks.baseline import task_accuracy, task_baseline


@pytest.fixture(scope="module")
def tokenizer(organism: LanguageModel) -> TaskTokenizer:
    return TaskTokenizer(
        organism.encode,
        organism.bos_token_id,
        organism.token_strings(),
        organism.ordinary_ids,
        organism.config.n_ctx,
    )


@pytest.fixture(scope="module")
def suite(tokenizer: TaskTokenizer) -> TaskSuite:
    return task_suite(None, {}, tokenizer, 20, 0)


def roles(row: dict[str, object]) -> dict[str, int]:
    names, positions = row["roles"], row["positions"]
    assert isinstance(names, list)
    assert isinstance(positions, list)
    return dict(zip(names, positions, strict=True))


def test_every_task_is_made_in_pairs_of_equal_length(suite: TaskSuite) -> None:
    assert suite.skipped == {}
    assert set(suite.prompts["task"]) == set(TASKS)
    check_pairs(check_task_prompts(suite.prompts))
    for (_, _), pair in suite.prompts.group_by("task", "pair_id"):
        assert sorted(pair["variant"]) == ["base", "corrupt"]
        base, corrupt = pair.sort("variant").iter_rows(named=True)
        if base["task"] == "url_string":  # the same answer, behind words
            assert base["answer_token_ids"] == corrupt["answer_token_ids"]
            assert base["wrong_token_ids"] == corrupt["wrong_token_ids"] == []
            continue
        assert base["answer_token_ids"] == corrupt["wrong_token_ids"]
        assert base["wrong_token_ids"] == corrupt["answer_token_ids"]
    base = suite.prompts.filter(variant="base")
    assert base.select("task", "text").is_duplicated().sum() == 0


def test_answers_stand_where_their_roles_say(suite: TaskSuite, organism: LanguageModel) -> None:
    order = organism.token_strings()
    for row in suite.prompts.iter_rows(named=True):
        ids, at, (answer,) = row["token_ids"], roles(row), row["answer_token_ids"]
        task = row["task"]
        if task == "digit_copying":
            assert ids[at["FIRST_TOTAL"]] == ids[at["LAST_TOTAL"]] == answer
            assert int(order[ids[at["NUMBER"]]]) < int(order[answer])
        elif task == "url_string":
            assert answer not in ids
        elif task in ("url_completion", "induction"):
            assert ids[at["ANSWER"]] == answer
            assert ids.count(answer) == 1
        else:
            assert order[ids[at["LAST"]]] != order[answer]
        if task == "induction":
            assert ids[at["SOURCE"]] == ids[at[END]]
            assert at["ANSWER"] == at["SOURCE"] + 1


def test_successors_follow(suite: TaskSuite, organism: LanguageModel) -> None:
    rows = suite.prompts.filter(task="successor_lists")
    texts = dict(zip(rows["text"], rows["answer_token_ids"].list.first(), strict=True))
    following = {"1, 2, 3, 4,": " 5", "Monday, Tuesday, Wednesday, Thursday,": " Friday"}
    strings = organism.token_strings()
    for text, answer in texts.items():
        items = text.removeprefix("In order: ").replace(",", "").split()
        if items[0].isdigit():
            assert [int(i) - int(items[0]) for i in items] == [0, 1, 2, 3]
            assert int(strings[answer]) == int(items[3]) + 1
        known = following.get(text.removeprefix("In order: "))
        assert known is None or strings[answer] == known


def test_seeds_and_names_alone_decide(suite: TaskSuite, tokenizer: TaskTokenizer) -> None:
    alone = task_suite(["induction"], {}, tokenizer, 20, 0).prompts
    assert alone.equals(suite.prompts.filter(task="induction"))
    assert not alone.equals(task_suite(["induction"], {}, tokenizer, 20, 1).prompts)


def test_what_the_tokenizer_cannot_express(tokenizer: TaskTokenizer) -> None:
    """Letter by letter, no word is a token: tasks of words are left out, named ones too."""
    letters = TaskTokenizer(
        encode=lambda text: [ord(c) % 256 for c in text],
        bos_token_id=0,
        token_strings=[chr(i) for i in range(256)],
        ordinary_ids=range(1, 256),
        n_ctx=64,
    )
    built = task_suite(None, {}, letters, 4, 0)
    assert set(built.skipped) == {
        "digit_copying",
        "url_completion",
        "url_string",
        "successor_lists",
    }
    assert "single tokens" in built.skipped["url_completion"]
    assert set(built.prompts["task"]) == {"induction"}
    own = {"capitals": [Example("The capital of France is", " Paris", ())]}
    named = task_suite(["url_completion"], own, letters, 4, 0)
    assert named.prompts["task"].to_list() == ["capitals"]
    assert list(named.skipped) == ["url_completion"]
    own = {"capitals": [Example("x" * 100, "y", ())], "letters": [Example("ab", "c", ())]}
    built = task_suite([], own, letters, 4, 0)
    assert built.prompts["task"].to_list() == ["letters"]
    assert "capitals, prompt 0: " in built.skipped["capitals"]
    with pytest.raises(PromptError, match=r"unknown tasks \['ioi2'\]"):
        task_suite(["ioi2"], {}, tokenizer, 4, 0)
    short = TaskTokenizer(tokenizer.encode, 0, tokenizer.token_strings, tokenizer.ordinary_ids, 8)
    assert "the model's context is 8" in task_suite(None, {}, short, 4, 0).skipped["induction"]


def test_baseline(organism: LanguageModel, suite: TaskSuite) -> None:
    few = suite.prompts.group_by("task", maintain_order=True).head(4)
    baseline = task_baseline(organism, few, {"gone": "no words"})
    assert baseline.height == few.height + 1
    assert baseline.filter(task="gone").row(0, named=True)["skipped"] == "no words"
    assert baseline.filter(pl.col("is_top1") != (pl.col("answer_rank") == 1)).is_empty()
    accuracy = task_accuracy(baseline)
    assert accuracy["induction"] == accuracy["digit_copying"] == 1.0


def test_metrics_of_several_answers() -> None:
    import torch

    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]]))
    frame = pl.DataFrame(
        {"answer_token_ids": [[0, 2], [3]], "wrong_token_ids": [[3], []]},
        schema_overrides={"wrong_token_ids": pl.List(pl.Int32())},
    )
    found = answer_metrics(logits, AnswerTokens.of(frame, torch.device("cpu")), logits)
    assert found["prob"].tolist() == pytest.approx([0.4, 0.4])
    assert found["answer_rank"].tolist() == [2, 1]
    expected = float((logits[0, 0] + logits[0, 2]) / 2 - logits[0, 3])
    assert found["logit_diff"][0].item() == pytest.approx(expected)
    assert found["logit_diff"][1].isnan()
    assert found["kl"].abs().max() < 1e-12


def test_prompts_without_answers_have_no_loss(organism: LanguageModel) -> None:
    frame = own(organism, Example("The opposite of hot is"), Example("It is"))
    assert frame["answer_token_ids"].to_list() == [[], []]
    baseline = task_baseline(organism, frame)
    undefined = ["loss", "prob", "answer_rank", "logit_diff", "is_top1"]
    assert baseline.select(undefined).null_count().row(0) == (2,) * len(undefined)
    assert baseline["top_token_id"].null_count() == 0
    assert task_accuracy(baseline) == {}


# ---- the user's own ------------------------------------------------------------------------------


def own(organism: LanguageModel, *examples: Example) -> pl.DataFrame:
    return own_task("mine", examples, organism.encode, organism.bos_token_id, 128)


def test_own_task(organism: LanguageModel) -> None:
    frame = own(
        organism,
        Example("The opposite of hot is", " cold", (" old",)),
        Example("The opposite of old is", " young"),
        Example("The word is", " Mondayish"),
    )
    ids = frame["answer_token_ids"].to_list()
    assert ids[:2] == [organism.encode(" cold"), organism.encode(" young")]
    assert ids[2] == organism.encode(" Mondayish")[:1]  # the first token of several
    assert frame["roles"].to_list() == [[END]] * 3
    assert frame["positions"].list.first().to_list() == [n - 1 for n in frame["n_tokens"]]


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ((), "task mine: no prompts; give at least one"),
        (
            (Example("The opposite of hot is ", "cold"),),
            "task mine, prompt 0: the tokens of 'The opposite of hot is ' change when 'cold' "
            "follows, so the answer is not what the model would write next; move the space from "
            "the text to the answer: ' cold'",
        ),
        (
            (Example("It is Mon", "day"),),
            "task mine, prompt 0: the tokens of 'It is Mon' change when 'day' follows, "
            "so the answer is not what the model would write next; if it is a new word, give it "
            "its leading space: ' day'",
        ),
        (
            (Example("A", " b"), Example("A", " c")),
            "task mine, prompt 1: the text 'A' is that of prompt 0",
        ),
        ((Example("A", ""),), "task mine, prompt 0: empty text, answer or wrong answer in "),
        (
            (Example("It is", " Monday", (" Monday morning",)),),
            "task mine, prompt 0: the answer ' Monday' and the wrong answer ' Monday morning' begin"
            " with the same token, and the first token is what is scored; give answers that differ "
            "in it",
        ),
        (
            (Example("A", " b"), Example("C")),
            "task mine, prompt 1: the text 'C' has no answer while others have one; give it, or "
            "make a task of the texts without answers",
        ),
        ((Example("A", None, (" b",)),), "task mine, prompt 0: wrong answers without an answer in"),
        (
            (Example("and " * 127 + "and", " so"),),
            "task mine, prompt 0: 129 tokens with BOS, but the model's context is 128; shorten the "
            "text",
        ),
    ],
)
def test_own_task_errors(
    organism: LanguageModel, examples: tuple[Example, ...], message: str
) -> None:
    with pytest.raises(PromptError) as raised:
        own(organism, *examples)
    assert str(raised.value).startswith(message)


def test_own_task_names_every_problem(organism: LanguageModel) -> None:
    with pytest.raises(PromptError) as raised:
        own(organism, Example("A ", "b"), Example("C", " d"), Example("C", " e"))
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == [
        "task mine, prompt 0",
        "task mine, prompt 2",
    ]


def test_files_of_examples(tmp_path: Path) -> None:
    expected = [Example("It is", " so", (" no",)), Example("a, b,", " c")]
    csv = tmp_path / "a.csv"
    csv.write_text('text,answer,wrong\nIt is, so, no\n"a, b,", c,\n')
    assert read_examples(csv) == expected
    lines = tmp_path / "a.jsonl"
    rows = [{"text": e.text, "answer": e.answer, "wrong": list(e.wrong)} for e in expected]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_examples(lines) == expected
    parquet = tmp_path / "a.parquet"
    pl.DataFrame(rows).write_parquet(parquet)
    assert read_examples(parquet) == expected


def test_a_file_without_answers(tmp_path: Path) -> None:
    csv = tmp_path / "a.csv"
    csv.write_text("text\nIt is\nSo far\n")
    assert read_examples(csv) == [Example("It is"), Example("So far")]
    csv.write_text("text,answer\nIt is, so\nSo far,\n")
    # An empty cell is a mistake, which own_task refuses.
    assert read_examples(csv)[1] == Example("So far", "")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "not a file of prompts; name a file ending in"),
        ("a.csv", "prompt,answer\nA, b\n", r"no column 'text'; it has \['prompt', 'answer'\]"),
        ("a.csv", "text,reply\nA, b\n", "unknown column 'reply'; known: text, answer, wrong"),
        (
            "a.csv",
            "text,answer,note\nA, b,c\n",
            "unknown column 'note'; known: text, answer, wrong",
        ),
        ("a.jsonl", '{"text": "A", "answer": 3}\n', r"a\.jsonl:1: 3 is no text"),
        ("a.parquet", "PAR", "not a Parquet file, or damaged"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PromptError, match=message):
        read_examples(tmp_path / name)
