"""Head scores find planted heads, equal slow references and stay silent on untrained models."""

import polars as pl
import pytest
import torch

from mechinterp_assets.heads.datasets import (
    DatasetError,
    TokenDataset,
    ordinary_token_ids,
    random_tokens,
    repeated_random_tokens,
    text_windows,
)
from mechinterp_assets.heads.head_scores import head_scores, score_datasets
from mechinterp_assets.heads.pattern_pass import accumulate_patterns
from mechinterp_assets.heads.score_kinds import PatternScore, ScoreDatasets
from mechinterp_assets.heads.score_registry import scores_in, scores_of
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.heads.scores.copying import copying_effective, eigenvalue_positivity
from mechinterp_assets.heads.scores.positional import OffsetExplained
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.head_roles import head_roles
from mechinterp_assets.storage.declarations import polars_schema, table_spec

SMALL = HeadSettings(
    sequences=6, repeat_length=10, sink_length=20, batch_size=4, cspa_sequences=3, cspa_length=12
)


def value(frame: pl.DataFrame, layer: int, head: int, score: str, column: str = "value") -> float:
    row = frame.filter(layer=layer, head=head, score=score)
    assert row.height == 1
    return float(row[column][0])


def roles(frame: pl.DataFrame) -> dict[tuple[int, int], set[str]]:
    """Roles by head, from the view head_roles."""
    found: dict[tuple[int, int], set[str]] = {}
    for layer, head, role in head_roles(frame).select("layer", "head", "role").iter_rows():
        found.setdefault((layer, head), set()).add(role)
    return found


@pytest.fixture(scope="module")
def planted_scores(planted: LanguageModel) -> pl.DataFrame:
    return head_scores(planted, SMALL)


def test_planted_heads_are_found(planted_scores: pl.DataFrame) -> None:
    assert value(planted_scores, 0, 0, "previous_token") > 0.999
    assert value(planted_scores, 0, 1, "duplicate_token") > 0.999
    assert value(planted_scores, 1, 0, "induction") > 0.999
    assert value(planted_scores, 1, 0, "copying") == pytest.approx(1.0, abs=1e-6)
    assert value(planted_scores, 1, 1, "copying") == pytest.approx(-1.0, abs=1e-6)
    assert value(planted_scores, 0, 0, "positional") > 0.95
    found = roles(planted_scores)
    assert found[0, 0] >= {"previous_token", "positional"}
    assert "duplicate_token" in found[0, 1]
    assert found[1, 0] == {"induction", "copying", "copying_effective"}
    assert (1, 1) not in found


def test_planted_heads_have_no_other_role(planted_scores: pl.DataFrame) -> None:
    assert value(planted_scores, 0, 0, "induction") < 0.01
    assert value(planted_scores, 0, 0, "duplicate_token") < 0.01
    assert value(planted_scores, 0, 1, "induction") < 0.01
    assert value(planted_scores, 1, 0, "duplicate_token") < 0.01
    assert value(planted_scores, 0, 0, "copying") == pytest.approx(0.0, abs=1e-6)


def test_uniform_head_scores_exactly_its_null(planted_scores: pl.DataFrame) -> None:
    """L1H1 attends uniformly: the sink reference is its value, and no target beats another."""
    harmonic = sum(1 / (t + 1) for t in range(SMALL.sink_length)) / SMALL.sink_length
    assert value(planted_scores, 1, 1, "attention_sink") == pytest.approx(harmonic, abs=1e-7)
    for score in ("attention_sink", "previous_token", "induction", "duplicate_token"):
        null = value(planted_scores, 1, 1, score, "null_mean")
        assert value(planted_scores, 1, 1, score) == pytest.approx(null, abs=1e-7)
        assert value(planted_scores, 1, 1, score, "null_sd") < 1e-7


def test_induction_head_raises_the_next_token(planted_scores: pl.DataFrame) -> None:
    hit = value(planted_scores, 1, 0, "induction_dla")
    null = value(planted_scores, 1, 0, "induction_dla", "null_mean")
    assert hit > null + 10 * value(planted_scores, 1, 0, "induction_dla", "null_sd")
    assert value(planted_scores, 0, 0, "induction_dla") == pytest.approx(0.0, abs=1e-5)


def test_untrained_model_has_no_roles(untrained: LanguageModel) -> None:
    assert roles(head_scores(untrained, SMALL)) == {}


def test_organism_has_strong_induction_heads(organism: LanguageModel) -> None:
    settings = HeadSettings(
        sequences=4,
        repeat_length=30,
        sink_length=32,
        null_draws=5,
        suppression_tokens=64,
        cspa_sequences=3,
        cspa_length=8,
    )
    frame = head_scores(organism, settings)
    assert frame.schema == polars_schema(table_spec("head_scores"))
    per_head = organism.config.n_layers * organism.config.n_heads
    assert frame.height == per_head * len(scores_in("head_scores"))
    found = roles(frame)
    assert any("induction" in r for r in found.values())
    assert any("previous_token" in r for r in found.values())


