"""One pass over activations against a slow float64 reference that holds everything densely."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mechinterp_assets.activations.cache import Batch, valid_positions
from mechinterp_assets.attribution.feature_pass import FeaturePass, feature_pass
from mechinterp_assets.attribution.intervals import interval_tables
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.storage.declarations import polars_schema, table_spec

BOS = 0
TOKENS = [f"t{i}" for i in range(50)]


@dataclass
class Data:
    sequence: Tensor
    token_ids: Tensor
    z: Tensor

    def batches(self, size: int) -> Iterator[Batch]:
        for i in range(0, len(self.sequence), size):
            part = slice(i, i + size)
            ids = self.token_ids[part]
            yield Batch(self.sequence[part], ids, self.z[part], valid_positions(ids, BOS))


def make_data(seed: int, n: int = 23, length: int = 13, d_in: int = 6) -> Data:
    """Small integers: float32 arithmetic is exact, ties are frequent. Some BOS mid-sequence."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(-3, 4, (n, length, d_in), generator=generator).float()
    ids = torch.randint(1, len(TOKENS), (n, length), generator=generator)
    ids[:, 0] = BOS
    ids[torch.rand(n, length, generator=generator) < 0.1] = BOS
    return Data(torch.arange(n) * 3 + 5, ids, z)


def make_sae(seed: int, d_in: int = 6, d_sae: int = 17, k: int | None = None) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed + 1000)

    def integers(*shape: int) -> Tensor:
        return torch.randint(-2, 3, shape, generator=generator).float()

    b_enc = integers(d_sae) - 3
    b_enc[0] = -1000  # never fires
    b_enc[1] = -13  # fires rarely
    weights = (integers(d_in, d_sae), b_enc, integers(d_sae, d_in), integers(d_in))
    return TopKSAE(*weights, k=k) if k else StandardSAE(*weights)


@dataclass
class Reference:
    """Every quantity by plain loops over a dense list of activations."""

    n_tokens: int
    active: dict[int, list[tuple[float, int, int]]]  # feature -> (activation, sequence, position)
    row: dict[int, int]

    @classmethod
    def of(cls, data: Data, sae: SparseAutoencoder, max_tokens: int | None = None) -> "Reference":
        active: dict[int, list[tuple[float, int, int]]] = {f: [] for f in range(sae.d_sae)}
        n_tokens = 0
        for b, sequence in enumerate(data.sequence.tolist()):
            for t in range(data.token_ids.shape[1]):
                if t == 0 or int(data.token_ids[b, t]) == BOS:
                    continue
                if max_tokens is not None and n_tokens == max_tokens:
                    break
                n_tokens += 1
                for f, value in enumerate(sae.encode(data.z[b, t][None])[0].double().tolist()):
                    if value > 0:
                        active[f].append((value, sequence, t))
        return cls(n_tokens, active, {s: b for b, s in enumerate(data.sequence.tolist())})

    def top(self, feature: int, k: int) -> list[tuple[float, int, int]]:
        best: dict[int, tuple[float, int, int]] = {}
        for value, sequence, t in self.active[feature]:
            if sequence not in best or value > best[sequence][0]:
                best[sequence] = (value, sequence, t)
        return sorted(best.values(), key=lambda e: (-e[0], e[1]))[:k]


