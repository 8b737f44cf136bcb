"""What is particular to an architecture: selection, thresholds, gates, prefixes, its settings."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from sae_reference import (
    OWN_SETTINGS,
    Planted,
    batch_topk_activations,
    recovered,
    small_settings,
    with_use,
)
from torch import Tensor

from mechinterp_assets.activations.rows import TensorRows
from mechinterp_assets.sae.architectures.batchtopk import BatchTopKStep, largest_of_batch
from mechinterp_assets.sae.architectures.gated import GatedSAE
from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.evaluation import evaluate_reconstruction
from mechinterp_assets.sae.registry import sae_class, training_step_class
from mechinterp_assets.sae.settings import ARCHITECTURE_SETTINGS, SaeSettings
from mechinterp_assets.sae.steps import TrainingStep
from mechinterp_assets.sae.train import train
from mechinterp_assets.sae.traits import architecture_names, traits_of
from mechinterp_assets.settings.messages import messages_of

D_IN, D_SAE = 12, 20


def _step(settings: SaeSettings, seed: int = 0) -> TrainingStep:
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(settings.d_sae, D_IN, generator=generator, dtype=torch.float64)
    decoder /= decoder.norm(dim=1, keepdim=True)
    b_dec = torch.randn(D_IN, generator=generator, dtype=torch.float64)
    return training_step_class(settings.architecture)(settings, decoder, b_dec)


def _rows(n: int = 40, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D_IN, generator=generator, dtype=torch.float64) * 2


# ---- BatchTopK: selection and threshold ----------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 100, 1000, 3999, 4000, 10_000])
@pytest.mark.parametrize("n", [3, 200])
def test_the_largest_of_a_batch_are_those_of_a_full_sort(n: int, count: int) -> None:
    pre = torch.randn(n, 50, generator=torch.Generator().manual_seed(count))
    pre[:, 0] += 3  # rows and features differ in size
    pre[0] *= 20
    rows, features, values = largest_of_batch(pre, count)
    dense = torch.zeros_like(pre)
    dense[rows, features] = values
    assert torch.equal(dense, batch_topk_activations(pre, count))
    assert torch.equal(torch.stack([rows, features], 1), dense.nonzero())


def test_a_sample_that_misleads_still_gives_the_exact_selection() -> None:
    """The rows that are sampled for a first guess hold all the large values, or none."""
    for large in (slice(None, None, 4), slice(1, None, 4)):
        pre = torch.rand(256, 30, generator=torch.Generator().manual_seed(0))
        pre[large] += 10
        for count in (500, 2500, 7000):
            _, _, values = largest_of_batch(pre, count)
            expected = pre.flatten().sort(descending=True).values[:count]
            assert torch.equal(values.sort(descending=True).values, expected)


def test_of_equal_values_the_first_are_kept() -> None:
    pre = torch.ones(4, 5)
    pre[3, 4] = 2
    rows, features, values = largest_of_batch(pre, 4)
    assert list(zip(rows.tolist(), features.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (3, 4),
    ]
    assert values.tolist() == [1, 1, 1, 2]


def test_a_float32_batch_is_selected_like_its_pre_activations() -> None:
    """The compiled kernels, where there are any, never form all pre-activations."""
    generator = torch.Generator().manual_seed(0)
    d_sae, d_in, n = 300, 32, 500
    decoder = torch.randn(d_sae, d_in, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    step = BatchTopKStep(
        SaeSettings(architecture="batchtopk", d_sae=d_sae, training_tokens=n, batch_size=n, k=5),
        decoder,
        torch.zeros(d_in),
    )
    x = torch.randn(n, d_in, generator=generator)
    x[::7] *= 5  # the sampled rows are larger than most
    for count in (100, 2500, 100_000):
        rows, features, values, _ = step.select(x, count)
        expected = largest_of_batch(step.encode_pre(x).detach(), count)
        same = torch.zeros(2, n, d_sae)
        same[0, rows, features], same[1, expected[0], expected[1]] = values, expected[2]
        torch.testing.assert_close(same[0], same[1], rtol=1e-5, atol=1e-5)


def test_nothing_positive_gives_no_entry_and_keeps_the_threshold() -> None:
    step = _step(small_settings("batchtopk"))
    assert isinstance(step, BatchTopKStep)
    step.gradients(_rows(), 1.0)
    before = step.threshold.clone()
    with torch.no_grad():
        step.b_enc.fill_(-1e3)
    sums = step.gradients(_rows(), 1.0)
    assert int(sums.n_active) == 0
    assert torch.equal(step.threshold, before)
    for name, parameter in step.parameters().items():
        assert parameter.grad is not None
        assert bool((parameter.grad == 0).all()) == (name != "b_dec")


def test_the_threshold_is_the_weighted_mean_of_the_smallest_kept_values() -> None:
    step = _step(small_settings("batchtopk"))
    assert isinstance(step, BatchTopKStep)
    assert float(step.threshold) == 0
    smallest = []
    for seed in range(5):
        x = _rows(seed=seed)
        pre = step.encode_pre(x - step.b_dec).detach()
        smallest.append(float(pre.flatten().sort(descending=True).values[3 * len(x) - 1]))
        step.gradients(x, 1.0)
    weights = torch.tensor([0.99 ** (4 - i) for i in range(5)], dtype=torch.float64)
    expected = (weights * torch.tensor(smallest, dtype=torch.float64)).sum() / weights.sum()
    torch.testing.assert_close(step.threshold, expected)
    sae = step.build(scale=2.0)
    assert isinstance(sae, JumpReLUSAE)
    torch.testing.assert_close(sae.threshold, (expected / 2).expand(D_SAE))


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka"])
def test_l0_of_the_trained_sae_is_close_to_k(architecture: str, planted: Planted) -> None:
    """On rows never seen in training, one by one, with the learnt threshold."""
    own: dict[str, Any] = {"group_sizes": (16, 64)} if architecture == "matryoshka" else {}
    settings = SaeSettings(
        architecture=architecture,
        d_sae=64,
        training_tokens=200_000,
        k=3,
        batch_size=256,
        learning_rate=3e-3,
        **own,
    )
    sae = train(TensorRows(planted.rows[:16_000], seed=0), settings).sae
    unseen = planted.rows[16_000:]
    l0 = torch.cat([sae.encode(row[None]) for row in unseen[:500]]).gt(0).sum(1).double().mean()
    assert float(l0) == pytest.approx(3, rel=0.05)
    assert evaluate_reconstruction(sae, unseen)["l0"] == pytest.approx(3, rel=0.03)


# ---- Matryoshka ----------------------------------------------------------------------------------


def test_one_prefix_is_batch_topk() -> None:
    nested = _step(small_settings("matryoshka", group_sizes=(D_SAE,)))
    plain = _step(small_settings("batchtopk"))
    for step in (nested, plain):
        step.gradients(_rows(), 1.0)
    for name, parameter in nested.parameters().items():
        torch.testing.assert_close(parameter.grad, plain.parameters()[name].grad)


def test_inner_prefixes_reconstruct_better_than_those_of_batch_topk(planted: Planted) -> None:
    common: dict[str, Any] = {
        "d_sae": 64,
        "training_tokens": 100_000,
        "k": 3,
        "batch_size": 256,
        "learning_rate": 3e-3,
    }

    def inner_error(settings: SaeSettings) -> float:
        sae = train(TensorRows(planted.rows, seed=0), settings).sae
        f = sae.encode(planted.rows)
        f[:, 16:] = 0
        return float((sae.decode(f) - planted.rows).square().sum(1).mean())

    plain = SaeSettings(architecture="batchtopk", **common)
    nested = plain.with_changes(architecture="matryoshka", group_sizes=(16, 64))
    assert inner_error(nested) < 0.9 * inner_error(plain)


# ---- JumpReLU ------------------------------------------------------------------------------------


def test_a_negative_threshold_acts_as_zero() -> None:
    W = torch.eye(2)
    sae = JumpReLUSAE(W, torch.zeros(2), W, torch.zeros(2), threshold=torch.tensor([-1.0, 0.5]))
    x = torch.tensor([[-0.5, 0.5], [0.1, 0.6]])
    torch.testing.assert_close(sae.encode(x), torch.tensor([[0.0, 0.0], [0.1, 0.6]]))


def test_only_the_threshold_feels_the_l0_penalty() -> None:
    gradients = []
    for l0 in (0.0, 5.0):
        step = _step(small_settings("jumprelu", l0_coefficient=l0))
        step.gradients(_rows(), 1.0)
        gradients.append({n: p.grad for n, p in step.parameters().items()})
    for name, without in gradients[0].items():
        assert without is not None
        with_penalty = gradients[1][name]
        assert with_penalty is not None
        assert torch.equal(without, with_penalty) == (name != "log_threshold")
        if name == "log_threshold":  # the penalty only ever raises thresholds
            assert (with_penalty <= without).all()


# ---- gated ---------------------------------------------------------------------------------------


def test_a_gated_sae_is_its_two_paths() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    W, W_dec, b_dec = draw(D_IN, D_SAE), draw(D_SAE, D_IN), draw(D_IN)
    b_gate, r_mag, b_mag = draw(D_SAE), draw(D_SAE), draw(D_SAE)
    sae = GatedSAE(W, b_gate, r_mag, b_mag, W_dec, b_dec)
    x = _rows(200)
    gate = (x - b_dec) @ W + b_gate
    magnitude = (x - b_dec) @ (W * r_mag.exp()) + b_mag
    torch.testing.assert_close(sae.encode(x), magnitude.relu() * (gate > 0))
    torch.testing.assert_close(sae.pre_activations(x), magnitude)
    moved = sae.to("cpu").encode(x)
    torch.testing.assert_close(moved, sae.encode(x))
    with pytest.raises(SaeError, match=r"b_mag has shape \(3,\)"):
        GatedSAE(W, b_gate, r_mag, b_mag[:3], W_dec, b_dec)


# ---- every architecture --------------------------------------------------------------------------


PLANTED: dict[str, dict[str, Any]] = {
    "batchtopk": {"k": 3},
    "matryoshka": {"k": 3, "group_sizes": (48, 64)},
    "jumprelu": {"l0_coefficient": 0.5},
    "gated": {"l1_coefficient": 3.0},
}


@pytest.mark.parametrize("architecture", list(PLANTED))
def test_a_planted_dictionary_is_found(architecture: str, planted: Planted) -> None:
    settings = SaeSettings(
        architecture=architecture,
        d_sae=64,
        training_tokens=400_000,
        batch_size=256,
        learning_rate=3e-3,
        dead_after_tokens=20_000,
        **with_use(architecture, resample_warmup_steps=100),
        **PLANTED[architecture],
    )
    result = train(TensorRows(planted.rows, seed=0), settings)
    assert recovered(result.sae.W_dec, planted.dictionary) > 0.95
    measures = evaluate_reconstruction(result.sae, planted.rows)
    assert isinstance(measures["explained_variance"], float)
    assert measures["explained_variance"] > 0.9
    assert measures["l0"] == pytest.approx(3, abs=0.6)  # what was planted


@pytest.mark.parametrize(
    ("architecture", "own"),
    [("standard", ()), ("gated", ("r_mag", "b_mag")), ("jumprelu", ("log_threshold",))],
)
def test_a_resampled_feature_starts_anew_in_every_parameter(
    architecture: str, own: tuple[str, ...]
) -> None:
    step = _step(small_settings(architecture, dead_after_tokens=10))
    start = step.initial_extra()
    step.gradients(_rows(), 1.0)
    step.apply(0.05)
    dead = torch.tensor([2, 3, 19])
    step.tokens_since_fired[:] = 0
    step.tokens_since_fired[dead] = 10
    before = {name: tensor.clone() for name, tensor in step.state_tensors().items()}
    assert traits_of(architecture).resamples
    assert step.resample(_rows(500, seed=4), torch.Generator().manual_seed(0)) == 3
    after = step.state_tensors()
    living = torch.ones(D_SAE, dtype=torch.bool).index_fill(0, dead, False)
    assert (after["b_enc"][dead] == 0).all()
    for name in own:
        assert torch.equal(after[name][dead], start[name][dead])
        assert not torch.equal(before[name][dead], start[name][dead])
    for name in ("encoder", "decoder", "b_enc", *own):
        assert torch.equal(after[name][living], before[name][living])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert (after[f"adam.{name}.{moment}"][dead] == 0).all()
    unit = after["decoder"][dead]
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert not step.dead().any()
    assert step.resample(_rows(), torch.Generator().manual_seed(0)) == 0


@pytest.mark.parametrize("architecture", architecture_names())
def test_dead_features_come_back(architecture: str, planted: Planted) -> None:
    """By resampling or aux-k: half the features start with a bias that keeps them silent."""
    resamples = traits_of(architecture).resamples

    def share_alive(**changes: object) -> float:
        settings = small_settings(
            architecture,
            **{
                **PLANTED.get(architecture, {}),
                "d_sae": 64,
                "training_tokens": 50_000,
                "batch_size": 256,
                "learning_rate": 3e-3,
                "dead_after_tokens": 5_000,
                **changes,
            },
        )
        generator = torch.Generator().manual_seed(0)
        decoder = torch.randn(64, 24, generator=generator)
        scale = (24 / float(planted.rows.var(0).sum())) ** 0.5
        step = training_step_class(architecture)(
            settings, decoder / decoder.norm(dim=1, keepdim=True), scale * planted.mean
        )
        with torch.no_grad():
            step.b_enc[:32] = -6.0 if resamples else -5.0
        stream = TensorRows(planted.rows, seed=0)
        for i in range(settings.steps):
            if resamples and i in settings.resample_steps:
                step.resample(scale * stream.sample(2000, i), generator)
            step.gradients(scale * stream.next(256), i / settings.steps)
            step.apply(settings.learning_rate)
        return 1 - float(step.dead()[:32].double().mean())

    neither = with_use(architecture, resample_at=(), auxk_coefficient=0.0)
    assert share_alive() > share_alive(**neither) + 0.3


@pytest.mark.parametrize("architecture", architecture_names())
def test_attribution_can_split_every_activation(architecture: str) -> None:
    """Pre-activations are W_enc^T x plus a constant, and an activation above 0 equals its own."""
    step = _step(small_settings(architecture))
    step.gradients(_rows(), 1.0)
    step.apply(0.05)
    sae, x = step.build(scale=1.0), _rows(seed=3)
    pre, f = sae.pre_activations(x), sae.encode(x)
    constant = sae.pre_activations(torch.zeros(1, D_IN, dtype=torch.float64))
    torch.testing.assert_close(pre, x @ sae.W_enc + constant)
    assert (f > 0).any()
    assert torch.equal(f[f > 0], pre[f > 0])
    rows, features, values = sae.encode_sparse(x)
    assert torch.equal(torch.stack([rows, features], 1), f.nonzero())
    assert torch.equal(values, f[rows, features])


@pytest.mark.parametrize("architecture", architecture_names())
def test_a_step_restored_from_its_state_goes_on_alike(architecture: str) -> None:
    settings = small_settings(architecture, dead_after_tokens=100)
    one, other = _step(settings), _step(settings, seed=1)
    for seed in range(3):
        one.gradients(_rows(seed=seed), 1.0)
        one.apply(0.01)
    other.load_state_tensors({n: t.clone() for n, t in one.state_tensors().items()})
    for step in (one, other):
        step.gradients(_rows(seed=9), 1.0)
        step.apply(0.01)
    for name, tensor in one.state_tensors().items():
        assert torch.equal(tensor, other.state_tensors()[name]), name
    for name, tensor in one.build(1.7).tensors().items():
        assert torch.equal(tensor, other.build(1.7).tensors()[name]), name


@pytest.mark.parametrize("architecture", architecture_names())
def test_settings_of_other_architectures_are_refused(architecture: str) -> None:
    kind, traits = training_step_class(architecture), traits_of(architecture)
    settings = small_settings(architecture)
    assert kind.sae_class is sae_class(architecture)
    assert kind.sae_class.architecture == architecture
    values = {
        "k": 2,
        "k_start": 4,
        "l1_coefficient": 1.0,
        "l0_coefficient": 1.0,
        "bandwidth": 0.1,
        "initial_threshold": 0.1,
        "group_sizes": (5, 20),
    }
    assert set(values) == set(ARCHITECTURE_SETTINGS)
    for name, value in values.items():
        if name in traits.needed + traits.optional_settings:
            assert getattr(settings.with_changes(**{name: value}), name) == value
        else:
            with pytest.raises(ValidationError, match=f"{architecture!r} has no {name}, got"):
                settings.with_changes(**{name: value})
    for name in traits.needed:
        with pytest.raises(ValidationError, match=f"{architecture!r} needs {name}"):
            settings.with_changes(**{name: None})
    assert set(OWN_SETTINGS[architecture]) >= set(traits.needed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_sizes": (5, 19)}, "last of them d_sae"),
        ({"group_sizes": (5, 5, 20)}, "rising widths"),
        ({"group_sizes": (0, 20)}, "group_sizes.0: Input should be greater than 0"),
        ({"group_sizes": ()}, "rising widths"),
        ({"k_start": 2}, "from k"),
        ({"k_start": 21}, "to d_sae"),
        ({"l0_coefficient": -1.0}, "l0_coefficient: Input should be greater than or equal to 0"),
        ({"l1_coefficient": float("nan")}, "l1_coefficient: Input should be a finite number"),
        ({"bandwidth": 0.0}, "bandwidth: Input should be greater than 0"),
        ({"initial_threshold": -0.1}, "initial_threshold: Input should be greater than 0"),
        ({"compute_dtype": "float16"}, "compute_dtype: Input should be 'auto', 'float32' or"),
        ({"sparsity_warmup": 1.5}, "sparsity_warmup: Input should be less than or equal to 1"),
        ({"k": True}, "k: True is not a number; write a number"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        small_settings("matryoshka").with_changes(**changes)
    assert message in messages_of(raised.value)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_k_falls_from_its_start(architecture: str) -> None:
    step = _step(small_settings(architecture, k=2, k_start=10, sparsity_warmup=0.5))
    assert [step.k_at(p) for p in (0.0, 0.125, 0.25, 0.5, 1.0)] == [10, 8, 6, 2, 2]
    with torch.no_grad():
        step.b_enc += 100  # every pre-activation is positive
    x = _rows()
    assert int(step.gradients(x, 0.25).n_active) == 6 * len(x)
    assert int(step.gradients(x, 1.0).n_active) == 2 * len(x)


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu"])
def test_the_penalty_warms_up(architecture: str) -> None:
    step = _step(small_settings(architecture, sparsity_warmup=0.5))
    whole = float(step.gradients(_rows(), 1.0).sparsity_loss)
    assert float(step.gradients(_rows(), 0.25).sparsity_loss) == pytest.approx(whole / 2)
    assert float(step.gradients(_rows(), 0.0).sparsity_loss) == 0


@pytest.mark.parametrize("architecture", architecture_names())
def test_bfloat16_changes_only_the_rounding_of_pre_activations(architecture: str) -> None:
    double = _step(small_settings(architecture))
    step = type(double)(
        small_settings(architecture, compute_dtype="bfloat16"),
        double.decoder.detach().float(),
        double.b_dec.detach().float(),
    )
    x = _rows().float()
    exact = (x - step.b_dec) @ step.encoder.T + step.b_enc
    rounded = step.encode_pre(x - step.b_dec)
    assert rounded.dtype == x.dtype
    assert 0 < (rounded - exact).abs().max() < 0.02 * exact.abs().max()
    sums = step.gradients(x, 1.0)
    assert torch.isfinite(sums.stacked()).all()