def test_scores_do_not_depend_on_the_batch_size(planted: LanguageModel) -> None:
    one = HeadSettings(sequences=5, repeat_length=8, sink_length=16, batch_size=1, cspa_sequences=0)
    five = one.with_changes(batch_size=5)
    left, right = head_scores(planted, one), head_scores(planted, five)
    assert left.drop("value", "null_mean", "null_sd").equals(
        right.drop("value", "null_mean", "null_sd")
    )
    for column in ("value", "null_mean", "null_sd"):
        assert (left[column] - right[column]).abs().max() < 1e-5


def test_rope_and_grouped_queries(stories: LanguageModel) -> None:
    settings = HeadSettings(
        sequences=4, repeat_length=20, sink_length=32, cspa_sequences=3, cspa_length=12
    )
    frame = head_scores(stories, settings)
    assert frame.drop_nulls("threshold")["value"].is_finite().all()
    for score in scores_of(PatternScore):
        values = frame.filter(score=score.name)["value"]
        assert values.is_between(0, 1 + 1e-9).all()
    assert frame.filter(score="copying")["value"].is_between(-1 - 1e-9, 1 + 1e-9).all()
    assert frame.filter(score="previous_token")["value"].max() > 0.8


# ---- nulls and references ------------------------------------------------------------------------


def _patterns(model: LanguageModel, data: TokenDataset) -> torch.Tensor:
    """All patterns [layer, sequence, head, destination, source]."""
    kept: dict[int, list[torch.Tensor]] = {}

    class Keep:
        def update(self, layer: int, pattern: torch.Tensor) -> None:
            kept.setdefault(layer, []).append(pattern.double())

        def result(self) -> ScoreValues:
            raise NotImplementedError

    accumulate_patterns(model, data.token_ids, [Keep()], batch_size=3)
    return torch.stack([torch.cat(kept[layer]) for layer in sorted(kept)])


@pytest.mark.parametrize("name", ["previous_token", "duplicate_token", "induction"])
def test_targeted_scores_and_nulls_match_draws(organism: LanguageModel, name: str) -> None:
    """Value against loops; null mean and sd against drawn wrong positions."""
    data = repeated_random_tokens(organism, n_sequences=4, period=12, seed=1)
    score = next(s for s in scores_of(PatternScore) if s.name == name)
    statistic = score.statistic(organism.config.n_layers, organism.config.n_heads, data)
    accumulate_patterns(organism, data.token_ids, [statistic], batch_size=3)
    result = statistic.result()
    patterns = _patterns(organism, data)
    ids = data.token_ids

    def target(sequence: int, i: int) -> int | None:
        if name == "previous_token":
            return i - 1 if i >= 2 else None
        earlier = [j for j in range(1, i) if ids[sequence, j] == ids[sequence, i]]
        return None if not earlier else earlier[-1] + (name == "induction")

    pairs = [(s, i, t) for s in range(4) for i in range(1, 25) if (t := target(s, i)) is not None]
    assert result.n == len(pairs)
    values = sum(patterns[:, s, :, i, t] for s, i, t in pairs) / len(pairs)
    torch.testing.assert_close(result.value, values)

    generator = torch.Generator().manual_seed(0)
    draws = torch.zeros(2000, *result.value.shape, dtype=torch.float64)
    for s, i, t in pairs:
        wrong = torch.tensor([j for j in range(1, i + 1) if j != t])
        chosen = wrong[torch.randint(len(wrong), (2000,), generator=generator)]
        draws += patterns[:, s, :, i][..., chosen].permute(2, 0, 1) / len(pairs)
    standard_error = result.null_sd / 2000**0.5
    assert ((draws.mean(0) - result.null_mean).abs() < 5 * standard_error + 1e-12).all()
    torch.testing.assert_close(draws.std(0), result.null_sd, rtol=0.1, atol=1e-12)


def test_positional_against_direct_r_squared_and_permutations() -> None:
    torch.manual_seed(0)
    pattern = torch.randn(3, 2, 9, 9).tril().exp().tril()
    statistic = OffsetExplained(1, 2, 9, 3)
    statistic.update(0, pattern[:2])
    statistic.update(0, pattern[2:])
    result = statistic.result()

    i, j = torch.tril_indices(8, 8)
    for head in range(2):
        y = pattern[:, head, i + 1, j + 1].double()
        offset = (i - j).expand_as(y)

        def r_squared(y: torch.Tensor, offset: torch.Tensor) -> float:
            means = [y[offset == d].mean() for d in range(8)]
            residual = sum(((y[offset == d] - means[d]) ** 2).sum() for d in range(8))
            return 1 - float(residual / ((y - y.mean()) ** 2).sum())

        assert float(result.value[0, head]) == pytest.approx(r_squared(y, offset), abs=1e-12)
        flat = offset.flatten()
        shuffled = [r_squared(y.flatten(), flat[torch.randperm(len(flat))]) for _ in range(400)]
        drawn = torch.tensor(shuffled)
        null, sd = float(result.null_mean[0, head]), float(result.null_sd[0, head])
        assert abs(float(drawn.mean()) - null) < 5 * sd / 20
        assert float(drawn.std()) == pytest.approx(sd, rel=0.15)


