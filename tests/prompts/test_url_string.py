"""Strings behind an address: tokens of the text, nothing to copy, whether a model knows them."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import PromptError
from mechinterp_assets.prompts.url_string import unknown_form, url_string_prompts
from mechinterp_assets.tasks.baseline import task_baseline


@pytest.fixture(scope="module")
def prompts(organism: LanguageModel) -> pl.DataFrame:
    return url_string_prompts(organism.encode, 24, 0, organism.first_token_id)


def test_the_answer_goes_on_with_a_string_that_is_nowhere_in_the_prompt(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    strings, shown = organism.token_strings(), set()
    for row in prompts.iter_rows(named=True):
        (answer,) = row["answer_token_ids"]
        where = dict(zip(row["roles"], row["positions"], strict=True))
        assert strings[row["token_ids"][where["SLASH"]]] == "/"
        own = "".join(strings[i] for i in row["token_ids"][where["SLASH"] + 1 :])
        assert re.fullmatch("[A-Za-z0-9]+", own)
        assert answer not in row["token_ids"]
        assert re.fullmatch("[A-Za-z0-9]+", strings[answer])
        assert (" pic.twitter.com/" in row["text"]) == (row["variant"] == "base")
        # Tokens of the whole text are those of the prompt and the answer.
        ids = [organism.first_token_id, *organism.encode(row["text"] + strings[answer])]
        assert ids == [*row["token_ids"], answer]
        shown.add(row["n_tokens"] - 1 - where["SLASH"])
    assert shown == {1, 2, 3}
    assert prompts["wrong_token_ids"].list.len().sum() == 0


def test_a_pair_differs_in_the_address_alone(prompts: pl.DataFrame) -> None:
    for (_,), pair in prompts.group_by("pair_id"):
        base, corrupt = pair.sort("variant").iter_rows(named=True)
        assert base["answer_token_ids"] == corrupt["answer_token_ids"]
        where = dict(zip(base["roles"], base["positions"], strict=True))
        span = range(where["ADDRESS"], where["SLASH"])
        for at, (a, b) in enumerate(zip(base["token_ids"], corrupt["token_ids"], strict=True)):
            assert at in span or a == b


def _losses(differences: list[float]) -> pl.DataFrame:
    n = len(differences)
    base = {"pair_id": range(n), "variant": ["base"] * n, "loss": [3 + d for d in differences]}
    other = {"pair_id": range(n), "variant": ["corrupt"] * n, "loss": [3.0] * n}
    return pl.concat([pl.DataFrame(base), pl.DataFrame(other)])


def test_a_model_knows_the_form_where_the_loss_is_surely_lower() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=40)
    noise -= noise.mean()
    assert unknown_form(_losses([-1 + 0.1 * x for x in noise]), 0) is None
    for nothing in ([0.0] * 40, [-0.05 + x for x in noise], [0.4] * 40, [-1.0]):
        reason = unknown_form(_losses(nothing), 0)
        assert reason is not None
        assert f"({len(nothing)} pairs)" in reason


def test_a_tokenizer_that_joins_strings_with_the_address_is_refused() -> None:
    letters = {chr(i): i for i in range(256)}
    with pytest.raises(PromptError, match="words are single tokens"):
        url_string_prompts(lambda text: [letters[c] for c in text], 4, 0, None)


def test_a_model_of_the_web_knows_the_form(smollm2_folder: Path) -> None:
    model = LanguageModel.load(smollm2_folder)
    own = url_string_prompts(model.encode, 48, 0, model.first_token_id)
    losses = task_baseline(model, own).join(own.select("prompt", "pair_id"), on="prompt")
    assert unknown_form(losses, 0) is None