def run(data: Data, sae: SparseAutoencoder, **kwargs: object) -> tuple[FeaturePass, pl.DataFrame]:
    frames: list[pl.DataFrame] = []
    batch = kwargs.pop("batch", 4)
    assert isinstance(batch, int)
    found = feature_pass(data.batches(batch), sae, on_activations=frames.append, **kwargs)
    return found, pl.concat(frames)


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_statistics_equal_the_reference(seed: int, k: int | None) -> None:
    data, sae = make_data(seed), make_sae(seed, k=k)
    found, _ = run(data, sae)
    reference = Reference.of(data, sae)
    frame = found.statistics(sae)
    assert found.n_tokens == reference.n_tokens == int(valid_positions(data.token_ids, BOS).sum())
    assert frame["feature"].to_list() == list(range(sae.d_sae))
    for row in frame.iter_rows(named=True):
        active = reference.active[row["feature"]]
        values = [value for value, _, _ in active]
        assert row["n_active"] == len(active)
        assert row["n_tokens"] == reference.n_tokens
        assert row["n_active_sequences"] == len({sequence for _, sequence, _ in active})
        assert row["density"] == len(active) / reference.n_tokens
        if active:
            assert row["log10_density"] == pytest.approx(math.log10(row["density"]), abs=1e-12)
            assert row["mean_activation"] == pytest.approx(math.fsum(values) / len(values))
            assert row["max_activation"] == max(values)
        f = row["feature"]
        w, d = sae.W_enc[:, f].double(), sae.W_dec[f].double()
        assert row["encoder_norm"] == pytest.approx(float(w @ w) ** 0.5)
        assert row["decoder_norm"] == pytest.approx(float(d @ d) ** 0.5)
        assert row["encoder_bias"] == float(sae.b_enc[f])
        if float(w @ w) * float(d @ d) > 0:
            cosine = float(w @ d) / (float(w @ w) * float(d @ d)) ** 0.5
            assert row["encoder_decoder_cosine"] == pytest.approx(cosine)


def test_a_feature_that_never_fires_has_zeros_and_nulls() -> None:
    data, sae = make_data(0), make_sae(0)
    found, activations = run(data, sae)
    row = found.statistics(sae).row(0, named=True)
    assert (row["n_active"], row["n_active_sequences"], row["density"]) == (0, 0, 0.0)
    assert row["log10_density"] is row["mean_activation"] is row["max_activation"] is None
    assert 0 not in found.top_examples(TOKENS)["feature"]
    tables = interval_tables([activations], found.max_activation)
    assert 0 not in tables.intervals["feature"]
    assert 0 not in tables.examples["feature"]


def test_no_token_read_gives_null_density() -> None:
    data, sae = make_data(0, n=2), make_sae(0)
    data.token_ids[:] = BOS
    found = feature_pass(data.batches(2), sae)
    assert found.n_tokens == 0
    assert found.statistics(sae)["density"].null_count() == sae.d_sae
    assert len(found.top_examples(TOKENS)) == 0


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("batch", [1, 5, 23])
def test_sparse_activations_equal_the_dense_encoding_at_valid_positions(
    batch: int, k: int | None
) -> None:
    data, sae = make_data(3), make_sae(3, k=k)
    _, activations = run(data, sae, batch=batch, flush_rows=50)
    reference = Reference.of(data, sae)
    expected = sorted((f, s, t, v) for f, a in reference.active.items() for v, s, t in a)
    assert sorted(activations.iter_rows()) == expected


def test_activations_leave_in_sorted_frames_of_bounded_size() -> None:
    data, sae = make_data(3), make_sae(3)
    frames: list[pl.DataFrame] = []
    feature_pass(data.batches(2), sae, on_activations=frames.append, flush_rows=100)
    largest_block = 2 * data.token_ids.shape[1] * sae.d_sae
    assert len(frames) > 3
    assert all(100 <= len(frame) < 100 + largest_block for frame in frames[:-1])
    for frame in frames:
        assert frame.equals(frame.sort("feature", "sequence", "position"))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("batch", "top_k"), [(1, 20), (4, 3), (23, 5), (23, 40)])
def test_top_examples_equal_the_reference_whatever_the_batches(
    seed: int, batch: int, top_k: int
) -> None:
    data, sae = make_data(seed), make_sae(seed)
    found, _ = run(data, sae, batch=batch, top_k=top_k)
    reference = Reference.of(data, sae)
    frame = found.top_examples(TOKENS)
    columns = ["activation", "sequence", "position"]
    for feature in range(sae.d_sae):
        rows = frame.filter(pl.col("feature") == feature)
        assert rows["rank"].to_list() == list(range(len(rows)))
        assert rows.select(columns).rows() == reference.top(feature, top_k)


