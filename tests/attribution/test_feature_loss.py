"""Loss without a feature: a slow reference in float64 on two architectures, classes by hand, shares
and their intervals."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mechinterp_assets.attribution import feature_loss as module
from mechinterp_assets.attribution.feature_loss import (
    FEATURE_LOSS_SCHEMA,
    POSITION_CLASSES,
    AblatedFeature,
    _classes,
    _share_intervals,
    _sums,
    feature_loss,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.statistics.clopper_pearson import clopper_pearson
from tests.attribution.random_models import saes_of
from tests.statistics.clustered_reference import share_interval

LAYER, PROMOTED = 1, 3


def token_ids(model: LanguageModel, n: int = 5) -> Tensor:
    ids = torch.randint(1, 6, (n, 12), generator=torch.Generator().manual_seed(4))
    ids[:, 0] = model.bos_token_id
    ids[1, 7] = model.bos_token_id  # a document ends within a sequence
    return ids


def slow_losses(
    model: LanguageModel, sae: SparseAutoencoder, ids: list[int], feature: int
) -> tuple[list[float], list[float], list[float]]:
    """Cross-entropy of each prediction of one sequence, clean and without the feature, and f."""
    tokens = torch.tensor([ids])
    active: list[float] = [0.0] * len(ids)

    def without(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        for position in range(1, len(ids)):
            if ids[position] == model.bos_token_id:
                continue
            x = z[0, position].flatten()
            f = float(sae.encode(x[None])[0, feature])
            active[position] = f
            z[0, position] = (x - f * sae.W_dec[feature]).view_as(z[0, position])
        return z

    clean = model.raw(tokens)[0].double()
    name = f"blocks.{LAYER}.attn.hook_z"
    edited = model.raw.run_with_hooks(tokens, fwd_hooks=[(name, without)])[0].double()
    found = []
    for logits in (clean, edited):
        losses = []
        for position in range(len(ids) - 1):
            row = logits[position].tolist()
            largest = max(row)
            normalizer = largest + np.log(sum(np.exp(value - largest) for value in row))
            losses.append(float(normalizer - row[ids[position + 1]]))
        found.append(losses)
    return found[0], found[1], active


def slow_class(ids: list[int], position: int) -> str:
    if ids[position + 1] != PROMOTED:
        return "other"
    for earlier in range(position):
        if ids[earlier] == ids[position] and ids[earlier + 1] == PROMOTED:
            return "due_by_induction"
    return "due"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_against_a_slow_reference(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    sae, ids = saes_of(model)[LAYER], token_ids(model)
    monkeypatch.setattr(module, "LOGIT_BYTES", 2 * 4 * model.config.d_vocab * ids.shape[1])
    _, cache = model.raw.run_with_cache(ids)
    f = sae.encode(cache[f"blocks.{LAYER}.attn.hook_z"][:, 1:].flatten(2).flatten(0, 1))
    features = f.sum(0).topk(2).indices.tolist()
    frame = feature_loss(
        model,
        sae,
        LAYER,
        [AblatedFeature(feature, PROMOTED, ids, 9, "induction") for feature in features],
    )
    assert frame.schema == FEATURE_LOSS_SCHEMA
    assert frame["forward_passes"].unique().to_list() == [2 * len(ids)]
    some_rise = 0
    for feature in features:
        expected = {kind: [0, 0, 0.0, 0.0] for kind in POSITION_CLASSES}
        for sequence in ids.tolist():
            clean, edited, active = slow_losses(model, sae, sequence, feature)
            for position in range(1, len(sequence) - 1):
                if sequence[position] == model.bos_token_id:
                    continue
                row = expected[slow_class(sequence, position)]
                change = edited[position] - clean[position]
                row[0] += 1
                row[1] += active[position] > 0
                row[2 if change > 0 else 3] += abs(change)
        whole = sum(row[2] for row in expected.values())
        some_rise += whole > 1e-3
        for kind, (n, n_active, rise, fall) in expected.items():
            (row,) = frame.filter(feature=feature, position_class=kind).to_dicts()
            assert (row["n"], row["n_active"]) == (n, n_active)
            # The pass keeps logits in float32: 2^-24 of logits of size 1 for each prediction.
            assert row["loss_increase"] == pytest.approx(rise, abs=1e-5)
            assert row["loss_decrease"] == pytest.approx(fall, abs=1e-5)
            assert row["increase_share"] == pytest.approx(rise / whole, abs=1e-4)
    assert some_rise == len(features)
    assert set(frame.filter(frame["n"] > 0)["position_class"]) == set(POSITION_CLASSES)


def test_classes_by_hand() -> None:
    #     B is 3: after 1 (first time: due; again: by induction), after 2 due alone
    ids = torch.tensor([[0, 1, 3, 1, 3, 2, 3, 1, 4]])
    names = [POSITION_CLASSES[i] for i in _classes(ids, 3)[0].tolist()]
    # the last 1 expects 3 by induction, and 4 comes
    expected = {1: "due", 3: "due_by_induction", 5: "due"}
    assert names == [expected.get(position, "other") for position in range(9)]


def test_a_feature_that_writes_nothing_changes_nothing(gpt2: LanguageModel) -> None:
    sae, ids = saes_of(gpt2)[LAYER], token_ids(gpt2)
    with torch.no_grad():
        sae.W_dec[2] = 0
    frame = feature_loss(gpt2, sae, LAYER, [AblatedFeature(2, PROMOTED, ids, 5, "activation")])
    for column in ("loss_increase", "loss_decrease"):
        # z of a model in float64 passes through float32
        assert frame[column].to_list() == pytest.approx([0, 0, 0], abs=1e-5)


def test_sums_are_by_document(gpt2: LanguageModel) -> None:
    """One document over two sequences is one cluster, and two in one sequence are two."""
    sae, ids = saes_of(gpt2)[LAYER], token_ids(gpt2)
    documents = np.repeat(np.array([[0, 0], [0, 1], [2, 2], [3, 3], [3, 3]]), [8, 4], axis=1)
    whole = AblatedFeature(2, PROMOTED, ids, 9, "activation")
    of_documents = AblatedFeature(2, PROMOTED, ids, 9, "activation", documents)
    by_sequence, by_document = (_sums(gpt2, sae, LAYER, one) for one in (whole, of_documents))
    # The BOS at 7 of sequence 1 ends document 0: its predictions behind that are document 1's.
    last = AblatedFeature(2, PROMOTED, ids[1:2], 9, "activation", documents[1:2])
    first, second = _sums(gpt2, sae, LAYER, last)
    np.testing.assert_allclose(by_document[0], by_sequence[0] + first, atol=1e-6)
    np.testing.assert_allclose(by_document[1], second, atol=1e-6)
    np.testing.assert_allclose(by_document[2], by_sequence[2], atol=1e-6)
    np.testing.assert_allclose(by_document[3], by_sequence[3:].sum(0), atol=1e-6)
    assert second[:, 0].sum() == 3  # predictions from 8, 9 and 10
    frame = feature_loss(gpt2, sae, LAYER, [of_documents])
    assert frame["n_documents"].unique().to_list() == [4]


def test_where_no_loss_rises_there_is_no_share() -> None:
    assert _share_intervals(np.zeros((4, 3)), 0.0) == ([None] * 3, [None] * 3)


def test_intervals_are_over_documents() -> None:
    """However many tokens rise, documents count; where all agree, as many as there are."""
    low, high = _share_intervals(np.array([[1.0, 0, 0], [0, 0, 1.0]] * 3), 0.01)
    assert float(low[0] or 0) < 0.2
    assert float(high[0] or 0) > 0.8
    low, high = _share_intervals(np.array([[3.0, 0, 0]] * 6), 0.01)
    assert (high[0], low[1]) == (1.0, 0.0)
    assert low[0] == pytest.approx(clopper_pearson(6, 6)[0])
    random = np.random.default_rng(0)
    rise = random.exponential(size=(9, 3)) * random.integers(0, 2, (9, 1))
    squares = float((rise**2).sum())
    low, high = _share_intervals(rise, squares)
    for kind in range(3):
        clusters = [(float(row[kind]), float(row.sum())) for row in rise]
        expected = share_interval(clusters, float(rise.sum()) ** 2 / squares)
        assert (low[kind], high[kind]) == pytest.approx(expected, abs=1e-9)
    assert _share_intervals(np.array([[1.0, 2, 3]]), 14.0) == ([None] * 3, [None] * 3)
