"""The recipe: what the model reads, how it trains, that a cut-off training continues exactly."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mechinterp_assets.corpora.structured import NAMES, is_held_out_pair
from mechinterp_assets.corpora.words import word_list
from mechinterp_assets.organism.evaluate import Organism, name_pairs
from mechinterp_assets.organism.recipe import (
    Recipe,
    Trainer,
    next_token_loss,
    prepare,
    save_model,
    sinusoidal_positions,
    train,
)
from mechinterp_assets.organism.training_data import (
    END_OF_TEXT_ID,
    IGNORED,
    TrainingData,
    holds_held_out_pair,
    is_held_out_title,
    names_in,
    natural_texts,
    pack_natural,
    pack_structured,
    structured_texts,
)

TINY = Recipe(
    layers=2,
    heads=2,
    d_model=32,
    context=48,
    vocabulary=1200,
    batch_size=8,
    minutes=None,
    steps=60,
    warm_up_steps=5,
    structured_documents=800,
    natural_passages=50,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty invented books of three passages."""
    words = word_list("the old sea was calm and the small boat sailed along under a grey sky")
    rng = np.random.default_rng(0)
    rows = [
        {"title": f"Book {i}", "text": " ".join(rng.choice(words, 200))}
        for i in range(20)
        for _ in range(3)
    ]
    path = tmp_path_factory.mktemp("corpus") / "texts.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tokenizer and the packed sequences of the tiny recipe."""
    output = tmp_path_factory.mktemp("prepared")
    prepare(corpus, output, TINY)
    return output


@pytest.fixture(scope="module")
def data(corpus: Path, folder: Path) -> TrainingData:
    return prepare(corpus, folder, TINY)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_tokenizer_is_lossless_and_names_are_single_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == END_OF_TEXT_ID
    assert all(len(tokenizer.encode(f" {name}")) == 1 for name in NAMES)
    text = "Émile said: “12 + 7 = 19”\n\tsee pic.twitter.com/aBc9"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_titles_are_held_out_whole_and_by_a_fixed_rule(corpus: Path) -> None:
    frame = pl.read_parquet(corpus)
    train_texts, held_out = (natural_texts(frame, flag, 1000) for flag in (False, True))
    assert len(train_texts) + len(held_out) == len(frame)
    assert not set(train_texts) & set(held_out)
    share = np.mean([is_held_out_title(f"Title {i}") for i in range(5000)])
    assert share == pytest.approx(0.02, abs=0.01)


def test_a_corpus_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no column 'text'"):
        natural_texts(pl.DataFrame({"body": ["x"]}), False, 10)


