"""SAE evaluation: cases whose answer is known, and a slow reference."""

import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae import evaluation
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.evaluation import (
    DENSITY_BINS,
    density_counts,
    evaluate_layers,
    evaluate_reconstruction,
    evaluate_variants,
    loss_recovered,
)
from mechinterp_assets.sae.splicing import clean_pass, spliced_logits
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import polars_schema


@pytest.fixture(scope="module")
def token_ids(organism: LanguageModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, organism.config.d_vocab, (5, 24), generator=generator)
    ids[:, 0] = organism.bos_token_id
    ids[:, 12:] = ids[:, 1:13]  # repeats, so that the model's attention matters
    ids[2, 7] = organism.bos_token_id
    return ids


@pytest.fixture(scope="module")
def z(organism: LanguageModel, token_ids: Tensor) -> dict[int, Tensor]:
    valid = valid_positions(token_ids, organism.bos_token_id)
    return {layer: z[valid] for layer, z in capture_z(organism, token_ids).items()}


@pytest.fixture(scope="module")
def mean_z(z: dict[int, Tensor]) -> dict[int, Tensor]:
    return {layer: value.mean(0) for layer, value in z.items()}


def _constant(b_dec: Tensor) -> StandardSAE:
    """x_hat = b_dec for every input."""
    d = len(b_dec)
    return StandardSAE(torch.zeros(d, 3), torch.zeros(3), torch.zeros(3, d), b_dec)


def _identity(d: int) -> StandardSAE:
    """x_hat = relu(x) - relu(-x) = x: 2d features, of which at most d are active."""
    eye = torch.eye(d)
    W_enc = torch.cat([eye, -eye], 1)
    return StandardSAE(W_enc, torch.zeros(2 * d), W_enc.T.contiguous(), torch.zeros(d))


def _evaluate(
    model: LanguageModel,
    sae: SparseAutoencoder,
    token_ids: Tensor,
    mean_z: dict[int, Tensor],
    layer: int,
) -> dict[str, float]:
    frame = evaluate_layers(model, {layer: sae}, token_ids, mean_z, batch_size=2)
    return frame.row(0, named=True)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_perfect_sae_recovers_everything(
    organism: LanguageModel, token_ids: Tensor, mean_z: dict[int, Tensor], layer: int
) -> None:
    row = _evaluate(organism, _identity(organism.config.d_z), token_ids, mean_z, layer)
    assert row["ce_recovered"] in (pytest.approx(1.0, abs=1e-4), None)
    assert row["ce_spliced"] == pytest.approx(row["ce_clean"], abs=1e-6)
    assert row["kl"] == pytest.approx(0, abs=1e-6)
    assert row["kl_recovered"] == pytest.approx(1, abs=1e-4)
    assert row["explained_variance"] == pytest.approx(1)
    assert row["fvu"] == pytest.approx(0, abs=1e-9)
    assert row["reconstruction_cosine"] == pytest.approx(1)
    assert row["shrinkage"] == pytest.approx(1)
    assert row["l0"] <= organism.config.d_z


@pytest.mark.parametrize("layer", [0, 2])
def test_a_zero_sae_is_zero_ablation(
    organism: LanguageModel, token_ids: Tensor, mean_z: dict[int, Tensor], layer: int
) -> None:
    zero = _constant(torch.zeros(organism.config.d_z))
    row = _evaluate(organism, zero, token_ids, mean_z, layer)
    assert row["ce_spliced"] == row["ce_zero"]
    assert row["kl"] == row["kl_zero"] > 0
    assert row["kl_recovered"] == 0
    assert row["ce_recovered"] in (0.0, None)
    assert row["dead_fraction"] == 1.0
    assert row["l0"] == row["shrinkage"] == row["explained_variance"] == 0.0


@pytest.mark.parametrize("layer", [0, 2])
def test_a_constant_mean_sae_is_mean_ablation(
    organism: LanguageModel, token_ids: Tensor, mean_z: dict[int, Tensor], layer: int
) -> None:
    row = _evaluate(organism, _constant(mean_z[layer]), token_ids, mean_z, layer)
    assert row["ce_spliced"] == row["ce_mean"]
    assert row["kl"] == row["kl_mean"] > 0
    assert row["kl_recovered_mean"] == 0
    assert row["ce_recovered_mean"] in (0.0, None)
    assert row["explained_variance"] == pytest.approx(0, abs=1e-9)
    assert row["fvu"] == pytest.approx(1, abs=1e-5)