def test_windows_hold_the_tokens_and_activations_around_an_example() -> None:
    data, sae = make_data(2), make_sae(2)
    found, _ = run(data, sae, window_before=4, window_after=2, top_k=30)
    reference = Reference.of(data, sae)
    length = data.token_ids.shape[1]
    dense = {(f, s, t): v for f, a in reference.active.items() for v, s, t in a}
    frame = found.top_examples(TOKENS)
    assert frame["window_start"].min() == 0
    for row in frame.iter_rows(named=True):
        b, p = reference.row[row["sequence"]], row["position"]
        window = range(max(0, p - 4), min(length, p + 3))
        assert row["token_id"] == int(data.token_ids[b, p])
        assert row["token"] == TOKENS[row["token_id"]]
        assert row["window_start"] == window.start
        assert row["window_tokens"] == [TOKENS[int(data.token_ids[b, t])] for t in window]
        expected = [dense.get((row["feature"], row["sequence"], t), 0.0) for t in window]
        assert row["window_activations"] == expected


@pytest.mark.parametrize("max_tokens", [1, 57, 100])
def test_max_tokens_stops_after_exactly_that_many(max_tokens: int) -> None:
    data, sae = make_data(4), make_sae(4)
    found, activations = run(data, sae, max_tokens=max_tokens)
    reference = Reference.of(data, sae, max_tokens)
    assert found.n_tokens == max_tokens
    read = valid_positions(data.token_ids, BOS).sum(1).cumsum(0)
    assert found.n_sequences == int((read < max_tokens).sum()) + 1
    assert found.n_active.tolist() == [len(reference.active[f]) for f in range(sae.d_sae)]
    assert len(activations) == int(found.n_active.sum())


def test_a_small_workspace_changes_nothing() -> None:
    data, sae = make_data(5), make_sae(5)
    whole, activations = run(data, sae, batch=23)
    cut, cut_activations = run(data, sae, batch=23, workspace_bytes=1)
    assert whole.statistics(sae).equals(cut.statistics(sae))
    assert whole.top_examples(TOKENS).equals(cut.top_examples(TOKENS))
    assert activations.sort(pl.all()).equals(cut_activations.sort(pl.all()))


def test_activations_of_bos_tokens_count_nowhere() -> None:
    """A feature that is strongest on BOS, everywhere, is judged by the other tokens alone."""
    data = make_data(6)
    data.z[:] = 1.0
    data.z[data.token_ids == BOS] = 100.0
    data.z[:, 0] = 100.0
    sae = StandardSAE(torch.ones(6, 1), torch.zeros(1), torch.ones(1, 6), torch.zeros(6))
    found, activations = run(data, sae)
    row = found.statistics(sae).row(0, named=True)
    assert row["density"] == 1.0
    assert row["max_activation"] == row["mean_activation"] == 6.0
    assert activations["activation"].unique().to_list() == [6.0]
    examples = found.top_examples(TOKENS)
    assert BOS not in examples["token_id"]
    for tokens, values in examples.select("window_tokens", "window_activations").rows():
        assert all(
            (token == TOKENS[BOS]) == (v == 0) for token, v in zip(tokens, values, strict=True)
        )


def test_frames_have_the_declared_columns() -> None:
    data, sae = make_data(7), make_sae(7)
    found, activations = run(data, sae)
    frames = {
        "feature_statistics": found.statistics(sae),
        "feature_activations": activations,
        "feature_top_examples": found.top_examples(TOKENS),
        "feature_intervals": interval_tables([activations], found.max_activation).intervals,
    }
    for name, frame in frames.items():
        declared = dict(polars_schema(table_spec(name)))
        del declared["layer"]
        assert dict(frame.schema) == declared, name


# ---- refusals ------------------------------------------------------------------------------------


def test_activations_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="6 wide, the SAE reads 8"):
        feature_pass(make_data(0).batches(4), make_sae(0, d_in=8))


def test_a_sequence_read_twice_is_refused() -> None:
    data = make_data(0)
    data.sequence[7] = data.sequence[6]
    with pytest.raises(ValueError, match="do not ascend"):
        feature_pass(data.batches(4), make_sae(0))


def test_an_infinite_activation_is_refused() -> None:
    data = make_data(0)
    data.z[3] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        feature_pass(data.batches(4), make_sae(0))


# ---- intervals -----------------------------------------------------------------------------------


def reference_intervals(values: list[float], n: int) -> list[int]:
    edges = np.linspace(0.0, max(values), n + 1)
    return [sum(low < v <= high for v in values) for low, high in pairwise(edges)]


