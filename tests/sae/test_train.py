"""The training loop: planted dictionaries, schedules, logs, resuming and errors."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import killed_training
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from sae_reference import Planted, recovered, small_settings, with_use
from torch.utils._python_dispatch import TorchDispatchMode

from mechinterp_assets.activations.forward_rows import ForwardRows
from mechinterp_assets.activations.rows import OneLayer, RowStream, TensorRows
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae import trainer as trainer_module
from mechinterp_assets.sae.bfloat16_speed import bfloat16_speed
from mechinterp_assets.sae.checkpoints import load_checkpoint
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.evaluation import evaluate_reconstruction
from mechinterp_assets.sae.memory import lockstep_bytes, training_bytes
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.train import Member, sae_row, train, train_together
from mechinterp_assets.sae.trainer import (
    Trainer,
    TrainingResult,
    geometric_median,
    learning_rate,
)
from mechinterp_assets.sae.traits import architecture_names
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import polars_schema
from tests.conftest import HANGS

STEPS = 200


@pytest.mark.parametrize(
    ("own", "least_explained", "most_active"),
    [
        ({"architecture": "topk", "k": 3}, 0.9, 3),
        # L1 shrinks activations, so less variance is explained
        ({"architecture": "standard", "l1_coefficient": 1.0, "resample_warmup_steps": 100}, 0.8, 8),
    ],
    ids=["topk", "standard"],
)
def test_a_planted_dictionary_is_found(
    planted: Planted, own: dict[str, Any], least_explained: float, most_active: float
) -> None:
    settings = SaeSettings(
        **own,
        d_sae=64,
        training_tokens=400_000,
        batch_size=256,
        learning_rate=3e-3,
        dead_after_tokens=20_000,
    )
    result = train(TensorRows(planted.rows, seed=0), settings)
    assert recovered(result.sae.W_dec, planted.dictionary) > 0.9
    measures = evaluate_reconstruction(result.sae, planted.rows)
    assert measures["explained_variance"] is not None
    assert measures["explained_variance"] > least_explained
    assert measures["l0"] is not None
    assert 1 < measures["l0"] <= most_active


OUTLIERS = 5


@pytest.fixture(scope="module")
def with_outliers(planted: Planted) -> torch.Tensor:
    """The planted rows; the first 5 of 20,000 are 200 times as long, in other directions."""
    rows = planted.rows.clone()
    directions = torch.randn(OUTLIERS, rows.shape[1], generator=torch.Generator().manual_seed(9))
    directions /= directions.norm(dim=1, keepdim=True)
    rows[:OUTLIERS] = 200 * rows.norm(dim=1).mean() * directions
    return rows


@pytest.mark.parametrize(
    "own",
    [
        {"architecture": "topk", "k": 3},
        {"architecture": "standard", "l1_coefficient": 1.0, "resample_warmup_steps": 20},
    ],
    ids=lambda own: own["architecture"],
)
def test_a_few_enormous_rows_change_nothing_for_the_others(
    planted: Planted,
    with_outliers: torch.Tensor,
    own: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the scale, nor what is explained, nor how many features live or are active."""
    settings = SaeSettings(
        **own,
        d_sae=64,
        training_tokens=100_000,
        batch_size=256,
        learning_rate=3e-3,
        dead_after_tokens=10_000,
    )
    clean, outliers = (
        train(TensorRows(rows, seed=0), settings) for rows in (planted.rows, with_outliers)
    )
    one, other = (
        evaluate_reconstruction(result.sae, planted.rows[OUTLIERS:]) for result in (clean, outliers)
    )
    assert outliers.info["input_scale"] == pytest.approx(clean.info["input_scale"], rel=1e-3)
    # runs this short differ by .02 with their rows; ruled by the five, L1 explains less than .1
    assert other["explained_variance"] == pytest.approx(one["explained_variance"], abs=0.03)
    assert other["l0"] == pytest.approx(one["l0"], rel=0.05)
    assert other["dead_fraction"] <= one["dead_fraction"] + 0.05
    found = [recovered(result.sae.W_dec, planted.dictionary) for result in (clean, outliers)]
    assert found[1] == pytest.approx(found[0], abs=0.03)
    # and it is said: here, row by row of the log, and in the evaluation
    assert (
        outliers.info["outlier_variance_share"] > 0.9 > 0.1 > clean.info["outlier_variance_share"]
    )
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "0.1% of sampled rows with the largest norm carry 97% of" in caplog.text
    assert clean.log["clipped_rows"].sum() == 0
    assert 0 < outliers.log["clipped_rows"].sum() <= OUTLIERS * 5
    everything = evaluate_reconstruction(outliers.sae, with_outliers)
    assert everything["outlier_variance_share"] > 0.9
    assert everything["typical_explained_variance"] == pytest.approx(
        other["explained_variance"], abs=0.005
    )