def test_some_layer_has_a_defined_loss_recovered(
    organism: LanguageModel, token_ids: Tensor, mean_z: dict[int, Tensor]
) -> None:
    """The tests above are empty where ablation does not raise the loss: somewhere it must."""
    identity = _identity(organism.config.d_z)
    frame = evaluate_layers(organism, {0: identity, 2: identity}, token_ids, mean_z)
    assert frame["ce_recovered"].is_not_null().any()
    assert frame.schema == polars_schema(table_spec("sae_evaluation"))
    assert frame["layer"].to_list() == [0, 2]
    assert frame["ce_clean"].n_unique() == 1


def test_cross_entropy_and_kl_equal_a_bridge_reference(
    organism: LanguageModel, token_ids: Tensor, mean_z: dict[int, Tensor]
) -> None:
    """The same numbers from TransformerBridge hooks, position by position, in a plain loop."""
    layer = 1
    generator = torch.Generator().manual_seed(5)
    d = organism.config.d_z
    W = torch.randn(d, 40, generator=generator) / d**0.5
    sae = StandardSAE(W, torch.zeros(40), W.T.contiguous(), mean_z[layer])
    row = _evaluate(organism, sae, token_ids, mean_z, layer)
    bridge = organism.raw
    valid = valid_positions(token_ids, organism.bos_token_id)

    def splice(z: Tensor, hook: object) -> Tensor:
        flat = z.reshape(*z.shape[:2], -1).clone()
        for b in range(flat.shape[0]):
            for t in range(flat.shape[1]):
                if valid[b, t]:
                    flat[b, t] = sae(flat[b, t][None])[0]
        return flat.view_as(z)

    with torch.no_grad():
        clean = bridge(token_ids).double().log_softmax(-1)
        spliced = (
            bridge.run_with_hooks(token_ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", splice)])
            .double()
            .log_softmax(-1)
        )
    ce = {"ce_clean": 0.0, "ce_spliced": 0.0}
    kl, n = 0.0, 0
    for b in range(len(token_ids)):
        for t in range(1, token_ids.shape[1]):
            if token_ids[b, t] == organism.bos_token_id:
                continue
            p, q = clean[b, t], spliced[b, t]
            kl += float((p.exp() * (p - q)).sum())
            if t + 1 < token_ids.shape[1]:
                target = int(token_ids[b, t + 1])
                ce["ce_clean"] -= float(p[target])
                ce["ce_spliced"] -= float(q[target])
                n += 1
    assert row["n_predictions"] == n
    assert row["n_tokens"] == int(valid.sum())
    assert row["kl"] == pytest.approx(kl / row["n_tokens"], rel=2e-4)
    for name, total in ce.items():
        assert row[name] == pytest.approx(total / n, rel=2e-4), name


@pytest.mark.parametrize("layer", [0, 1, 4])
def test_a_pass_that_starts_at_its_layer_equals_a_whole_pass(
    organism: LanguageModel, token_ids: Tensor, layer: int
) -> None:
    valid = valid_positions(token_ids, organism.bos_token_id)
    rows = torch.randn(int(valid.sum()), organism.config.d_z)
    clean = clean_pass(organism, [layer], token_ids, valid)

    def replace(z: Tensor) -> Tensor:
        z = z.clone()
        z[valid] = rows
        return z

    with torch.no_grad(), organism.replaced_z(layer, replace):
        whole = organism.hf(input_ids=token_ids).logits[valid]
    assert torch.equal(spliced_logits(organism, clean, layer, rows), whole)
    with torch.no_grad():
        again = organism.hf(input_ids=token_ids).logits[valid]
    assert torch.equal(clean.logits, again), "the model is as it was"


def test_a_pass_that_starts_at_its_layer_in_a_rotary_model(stories: LanguageModel) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, stories.config.d_vocab, (2, 12), generator=generator)
    where = torch.ones_like(ids, dtype=torch.bool)
    for layer in (1, stories.config.n_layers - 1):
        clean = clean_pass(stories, [layer], ids, where)
        assert clean.before
        same = spliced_logits(stories, clean, layer, clean.z[layer])
        assert torch.equal(same, clean.logits)