@pytest.mark.parametrize("n_intervals", [1, 4, 10])
def test_intervals_equal_the_reference(n_intervals: int) -> None:
    data, sae = make_data(8), make_sae(8)
    found, activations = run(data, sae)
    reference = Reference.of(data, sae)
    tables = interval_tables([activations], found.max_activation, n_intervals=n_intervals)
    random = tables.examples.filter(pl.col("sample") == "random")
    for feature, active in reference.active.items():
        rows = tables.intervals.filter(pl.col("feature") == feature)
        drawn = random.filter(pl.col("feature") == feature)
        if not active:
            assert len(rows) == len(drawn) == 0
            continue
        values = [v for v, _, _ in active]
        assert rows["n_active"].to_list() == reference_intervals(values, n_intervals)
        assert rows["active_share"].sum() == pytest.approx(1.0, abs=1e-12)
        place = {(s, t): v for v, s, t in active}
        for row in rows.iter_rows(named=True):
            inside = drawn.filter(pl.col("interval") == row["interval"])
            examples = inside.select("sequence", "position").rows()
            assert len(set(examples)) == len(examples) == min(3, row["n_active"])
            assert all(row["low"] < place[example] <= row["high"] for example in examples)
            assert inside["activation"].to_list() == [place[example] for example in examples]


def test_the_examples_do_not_depend_on_how_activations_are_cut_but_on_the_seed() -> None:
    data, sae = make_data(9), make_sae(9)
    found, activations = run(data, sae)
    whole = interval_tables([activations], found.max_activation)
    cut = interval_tables(activations.iter_slices(7), found.max_activation)
    assert whole.intervals.equals(cut.intervals)
    assert whole.examples.equals(cut.examples)
    other = interval_tables([activations], found.max_activation, seed=1)
    assert whole.intervals.equals(other.intervals)
    top, random = (pl.col("sample") == kind for kind in ("top", "random"))
    assert whole.examples.filter(top).equals(other.examples.filter(top))
    assert not whole.examples.filter(random).equals(other.examples.filter(random))


def test_the_sample_of_an_interval_is_uniform() -> None:
    """Over many seeds each of 20 tokens is drawn about equally often (chi-square, 19 degrees)."""
    n = 20
    frame = pl.DataFrame(
        {
            "feature": [0] * n,
            "sequence": list(range(n)),
            "position": [3] * n,
            "activation": [1.0] * n,
        },
        schema={
            "feature": pl.Int32,
            "sequence": pl.Int64,
            "position": pl.Int32,
            "activation": pl.Float32,
        },
    )
    counts = np.zeros(n)
    for seed in range(400):
        tables = interval_tables(
            [frame], torch.ones(1), n_intervals=1, n_top=0, n_random=3, seed=seed
        )
        assert tables.examples["sample"].to_list() == ["random"] * 3
        counts[tables.examples["sequence"].to_numpy()] += 1
    expected = counts.sum() / n
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # 0.1% of the chi-square distribution


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(2**-20, 1e4, width=32), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_interval_membership_is_exact_for_any_activations(values: list[float], n: int) -> None:
    frame = pl.DataFrame(
        {
            "feature": np.zeros(len(values), np.int32),
            "sequence": np.arange(len(values)),
            "position": np.ones(len(values), np.int32),
            "activation": np.array(values, np.float32),
        }
    )
    found = interval_tables([frame], torch.tensor([max(values)]), n_intervals=n)
    assert found.intervals["n_active"].to_list() == reference_intervals(values, n)


def test_no_examples_can_be_asked_for() -> None:
    data, sae = make_data(8), make_sae(8)
    found, activations = run(data, sae)
    tables = interval_tables([activations], found.max_activation, n_top=0, n_random=0)
    assert tables.intervals["n_active"].sum() == len(activations)
    assert tables.examples.is_empty()


def test_maxima_of_another_pass_are_refused() -> None:
    data, sae = make_data(8), make_sae(8)
    found, activations = run(data, sae)
    with pytest.raises(ValueError, match="same feature pass"):
        interval_tables([activations], found.max_activation / 2)
