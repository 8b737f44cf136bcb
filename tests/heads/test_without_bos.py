"""Studies whose sequences begin with text: the same statistics, at the same positions."""

import polars as pl
import pytest
import torch

from mechinterp_assets.circuits.baseline import ioi_baseline
from mechinterp_assets.heads.datasets import (
    DatasetError,
    random_tokens,
    repeated_random_tokens,
    text_windows,
)
from mechinterp_assets.heads.prefix_corpus import prefix_corpus
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.heads.sinks import sink_datasets, sinks
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.families import family_prompts
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.prompts.roles import position_roles
from mechinterp_assets.tasks.head_effects import random_prompts


@pytest.fixture(scope="module")
def without(organism: LanguageModel) -> LanguageModel:
    return LanguageModel.load(organism.source, bos="none")


def test_random_tokens_have_one_more_in_the_place_of_bos(
    organism: LanguageModel, without: LanguageModel
) -> None:
    for make in (
        lambda model: random_tokens(model, n_sequences=6, length=20, seed=3),
        lambda model: repeated_random_tokens(model, n_sequences=6, period=9, seed=3),
    ):
        with_bos, text = make(organism), make(without)
        assert torch.equal(with_bos.token_ids[:, 1:], text.token_ids[:, 1:])
        first = text.token_ids[:, :1]
        assert not bool((first == text.token_ids[:, 1:]).any())
        assert set(first.flatten().tolist()) <= set(without.ordinary_ids)
        assert (with_bos.token_ids[:, 0] == 0).all()
        assert with_bos.name.endswith("after <|endoftext|>")
        assert text.name.endswith("without BOS")


def test_text_may_begin_with_any_token(organism: LanguageModel, without: LanguageModel) -> None:
    text = repeated_random_tokens(without, n_sequences=3, period=12, seed=0).token_ids
    assert torch.equal(text_windows(without, text, length=20, name="t").token_ids, text[:, :20])
    with pytest.raises(DatasetError, match=r"must start with BOS .*bos='none'"):
        text_windows(organism, text, length=20, name="t")
    frame = prefix_corpus(without, text, text_name="t").frame
    assert frame["n"].sum() > 0


def test_sinks_are_seen_both_ways_whatever_the_study_begins_with(
    organism: LanguageModel, without: LanguageModel
) -> None:
    settings = HeadSettings(sequences=4, repeat_length=10, sink_length=20)
    text = repeated_random_tokens(organism, n_sequences=4, period=12, seed=5).token_ids
    found = []
    for model, ids in ((organism, text), (without, text)):
        found.append(sinks(model, sink_datasets(model, settings, ids, "t")).attention_sinks)
    for frame in found:
        assert frame["with_bos"].unique().sort().to_list() == [False, True]
    assert found[0].drop("dataset").equals(found[1].drop("dataset"))


def test_prompts_are_those_with_bos_one_position_earlier(
    organism: LanguageModel, without: LanguageModel
) -> None:
    assert without.first_token_id is None
    variants = ("base", "ABC", "filler_before")
    bos, text = (
        ioi_prompts(organism.encode, 10, 0, model.first_token_id, variants)
        for model in (organism, without)
    )
    assert bos.select(pl.col("token_ids").list.slice(1)).equals(text.select("token_ids"))
    for name in [c for c in bos.columns if c.startswith("pos_")]:
        assert (bos[name] - text[name]).drop_nulls().unique().to_list() == [1]
    assert (bos["n_tokens"] - text["n_tokens"]).unique().to_list() == [1]
    roles_of_bos, roles = position_roles(bos), position_roles(text, after_bos=False)
    assert [row[1:] for row in roles_of_bos] == roles
    assert {row[0] for row in roles_of_bos} == {"BOS"}

    bos, text = (
        family_prompts(None, organism.encode, 6, 0, model.first_token_id).prompts
        for model in (organism, without)
    )
    assert bos.select(pl.col("token_ids").list.slice(1)).equals(text.select("token_ids"))
    moved = bos.select(pl.col("positions").list.eval(pl.element() - 1))
    assert moved.equals(text.select("positions"))

    random = random_prompts(without, text, 8, 0)
    assert all(set(ids) <= set(without.ordinary_ids) for ids in random["token_ids"].to_list())
    assert random["n_tokens"].to_list() == [len(ids) for ids in random["token_ids"].to_list()]


def test_the_baseline_says_what_its_prompts_begin_with(
    organism: LanguageModel, without: LanguageModel
) -> None:
    for model, token in ((organism, "<|endoftext|>"), (without, None)):
        prompts = ioi_prompts(model.encode, 4, 0, model.first_token_id, ("base",))
        found = ioi_baseline(model, prompts)
        assert found["bos_token"].to_list() == [token] * 4