def test_variants_of_a_layer_equal_each_evaluated_alone(
    organism: LanguageModel, token_ids: Tensor, mean_z: dict[int, Tensor]
) -> None:
    d = organism.config.d_z
    saes = {
        3: {"mean": _constant(mean_z[3]), "identity": _identity(d)},
        1: {"zero": _constant(torch.zeros(d))},
    }
    together = evaluate_variants(organism, saes, token_ids, mean_z, batch_size=2)
    assert together.select("layer", "name").rows() == [(1, "zero"), (3, "mean"), (3, "identity")]
    for row in together.iter_rows(named=True):
        sae = saes[row["layer"]][row.pop("name")]
        assert row == _evaluate(organism, sae, token_ids, mean_z, row["layer"])


def test_density_bins_hold_their_lower_edge() -> None:
    counts = density_counts(torch.tensor([0.0, 1.0, 0.1, 0.0999, 10**-0.25 + 1e-9, 1e-9]))
    assert len(counts) == DENSITY_BINS == 32
    filled = {i: n for i, n in enumerate(counts) if n}
    # 1 and 10^-0.25 in the last bin, 0.1 from its edge, 0.0999 below it, 1e-9 in the first
    assert filled == {31: 2, 28: 1, 27: 1, 0: 1}


def test_explained_variance_of_a_planted_residual() -> None:
    """Inputs with variance 4 in each of 6 dimensions, reconstructed with error variance 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 6, generator=generator) * 2 + 5
    error = torch.randn(40_000, 6, generator=generator)

    class Off(StandardSAE):
        def decode(self, activations: Tensor) -> Tensor:
            return x - error - 0.5

    sae = Off(torch.ones(6, 2), torch.zeros(2), torch.ones(2, 6), torch.zeros(6))
    measures = evaluate_reconstruction(sae, x, batch_size=len(x))
    assert measures["explained_variance"] == pytest.approx(0.75, abs=0.01)
    # the constant error of 0.5 counts in mse and fvu, not in explained variance
    assert measures["mse"] == pytest.approx(1.25, abs=0.02)
    assert measures["fvu"] == pytest.approx(1.25 / 4, abs=0.01)


def test_measures_equal_a_float64_reference_in_any_batching() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(101, 6, generator=generator) + 3
    sae = StandardSAE(
        torch.randn(6, 9, generator=generator),
        torch.randn(9, generator=generator) - 4,
        torch.randn(9, 6, generator=generator),
        torch.randn(6, generator=generator),
    )
    measures = evaluate_reconstruction(sae, x, batch_size=10)
    f, x_hat = sae.encode(x), sae(x).double()
    x = x.double()
    r = x - x_hat
    expected = {
        "n_tokens": 101,
        "l0": float((f > 0).sum(1).double().mean()),
        "explained_variance": 1 - float(r.var(0).sum() / x.var(0).sum()),
        "reconstruction_cosine": float(torch.nn.functional.cosine_similarity(x, x_hat).mean()),
        "mse": float(r.square().mean()),
        "dead_fraction": float(((f > 0).sum(0) == 0).double().mean()),
        "shrinkage": float((x_hat.norm(dim=1) / x.norm(dim=1)).mean()),
    }
    for name, value in expected.items():
        assert measures[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("batch_size", [7, 700, 4000])
def test_outliers_are_told_apart_in_any_batching(batch_size: int) -> None:
    """3 of 2,500 rows are left out, wherever they come: against a slow float64 reference."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2500, 6, generator=generator) + 1
    x[[3, 1200, 2499]] *= torch.tensor([40.0, 90.0, 60.0])[:, None]
    W = torch.randn(6, 9, generator=generator)
    sae = StandardSAE(W, torch.full((9,), -1.0), W.T.contiguous() / 3, torch.zeros(6))
    measures = evaluate_reconstruction(sae, x, batch_size=batch_size)
    r, x = x.double() - sae(x).double(), x.double()
    largest = set(x.norm(dim=1).sort(descending=True).indices[:3].tolist())
    assert largest == {3, 1200, 2499}
    rest = [i for i in range(len(x)) if i not in largest]
    away, loss = (x - x.mean(0)).square().sum(1), r.square().sum(1)
    expected = {
        "typical_explained_variance": 1 - r[rest].var(0).sum() / x[rest].var(0).sum(),
        "outlier_variance_share": away[list(largest)].sum() / away.sum(),
        "outlier_loss_share": loss[list(largest)].sum() / loss.sum(),
    }
    for name, value in expected.items():
        assert measures[name] == pytest.approx(float(value), rel=1e-6), name
    assert expected["outlier_variance_share"] > 0.4  # else the rows above were no outliers