def test_without_the_limit_a_few_rows_rule(planted: Planted, with_outliers: torch.Tensor) -> None:
    """What the test above would see: the limit is what does it."""
    settings = SaeSettings(
        architecture="standard",
        l1_coefficient=1.0,
        d_sae=64,
        training_tokens=100_000,
        batch_size=256,
        learning_rate=3e-3,
        dead_after_tokens=20_000,
        max_row_norm=None,
    )
    sae = train(TensorRows(with_outliers, seed=0), settings).sae
    explained = evaluate_reconstruction(sae, planted.rows[OUTLIERS:])["explained_variance"]
    assert explained is not None
    assert explained < 0.5


def test_rows_are_drawn_in_to_the_limit_and_no_others_touched() -> None:
    rows = _rows("topk")
    trainer = Trainer(
        _settings("topk").with_changes(max_row_norm=2.0), 12, lambda n, seed: rows[: min(n, 900)]
    )
    x = rows[:200] * trainer._progress.scale
    centre, spread = trainer._centre.double(), trainer._progress.spread
    assert spread == pytest.approx(12**0.5)  # inputs are scaled to it
    x[7] = x[7] * 100
    x[8] = x[8] * 1e20  # its square is no float32
    before = x.clone()
    n = int(trainer._draw_in_(x))
    away = (before.double() - centre).norm(dim=1)
    outside = away > 2 * spread
    assert n == int(outside.sum()) >= 2
    assert torch.equal(x[~outside], before[~outside])
    torch.testing.assert_close(
        (x[outside].double() - centre).norm(dim=1)[2:], torch.full((n - 2,), 2 * spread).double()
    )
    direction = (before[7].double() - centre) / away[7]
    torch.testing.assert_close(x[7].double(), centre + 2 * spread * direction, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(x).all()


def test_features_are_not_resampled_to_outliers() -> None:
    """Rows of a large loss are drawn first: an outlier's would be, every time."""
    rows = torch.randn(3000, 12, generator=torch.Generator().manual_seed(3))
    rows[17] = 0
    rows[17, 4] = 300.0
    settings = _settings("standard").with_changes(dead_after_tokens=1)
    trainer = Trainer(settings, 12, lambda n, seed: rows)
    trainer._training.tokens_since_fired.fill_(10)
    trainer._resample()
    assert trainer._progress.resampled == settings.d_sae
    assert trainer._training.decoder[:, 4].abs().max() < 0.98


def _rows(architecture: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(900, 12, generator=generator) * 3 + 1


def _settings(architecture: str) -> SaeSettings:
    own: dict[str, Any] = {"k": 1}
    if architecture in ("standard", "gated"):
        own = {"l1_coefficient": 3.0}
    elif architecture == "jumprelu":
        own = {"l0_coefficient": 2.0}
    own |= with_use(architecture, resample_at=(0.25, 0.5, 0.75), resample_warmup_steps=20)
    return small_settings(
        architecture,
        **own,
        learning_rate=0.02,
        training_tokens=STEPS * 64,
        log_every=30,
        checkpoint_every=60,
        dead_after_tokens=128,
        sample_rows=300,
    )


class _Interrupted(Exception):
    pass


class _DyingRows(TensorRows):
    """A stream that fails at a given batch, as a killed process would stop there."""

    def __init__(self, rows: torch.Tensor, *, seed: int, dies_after: int) -> None:
        super().__init__(rows, seed=seed)
        self.left = dies_after

    def next(self, n: int) -> torch.Tensor:
        if self.left == 0:
            raise _Interrupted
        self.left -= 1
        return super().next(n)


def _assert_same(a: TrainingResult, b: TrainingResult) -> None:
    for name, tensor in a.sae.tensors().items():
        assert torch.equal(tensor, b.sae.tensors()[name]), name
    assert a.log.equals(b.log)


@pytest.mark.parametrize("architecture", architecture_names())
@pytest.mark.parametrize("dies_after", [30, 120, 155])
def test_an_interrupted_run_resumes_bit_for_bit(
    architecture: str, dies_after: int, tmp_path: Path
) -> None:
    settings, rows = _settings(architecture), _rows(architecture)
    whole = train(TensorRows(rows, seed=1), settings)
    with pytest.raises(_Interrupted):
        train(_DyingRows(rows, seed=1, dies_after=dies_after), settings, tmp_path)
    resumed = train(TensorRows(rows, seed=1), settings, tmp_path)
    assert resumed.info["resumed_from_step"] == dies_after // 60 * 60
    _assert_same(whole, resumed)


def test_features_die_in_the_interrupted_runs() -> None:
    """The resume test above covers resampling and aux-k only if some features die."""
    standard = train(TensorRows(_rows("standard"), seed=1), _settings("standard"))
    assert int(standard.info["resampled_features"]) > 0
    assert standard.log["resampled_features"].sum() == standard.info["resampled_features"]
    topk = train(TensorRows(_rows("topk"), seed=1), _settings("topk"))
    assert topk.log["sparsity_loss"].max() > 0


@pytest.mark.parametrize("source", ["cache", "forward"])
def test_a_killed_process_leaves_a_checkpoint_that_resumes_bit_for_bit(
    source: str, organism: LanguageModel, tmp_path: Path
) -> None:
    """SIGKILL in the middle of two SAEs in lockstep; rows, optimizer and RNG must continue."""
    checkpoints = tmp_path / "checkpoints"
    killed_training.rows(source, organism, tmp_path)  # writes the cache
    process = subprocess.Popen(
        [
            sys.executable,
            str(Path(killed_training.__file__)),
            source,
            str(tmp_path),
            str(torch.get_num_threads()),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    deadline = time.monotonic() + HANGS
    while not list(checkpoints.glob("step-*")) and process.poll() is None:
        assert time.monotonic() < deadline, f"no checkpoint within {HANGS} s"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = killed_training.run(source, organism, tmp_path, checkpoints)
    whole = killed_training.run(source, organism, tmp_path, None)
    for name, result in resumed.items():
        assert 0 < int(result.info["resumed_from_step"]) < killed_training.STEPS
        _assert_same(whole[name], result)
    assert whole["standard"].info["resampled_features"] > 0
    assert whole["topk"].log["sparsity_loss"].max() > 0


def test_sae_in_lockstep_ends_as_it_would_alone(planted: Planted) -> None:
    members = {
        "few": Member(0, small_settings("topk", training_tokens=6400, k=2)),
        "many": Member(0, small_settings("topk", training_tokens=6400, k=5)),
        "l1": Member(0, small_settings("standard", training_tokens=6400)),
    }
    together = train_together(OneLayer(TensorRows(planted.rows, seed=1)), members)
    for name, member in members.items():
        _assert_same(train(TensorRows(planted.rows, seed=1), member.settings), together[name])


def test_members_of_different_lengths_or_other_names_are_refused(
    planted: Planted, tmp_path: Path
) -> None:
    rows = OneLayer(TensorRows(planted.rows, seed=1))
    a, b = small_settings("topk", training_tokens=640), small_settings("topk", training_tokens=1280)
    with pytest.raises(SaeError, match="b takes 20 steps of 64 rows, a 10 of 64"):
        train_together(rows, {"a": Member(0, a), "b": Member(0, b)})
    with pytest.raises(SaeError, match="no SAE to train"):
        train_together(rows, {})
    train_together(rows, {"a": Member(0, a)}, tmp_path)
    with pytest.raises(SaeError, match=r"is of \['a'\], not of \['c'\]; remove its folder"):
        train_together(rows, {"c": Member(0, a)}, tmp_path)


def test_a_crash_while_saving_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    settings, rows = _settings("topk"), _rows("topk")
    with pytest.raises(_Interrupted):
        train(_DyingRows(rows, seed=1, dies_after=70), settings, tmp_path)
    (tmp_path / ".step-1").mkdir()  # what a killed writer leaves
    (tmp_path / ".step-1" / "000.safetensors").write_bytes(b"half")
    resumed = train(TensorRows(rows, seed=1), settings, tmp_path)
    assert resumed.info["resumed_from_step"] == 60
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000200"]


def test_a_finished_run_gives_its_result_again_without_training(tmp_path: Path) -> None:
    settings, rows = _settings("topk"), _rows("topk")
    first = train(TensorRows(rows, seed=1), settings, tmp_path)
    again = train(_DyingRows(rows, seed=1, dies_after=0), settings, tmp_path)
    _assert_same(first, again)


def test_checkpoints_of_other_settings_data_or_damage_are_refused(tmp_path: Path) -> None:
    settings, rows = _settings("topk"), _rows("topk")
    train(TensorRows(rows, seed=1), settings, tmp_path)
    with pytest.raises(SaeError, match="other settings"):
        train(TensorRows(rows, seed=1), settings.with_changes(learning_rate=2e-3), tmp_path)
    with pytest.raises(SaeError, match="does not fit this data"):
        train(TensorRows(rows + 1, seed=1), settings, tmp_path)
    train(TensorRows(rows + 1, seed=1), settings, tmp_path, resume=False)
    [path] = tmp_path.glob("step-*/000.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SaeError, match=r"step-000000200 cannot be read .* remove it"):
        train(TensorRows(rows + 1, seed=1), settings, tmp_path)


def test_the_log_is_the_declared_table_and_means_what_it_says() -> None:
    rows = _rows("topk")
    seen: list[tuple[int, int]] = []
    settings = _settings("topk").with_changes(
        learning_rate=1e-12, adam_epsilon=1.0
    )  # weights stay as initialised
    result = train(TensorRows(rows, seed=1), settings, progress=lambda *p: seen.append(p))
    assert seen == [(i + 1, STEPS) for i in range(STEPS)]
    frame = result.log.select(pl.lit(0, pl.Int32).alias("layer"), pl.all())
    assert frame.schema == polars_schema(table_spec("sae_training_log"))
    assert result.log["step"].to_list() == [30, 60, 90, 120, 150, 180, 200]
    assert result.log["training_tokens"].to_list()[-1] == STEPS * 64
    stream = TensorRows(rows, seed=1)
    batches = [stream.next(64) for _ in range(30)]
    x = torch.cat(batches).double()
    sae = result.sae
    x_hat = torch.cat([sae(batch) for batch in batches]).double()
    first = result.log.row(0, named=True)
    assert first["mse"] == pytest.approx(float((x - x_hat).square().mean()), rel=1e-4)
    assert first["l0"] == pytest.approx(
        float(torch.cat([(sae.encode(b) > 0).sum(1) for b in batches]).double().mean())
    )
    residual_variance = sum(float((b - sae(b)).var(0, correction=0).sum()) for b in batches)
    total_variance = sum(float(b.var(0, correction=0).sum()) for b in batches)
    expected = 1 - residual_variance / total_variance
    assert first["batch_explained_variance"] == pytest.approx(expected, rel=1e-4)


def test_the_sae_row_is_the_declared_table() -> None:
    settings = _settings("standard")
    result = train(TensorRows(_rows("standard"), seed=1), settings)
    row = sae_row(3, settings, result, "somewhere", "cache")
    assert row.schema == polars_schema(table_spec("attention_sae"))
    assert row["training_tokens"].item() == STEPS * 64
    assert row["weights_hash"].item() == result.sae.weights_hash()


def test_learning_rate_warms_up_decays_and_restarts_after_resampling() -> None:
    settings = small_settings(
        "standard",
        training_tokens=64 * 1000,
        learning_rate=1.0,
        lr_warmup=0.1,
        lr_decay=0.2,
        resample_warmup_steps=50,
    )
    assert learning_rate(settings, 0, None) == pytest.approx(0.01)
    assert learning_rate(settings, 99, None) == 1.0
    assert learning_rate(settings, 799, None) == 1.0
    assert learning_rate(settings, 900, None) == pytest.approx(0.5)
    assert learning_rate(settings, 999, None) == pytest.approx(1 / 200)
    assert learning_rate(settings, 400, 400) == pytest.approx(0.1)
    assert learning_rate(settings, 425, 400) == pytest.approx(0.55)
    assert learning_rate(settings, 450, 400) == 1.0


def test_data_that_diverges_or_is_not_finite_stops_with_an_error() -> None:
    rows = _rows("topk")
    with pytest.raises(SaeError, match="the SAE, step 0: activation rows contain NaN or infinity"):
        train(TensorRows(torch.full_like(rows, float("nan")), seed=0), _settings("topk"))
    with pytest.raises(SaeError, match="nothing can be learned"):
        train(TensorRows(torch.ones(500, 12), seed=0), _settings("topk"))
    with pytest.raises(
        SaeError, match=r"between steps 1 and 30 the loss became .* lower learning_rate"
    ):
        train(TensorRows(rows, seed=0), _settings("topk").with_changes(learning_rate=1e30))


def test_a_nan_that_arrives_late_stops_training_before_it_is_saved(tmp_path: Path) -> None:
    rows = _rows("topk")

    class Poisoned(TensorRows):
        batches = 0

        def next(self, n: int) -> torch.Tensor:
            self.batches += 1
            batch = super().next(n)
            return batch * float("nan") if self.batches == 70 else batch

    with pytest.raises(
        SaeError, match="layer 4: between steps 61 and 90 the activation rows became NaN"
    ):
        train(Poisoned(rows, seed=1), _settings("topk"), tmp_path, label="layer 4")
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    [(tensors, _)] = saved.states
    assert all(bool(torch.isfinite(t.float()).all()) for t in tensors.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vanilla"}, "architecture"),
        ({"k": None}, "needs k"),
        ({"k": 21}, "k is 21"),
        ({"l1_coefficient": 1.0}, "has no l1_coefficient"),
        ({"architecture": "standard", "k": None}, "needs l1_coefficient"),
        ({"architecture": "standard", "l1_coefficient": 1.0}, "has no k"),
        ({"training_tokens": 10}, "less than batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"lr_decay": 1.5}, "lr_decay"),
        ({"d_sae": 0}, "d_sae"),
    ],
)
def test_impossible_settings_do_not_come_to_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small_settings("topk").with_changes(**changes)


def test_external_saes_are_not_trained() -> None:
    external = SaeSettings(architecture="external", path="saes/{layer}")
    with pytest.raises(SaeError, match="the SAE: external SAEs are not trained"):
        train(_DyingRows(_rows("topk"), seed=0, dies_after=0), external)


def test_the_geometric_median_ignores_an_outlier() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    median = geometric_median(rows)
    gradient = ((median - rows) / (median - rows).norm(dim=1, keepdim=True)).sum(0)
    assert gradient.norm() < 1e-3 * len(rows)
    moved = geometric_median(torch.cat([rows, rows.new_full((1, 4), 1e9)]))
    assert (moved - median).norm() < 0.05


def test_the_memory_estimate_grows_with_what_it_depends_on() -> None:
    base = SaeSettings(d_sae=24_576, training_tokens=10**6, k=32, batch_size=4096)
    estimate = training_bytes(base, d_in=768)
    weights = 4 * 2 * 24_576 * 768
    pre_activations = 4 * 4096 * 24_576
    assert 4 * weights + pre_activations < estimate < 10 * weights + 6 * pre_activations
    assert training_bytes(base.with_changes(d_sae=49_152), 768) > 1.8 * estimate
    assert training_bytes(base.with_changes(batch_size=8192), 768) > estimate + pre_activations
    assert 4 * weights < lockstep_bytes([base, base], 768) - estimate < 5 * weights


class _Waits(TorchDispatchMode):
    """Counts operations for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.is_nonzero,
        )
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_the_device_only_to_log(
    organism: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of forward passes and a TopK step (without aux-k, which looks for dead features)."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, organism.config.d_vocab, (80, 12), generator=generator)
    rows = ForwardRows(organism, ids, [1], seed=0)
    settings = small_settings("topk", auxk_coefficient=0.0, training_tokens=64 * 40, log_every=5)
    trainer = Trainer(settings, rows.d_in, lambda n, seed: rows.sample(1, n, seed))
    read = torch.Tensor.tolist  # not dispatched on a CPU
    waits = []
    for _ in range(10):
        with _Waits() as counted, monkeypatch.context() as patch:

            def counting(tensor: torch.Tensor, counted: _Waits = counted) -> object:
                counted.count += 1
                return read(tensor)

            patch.setattr(torch.Tensor, "tolist", counting)
            trainer.step(rows.next(64)[1])
        waits.append(counted.count)
    assert [i for i, count in enumerate(waits) if count] == [4, 9]


def test_streams_satisfy_the_protocol(planted: Planted) -> None:
    stream: RowStream = TensorRows(planted.rows, seed=0)
    assert stream.next(3).shape == (3, stream.d_in)


@pytest.mark.parametrize(
    ("speed", "dtype", "warned"), [(0.05, "bfloat16", 1), (2.0, "bfloat16", 0), (0.05, "auto", 0)]
)
def test_slow_bfloat16_is_said(
    speed: float,
    dtype: str,
    warned: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(trainer_module, "bfloat16_speed", lambda: speed)
    settings = small_settings("standard", compute_dtype=dtype)
    Trainer(settings, 8, lambda n, seed: torch.randn(n, 8))
    assert sum("0.05 of float32's speed" in message for message in caplog.messages) == warned


def test_the_speed_of_bfloat16_is_measured() -> None:
    assert 1e-3 < bfloat16_speed() < 100