def test_copying_equals_the_full_vocabulary_matrix(planted: LanguageModel) -> None:
    frame = head_scores(planted, SMALL)
    w = planted.weights
    for layer in range(2):
        for head in range(2):
            full = (w.W_E @ w.W_V[layer, head] @ w.W_O[layer, head] @ w.W_U).double()
            eigenvalues = torch.linalg.eigvals(full)
            size = float(eigenvalues.abs().sum())
            expected = float(eigenvalues.real.sum()) / size if size > 1e-6 else 0.0
            assert value(frame, layer, head, "copying") == pytest.approx(expected, abs=1e-4)


def test_effective_copying_reads_tokens_after_the_first_mlp(organism: LanguageModel) -> None:
    """Against the eigenvalues of the d_head x d_head product, one head at a time."""
    settings = HeadSettings(null_draws=2)
    data = random_tokens(organism, n_sequences=1, length=8, seed=0)
    found = copying_effective(organism, settings, ScoreDatasets(data, data)).value
    w, block = organism.weights, organism.processed.blocks[0]
    with torch.no_grad():
        W_EE = (w.W_E + block.mlp(block.ln2(w.W_E[None]))[0]).double()
    for layer, head in ((1, 6), (3, 3)):
        product = w.W_O[layer, head].double() @ w.W_U.double() @ W_EE @ w.W_V[layer, head].double()
        eigenvalues = torch.linalg.eigvals(product)
        expected = float(eigenvalues.real.sum() / eigenvalues.abs().sum())
        assert float(found[layer, head]) == pytest.approx(expected, abs=1e-4)


def test_eigenvalue_positivity_of_known_matrices() -> None:
    identity, rotation = torch.eye(2), torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    nilpotent = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    matrices = torch.stack([identity, -identity, rotation, nilpotent, torch.zeros(2, 2)])
    expected = torch.tensor([1.0, -1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(eigenvalue_positivity(matrices), expected)


# ---- data ----------------------------------------------------------------------------------------


def test_repeated_random_tokens(organism: LanguageModel) -> None:
    data = repeated_random_tokens(organism, n_sequences=5, period=20, seed=3)
    ids = data.token_ids
    assert (ids[:, 0] == organism.bos_token_id).all()
    assert (ids[:, 1:21] == ids[:, 21:]).all()
    assert all(len(set(row.tolist())) == 20 for row in ids[:, 1:21])
    assert organism.bos_token_id not in ids[:, 1:]
    assert organism.bos_token_id not in ordinary_token_ids(organism)
    again = repeated_random_tokens(organism, n_sequences=5, period=20, seed=3)
    assert torch.equal(ids, again.token_ids)


def test_bad_data_is_refused_with_the_remedy(planted: LanguageModel) -> None:
    with pytest.raises(DatasetError, match=r"25 tokens.*context.*\(24\); lower period"):
        repeated_random_tokens(planted, n_sequences=1, period=12, seed=0)
    with pytest.raises(DatasetError, match="23 ordinary tokens"):
        random_tokens(planted, n_sequences=1, length=25, seed=0)
    with pytest.raises(DatasetError, match="n_sequences is 0"):
        random_tokens(planted, n_sequences=0, length=5, seed=0)
    with pytest.raises(DatasetError, match="must start with BOS"):
        text_windows(planted, torch.ones(2, 9, dtype=torch.long), length=8, name="text")
    with pytest.raises(DatasetError, match="lower sink_length"):
        text_windows(planted, torch.zeros(2, 5, dtype=torch.long), length=8, name="text")


def test_text_replaces_random_tokens_where_it_is_given(planted: LanguageModel) -> None:
    text = torch.randint(1, 24, (3, 24), generator=torch.Generator().manual_seed(0))
    text[:, 0] = 0
    frame = head_scores(planted, SMALL, text=text, text_name="stories")
    names = dict(frame.select("score", "dataset").unique().iter_rows())
    assert (
        names["previous_token"]
        == names["attention_sink"]
        == f"stories (3 x 20) after {planted.bos_label}"
    )
    assert names["induction"].startswith("repeated random tokens")


def test_default_lengths_are_cut_to_the_context_and_the_vocabulary(planted: LanguageModel) -> None:
    """24 positions and 23 ordinary tokens: the defaults ask for 101 and 64."""
    datasets = score_datasets(planted, HeadSettings(sequences=2), None, "text")
    assert (datasets.repeated.period, datasets.repeated.length) == (11, 23)
    assert datasets.plain.length == 24
    assert "2 x 2 x 11" in datasets.repeated.name
    asked = HeadSettings(sequences=2, repeat_length=5, sink_length=10)
    fits = score_datasets(planted, asked, None, "text")
    assert (fits.repeated.period, fits.plain.length) == (5, 10)
