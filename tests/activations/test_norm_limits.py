"""Tokens left out by name or by the length of their z: of the cache, of training, of features."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.activations.cache import ActivationReader, valid_positions, write_shards
from mechinterp_assets.activations.forward_rows import ForwardRows
from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.activations.norm_limits import NORM_SEQUENCES, norm_limits
from mechinterp_assets.activations.outliers import row_norms
from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.evaluation import evaluate_layers

LAYERS = [1, 3]
MULTIPLE = 1.3  # so that some tokens of the embedded model are outliers


@pytest.fixture(scope="module")
def excluding(organism: LanguageModel) -> LanguageModel:
    return LanguageModel.load(organism.source, exclude_tokens=(" the", "."))


@pytest.fixture(scope="module")
def token_ids(organism: LanguageModel) -> torch.Tensor:
    text = "Mary gave the book to John. Then the cat sat on the mat. " * 3
    ids = [[0, *organism.encode(f"{i} {text}")[:30]] for i in range(20)]
    return torch.tensor(ids)


def test_named_tokens_are_left_out(excluding: LanguageModel, token_ids: torch.Tensor) -> None:
    the, stop = (excluding.encode(text)[0] for text in (" the", "."))
    assert excluding.left_out_ids == (0, *sorted((the, stop)))
    valid = valid_positions(token_ids, excluding.left_out_ids)
    for row, ids in zip(valid.tolist(), token_ids.tolist(), strict=True):
        assert row == [p > 0 and t not in (0, the, stop) for p, t in enumerate(ids)]
    assert valid.sum() < valid_positions(token_ids, 0).sum()


def test_a_name_may_be_a_piece_and_must_be_a_token(organism: LanguageModel) -> None:
    def named(*names: str) -> tuple[int, ...]:
        return LanguageModel.load(organism.source, exclude_tokens=names).left_out_ids

    assert named("Ġthe") == named(" the") == (0, organism.encode(" the")[0])
    assert named("<|endoftext|>") == (0,)
    with pytest.raises(ModelError, match=r"activations\.exclude_tokens: 'no such' is no token"):
        named("no such")


def test_the_limit_is_a_multiple_of_the_median(
    excluding: LanguageModel, token_ids: torch.Tensor
) -> None:
    limits = norm_limits(excluding, token_ids, LAYERS, MULTIPLE, batch_size=7)
    z = capture_z(excluding, token_ids[:NORM_SEQUENCES], LAYERS)
    valid = valid_positions(token_ids, excluding.left_out_ids)
    for layer in LAYERS:
        norms = np.sort(z[layer].double().norm(dim=-1)[valid].numpy())
        assert limits[layer] == pytest.approx(MULTIPLE * norms[(len(norms) - 1) // 2], rel=1e-5)
    assert norm_limits(excluding, token_ids, LAYERS, None) == {}


def test_rows_that_are_too_long_are_stored_counted_and_left_out(
    excluding: LanguageModel, token_ids: torch.Tensor, tmp_path: Path
) -> None:
    limits = norm_limits(excluding, token_ids, LAYERS, MULTIPLE)
    train = torch.arange(len(token_ids)) % 4 > 0
    folders = {layer: tmp_path / str(layer) for layer in LAYERS}
    made = write_shards(
        excluding,
        token_ids,
        folders,
        dtype=torch.float32,
        sequences_per_shard=8,
        batch_size=3,
        first_sequence=100,
        statistics_from=train,
        norm_limits=limits,
    )
    z = capture_z(excluding, token_ids, LAYERS)
    valid = valid_positions(token_ids, excluding.left_out_ids)
    for layer in LAYERS:
        outlier = valid & (row_norms(z[layer]) > limits[layer])
        assert 0 < outlier.sum() < valid.sum() / 2
        reader = ActivationReader(folders[layer])
        assert torch.equal(reader.valid, valid & ~outlier)
        assert reader.n_rows == made[layer].cache["n_tokens"].sum()
        rows = z[layer][valid & ~outlier & train[:, None]]
        statistics = made[layer].statistics
        assert statistics["n_tokens"].unique().to_list() == [len(rows)]
        assert statistics["n_outliers"][0] == int((outlier & train[:, None]).sum())
        assert statistics["norm_limit"][0] == limits[layer]
        mean = torch.tensor(statistics["mean_z"].to_list()).flatten()
        torch.testing.assert_close(mean.float(), rows.mean(0), rtol=1e-4, atol=1e-5)
        frame = made[layer].outliers
        place = outlier.nonzero()
        assert frame["sequence"].to_list() == (place[:, 0] + 100).tolist()
        assert frame["position"].to_list() == place[:, 1].tolist()
        assert frame["token_id"].to_list() == token_ids[outlier].tolist()
        np.testing.assert_allclose(frame["norm"], row_norms(z[layer])[outlier], rtol=1e-5)
        # What features are compared with counts the same tokens.
        corpus = pl.DataFrame({"sequence": np.arange(100, 120), "token_ids": token_ids.tolist()})
        tokens = CorpusTokens.of_pass(
            corpus,
            left_out=excluding.left_out_ids,
            n_tokens=reader.n_rows,
            outliers=frame.select("sequence", "position"),
        )
        assert tokens.read.tolist() == (valid & ~outlier).flatten().tolist()


def test_training_from_forward_passes_sees_no_row_that_is_too_long(
    excluding: LanguageModel, token_ids: torch.Tensor
) -> None:
    limits = norm_limits(excluding, token_ids, LAYERS, MULTIPLE)
    rows = ForwardRows(
        excluding,
        token_ids,
        LAYERS,
        seed=0,
        buffer_rows=10**6,
        dtype=torch.float32,
        norm_limits=limits,
    )
    plain = ForwardRows(excluding, token_ids, LAYERS, seed=0, buffer_rows=10**6)
    assert rows.identity != plain.identity
    z = capture_z(excluding, token_ids, LAYERS)
    kept = valid_positions(token_ids, excluding.left_out_ids)
    n_valid = int(kept.sum())
    for layer in LAYERS:
        kept &= row_norms(z[layer]) <= limits[layer]
    n = int(kept.sum())
    given = rows.next(n)
    assert rows.n_outliers == n_valid - n > 0
    for layer in LAYERS:
        wanted = z[layer][kept]
        torch.testing.assert_close(given[layer].sum(0), wanted.sum(0), rtol=1e-4, atol=1e-3)
        assert float(row_norms(given[layer]).max()) <= limits[layer]


def test_evaluation_leaves_out_what_is_named(
    excluding: LanguageModel, token_ids: torch.Tensor
) -> None:
    d = excluding.config.d_z
    sae = StandardSAE(torch.zeros(d, 3), torch.zeros(3), torch.zeros(3, d), torch.zeros(d))
    frame = evaluate_layers(excluding, {1: sae}, token_ids, {1: torch.zeros(d)})
    valid = valid_positions(token_ids, excluding.left_out_ids)
    assert frame["n_tokens"].to_list() == [int(valid.sum())]
    assert frame["n_predictions"].to_list() == [int(valid[:, :-1].sum())]