def test_natural_sequences_with_a_held_out_pair_are_dropped(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    a, b = name_pairs()[0]
    c = next(n for n in NAMES if n != a and not is_held_out_pair(a, n))
    filler = " and so it went on and on" * 40
    for first, second, kept in ((a, c, True), (a, b, False), (a.upper(), f'"{b}', False)):
        text = f"Once {first} met {second} there{filler}"
        dropped = len(pack_natural(tokenizer, [text], 48, False)) - len(
            pack_natural(tokenizer, [text], 48)
        )
        assert dropped == (0 if kept else 1), (first, second)


def test_no_packed_sequence_holds_a_held_out_pair(
    data: TrainingData, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert len(data.structured) > 100
    for row in data.structured:
        assert not holds_held_out_pair(names_in(tokenizer.decode(row)))


def test_structured_sequences_start_at_a_document(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = structured_texts(400, 1)
    starts = {tuple(tokenizer.encode(text)[:5]) for text in texts}
    for row in pack_structured(tokenizer, texts, 48):
        assert row[0] == END_OF_TEXT_ID
        first = tuple(row[1:6].tolist())
        first = first[: first.index(END_OF_TEXT_ID)] if END_OF_TEXT_ID in first else first
        assert first in {s[: len(first)] for s in starts}


def test_repeated_sequences_teach_only_what_was_said_before(data: TrainingData) -> None:
    learnt = 0
    for seed in range(100):
        tokens, known = data._repeated(np.random.default_rng(seed))
        assert tokens.shape == known.shape == (48,)
        assert tokens[0] == END_OF_TEXT_ID
        assert len(set(tokens.tolist()) & set(data.name_ids)) <= 1
        learnt += known.sum()
        for i in np.flatnonzero(known):
            assert (tokens[i - 1], tokens[i]) in pairwise(tokens[:i])
    assert learnt > 1000


def test_batches_follow_the_curriculum_and_the_step_alone(data: TrainingData) -> None:
    first, again, other = data.batch(7, 0.5, 16), data.batch(7, 0.5, 16), data.batch(8, 0.5, 16)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    natural = {row.tobytes() for row in data.natural.astype(np.int64)}

    def shares(progress: float) -> tuple[float, float]:
        batches = [data.batch(step, progress, 64) for step in range(20)]
        tokens, targets = (np.concatenate(part) for part in zip(*batches, strict=True))
        whole = (targets != IGNORED).all(axis=1)
        assert np.array_equal(targets[whole], tokens[whole])
        return float(np.mean([row.tobytes() in natural for row in tokens])), 1 - whole.mean()

    for progress, mix in ((0.0, data.curriculum[0]), (1.0, data.curriculum[-1])):
        assert shares(progress) == pytest.approx((mix.natural, mix.repeated), abs=0.04)


def test_position_embeddings_start_as_one_rotation_per_step() -> None:
    table = sinusoidal_positions(48, 32, rms=0.06)
    assert table.square().mean().sqrt().item() == pytest.approx(0.06, rel=1e-4)
    step = torch.linalg.lstsq(table[1:], table[:-1]).solution
    assert torch.allclose(table[1:] @ step, table[:-1], atol=1e-4)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_loss_falls(data: TrainingData, optimizer: str) -> None:
    trainer = Trainer.start(replace(TINY, optimizer=optimizer), data)
    losses = [trainer.train_step() for _ in range(60)]
    assert losses[0] == pytest.approx(np.log(data.vocabulary), abs=0.3)
    assert np.mean(losses[-5:]) < losses[0] - 1


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_resumed_training_continues_exactly(
    data: TrainingData, optimizer: str, tmp_path: Path
) -> None:
    recipe = replace(TINY, optimizer=optimizer)
    through = Trainer.start(recipe, data)
    expected = [through.train_step() for _ in range(8)]
    first = Trainer.start(recipe, data)
    losses = [first.train_step() for _ in range(4)]
    first.save_checkpoint(tmp_path)
    second = Trainer.start(recipe, data)
    second.load_checkpoint(tmp_path)
    assert second.step == 4
    losses += [second.train_step() for _ in range(4)]
    assert losses == expected
    for ours, theirs in zip(second.model.parameters(), through.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_saved_model_computes_what_the_trained_one_does(
    data: TrainingData, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trainer = Trainer.start(TINY, data)
    for _ in range(10):
        trainer.train_step()
    save_model(trainer.model, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = Organism.load(tmp_path).model
    assert loaded.config.activation_function == "gelu_new"
    tokens = torch.from_numpy(data.batch(0, 1.0, 4)[0])
    with torch.no_grad():
        expected = next_token_loss(trainer.model, tokens).item()
        assert next_token_loss(loaded, tokens).item() == pytest.approx(expected, abs=2e-3)


def test_the_whole_recipe_writes_a_model_and_stops_when_it_is_done(
    corpus: Path, tmp_path: Path
) -> None:
    recipe = replace(TINY, steps=3, structured_documents=300)
    model = train(corpus, tmp_path, recipe)
    again = train(corpus, tmp_path, recipe)
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert Organism.load(tmp_path).model.config.n_layer == TINY.layers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 5, "minutes": 1.0}, "exactly one"),
        ({"steps": None, "minutes": None}, "exactly one"),
        ({"heads": 3}, "not a multiple"),
        ({"optimizer": "sgd"}, "choose 'muon' or 'adamw'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **settings)


def test_learning_rate_warms_up_and_decays() -> None:
    assert TINY.learning_rate_factor(0, 0.0) == pytest.approx(0.2)
    assert TINY.learning_rate_factor(30, 0.5) == pytest.approx(1.0)
    assert TINY.learning_rate_factor(60, 1.0) == pytest.approx(TINY.final_learning_rate)