def test_rows_that_vary_in_outliers_alone_have_no_typical_variance() -> None:
    x = torch.ones(1000, 4)
    x[5] = 7.0
    sae = _constant(torch.ones(4))
    measures = evaluate_reconstruction(sae, x)
    assert measures["typical_explained_variance"] is None
    assert measures["outlier_variance_share"] == pytest.approx(0.999)
    assert measures["outlier_loss_share"] == 1.0
    assert evaluate_reconstruction(_identity(4), torch.ones(1, 4))["outlier_loss_share"] is None


def test_a_few_ruling_tokens_are_warned_of(
    organism: LanguageModel,
    token_ids: Tensor,
    mean_z: dict[int, Tensor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An SAE that is right but for one feature, which one token in a hundred has."""
    identity = _identity(organism.config.d_z)
    evaluate_layers(organism, {2: identity}, token_ids, mean_z)
    assert caplog.messages == []

    class Ruled(StandardSAE):
        def decode(self, activations: Tensor) -> Tensor:
            x_hat = super().decode(activations)
            x_hat[x_hat.norm(dim=1).argmax()] *= 1.5
            return x_hat

    ruled = Ruled(identity.W_enc, identity.b_enc, identity.W_dec, identity.b_dec)
    evaluate_layers(organism, {2: ruled}, token_ids, mean_z)
    assert len(caplog.messages) == 1
    assert "SAE of layer 2: the 0.1% of tokens with the largest norm carry" in caplog.text
    assert "100% of the loss" in caplog.text


def test_loss_recovered_is_undefined_where_ablation_does_no_harm() -> None:
    assert loss_recovered(1.0, 1.5, 2.0) == 0.5
    assert loss_recovered(1.0, 1.5, 1.0) is None
    assert loss_recovered(1.0, 1.5, 0.9) is None


def test_what_does_not_fit_the_model_is_refused(
    organism: LanguageModel, token_ids: Tensor, mean_z: dict[int, Tensor]
) -> None:
    d = organism.config.d_z
    with pytest.raises(SaeError, match=f"d_in {d + 1}"):
        evaluate_layers(organism, {0: _identity(d + 1)}, token_ids, mean_z)
    with pytest.raises(SaeError, match="mean_z of layer 0"):
        evaluate_layers(organism, {0: _identity(d)}, token_ids, {})
    with pytest.raises(SaeError, match="sequences of 2 positions"):
        evaluate_layers(organism, {0: _identity(d)}, token_ids[:, :2], mean_z)


def test_hooks_are_gone_after_an_evaluation(
    organism: LanguageModel, token_ids: Tensor, mean_z: dict[int, Tensor]
) -> None:
    frame = evaluate_layers(organism, {1: _constant(mean_z[1])}, token_ids[:1], mean_z)
    assert isinstance(frame, pl.DataFrame)
    assert not organism.output_projection(1)._forward_pre_hooks


def test_dead_by_both_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature that fires late is dead by its first tokens, not by all; blocks do not matter."""
    eye = torch.eye(3)
    sae = StandardSAE(eye, torch.zeros(3), eye.clone(), torch.zeros(3))
    rows = torch.zeros(12, 3)
    rows[1, 0] = rows[9, 1] = 1.0
    monkeypatch.setattr(evaluation, "DEAD_TOKENS", 9)
    for size in (12, 5, 1):
        sums = evaluation.ReconstructionSums(3, 3, 12)
        for block in torch.split(rows, size):
            sums.add(sae, block)
        found = sums.measures()
        assert found["dead_fraction"] == pytest.approx(1 / 3)
        assert found["dead_fraction_100k"] == pytest.approx(2 / 3)
    monkeypatch.setattr(evaluation, "DEAD_TOKENS", 13)
    few = evaluation.ReconstructionSums(3, 3, 12)
    few.add(sae, rows)
    assert few.measures()["dead_fraction_100k"] is None
