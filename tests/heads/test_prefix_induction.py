"""Prefix-length induction: planted heads, slow references, exact nulls, edits that do one thing."""

import duckdb
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.heads.datasets import DatasetError
from mechinterp_assets.heads.prefix_corpus import AttendedCases, prefix_corpus, prefix_lengths
from mechinterp_assets.heads.prefix_induction import (
    prefix_induction,
    prefix_sequences,
)
from mechinterp_assets.heads.prefix_intervention import (
    EDITS,
    editable_cases,
    edited_sequences,
    prefix_intervention,
)
from mechinterp_assets.heads.settings import PrefixInductionSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.statistics.bootstrap import resample_counts
from mechinterp_assets.storage.declarations import SQL_FOLDER, polars_schema, table_spec
from mechinterp_assets.storage.table_spec import plain_table
from tests.heads.prefix_models import BOS, CONTEXT, LONG, SHORT, VOCABULARY, planted_prefix_model
from tests.statistics.clustered_reference import share_interval


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return planted_prefix_model(tmp_path_factory.mktemp("prefix"))


@pytest.fixture(scope="module")
def scores(model: LanguageModel) -> pl.DataFrame:
    settings = PrefixInductionSettings(sequences=6)
    return prefix_induction(model, settings, length=CONTEXT, batch_size=16, n_bootstrap=50)


@pytest.fixture(scope="module")
def text() -> Tensor:
    """Distinct tokens in which a block of 1, 2, 3 or 4 stands twice; half of the ids are unused."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for block in (1, 2, 3, 4) * 6:
        ids = 1 + torch.randperm(VOCABULARY - 1, generator=generator)[:20]
        first, second = 3, 12
        ids[second : second + block] = ids[first : first + block]
        rows.append(torch.cat([torch.tensor([BOS]), ids]))
    return torch.stack(rows)


def by_length(frame: pl.DataFrame, head: tuple[int, int], column: str) -> list[float]:
    rows = frame.filter(layer=head[0], head=head[1]).sort("prefix_length")
    return [float(value) for value in rows[column]]


# ---- random tokens -------------------------------------------------------------------------------


def test_exactly_p_tokens_match(organism: LanguageModel) -> None:
    data = prefix_sequences(organism, PrefixInductionSettings(sequences=30), length=30)
    lengths, n, _ = data.token_ids.shape
    assert (lengths, n) == (9, 30)
    for p in range(1, 10):
        for row in range(n):
            ids = data.token_ids[p - 1, row].tolist()
            d, s = int(data.destination[row]), int(data.source[row])
            assert ids[0] == organism.bos_token_id
            assert s - p - 1 >= 1
            assert s < d - p < d < 30
            assert ids[d - p + 1 : d + 1] == ids[s - p : s]
            assert ids[d - p] != ids[s - p - 1]
            # Nothing else is repeated, so every other source is no induction source.
            assert len(set(ids)) == len(ids) - p
    base = data.token_ids[0].clone()
    rows = torch.arange(n)
    assert (data.token_ids[:, rows, data.source] == base[rows, data.source]).all()
    assert len(set(data.source.tolist())) > 3


def test_planted_heads_need_one_and_two_tokens(scores: pl.DataFrame) -> None:
    assert scores.schema == polars_schema(table_spec("prefix_induction"))
    assert scores.height == 2 * 4 * 9
    assert min(by_length(scores, SHORT, "mean_attention")) > 0.99
    one, *more = by_length(scores, LONG, "mean_attention")
    assert one < 0.01
    assert min(more) > 0.99
    assert by_length(scores, LONG, "attention_gain") == pytest.approx([0, *[a - one for a in more]])
    assert min(by_length(scores, LONG, "attention_gain_ci_low")[1:]) > 0.98
    assert max(map(abs, by_length(scores, SHORT, "attention_gain"))) < 0.01
    short, long = by_length(scores, SHORT, "dla_excess"), by_length(scores, LONG, "dla_excess")
    assert min(short) > 1
    assert abs(long[0]) < 0.01 * min(short)
    assert min(long[1:]) > 1
    for head in ((0, 0), (0, 1), (1, 2)):
        assert max(by_length(scores, head, "mean_attention")) < 0.1


def test_classes_of_planted_heads(scores: pl.DataFrame) -> None:
    with duckdb.connect() as con:
        con.register("frame", scores.to_arrow())
        con.execute(plain_table(table_spec("prefix_induction")))
        con.execute("INSERT INTO prefix_induction BY NAME SELECT 'test' AS study, * FROM frame")
        con.execute((SQL_FOLDER / "views" / "prefix_induction_heads.sql").read_text())
        rows = con.execute("SELECT layer, head, prefix_class FROM prefix_induction_heads")
        classes = {(layer, head): name for layer, head, name in rows.fetchall()}
    expected = {(layer, head): "other" for layer in range(2) for head in range(4)}
    assert classes == {**expected, SHORT: "short", LONG: "long"}


def test_a_uniform_head_scores_its_null(scores: pl.DataFrame) -> None:
    """L1H2 attends uniformly to 0 .. d and writes nothing."""
    attention, null = (by_length(scores, (1, 2), c) for c in ("mean_attention", "null_mean"))
    assert attention == pytest.approx(null, abs=1e-6)
    assert max(by_length(scores, (1, 2), "null_sd")) < 1e-6
    assert by_length(scores, (1, 2), "dla") == [0.0] * 9


def test_scores_and_nulls_equal_a_slow_reference(organism: LanguageModel) -> None:
    """Raw patterns and explicit sums, sequence by sequence, against one processed pass."""
    sizes = PrefixInductionSettings(sequences=3, seed=5)
    frame = prefix_induction(organism, sizes, length=26, batch_size=4, n_bootstrap=20)
    data, w, layers = prefix_sequences(organism, sizes, length=26), organism.weights, 5
    for p in (1, 4, 9):
        found: dict[str, list[Tensor]] = {}
        for row in range(3):
            ids = data.token_ids[p - 1, row]
            d, s = int(data.destination[row]), int(data.source[row])
            _, raw = organism.raw.run_with_cache(ids[None])
            _, processed = organism.processed.run_with_cache(ids[None])
            attention = torch.stack(
                [raw[f"blocks.{k}.attn.hook_pattern"][0, :, d] for k in range(layers)]
            ).double()
            z = torch.stack([processed[f"blocks.{k}.attn.hook_z"][0, d] for k in range(layers)])
            z = z.view(layers, organism.config.n_heads, -1)
            out = (
                torch.einsum("lhe,lhed->lhd", z, w.W_O.stacked())
                / processed["ln_final.hook_scale"][0, d]
            )
            effect = (out @ w.W_U).double()
            others = [j for j in range(1, d + 1) if j != s]
            tokens = sorted({int(t) for t in ids[1 : d + 1]} - {int(ids[s])})
            assert len(tokens) == d - p - 1
            for name, value in (
                ("mean_attention", attention[..., s]),
                ("null_mean", attention[..., others].mean(-1)),
                ("null_variance", attention[..., others].var(-1, correction=0)),
                ("dla", effect[..., int(ids[s])]),
                ("dla_null_mean", effect[..., tokens].mean(-1)),
                ("dla_null_variance", effect[..., tokens].var(-1, correction=0)),
            ):
                found.setdefault(name, []).append(value)
        rows = frame.filter(prefix_length=p).sort("layer", "head")
        expected = {name: torch.stack(values) for name, values in found.items()}
        for name in ("mean_attention", "null_mean", "dla", "dla_null_mean"):
            mean = expected[name].mean(0).flatten().numpy()
            np.testing.assert_allclose(rows[name].to_numpy(), mean, atol=2e-5, err_msg=name)
        for name, of in (("null_sd", "null_variance"), ("dla_null_sd", "dla_null_variance")):
            sd = expected[of].sum(0).sqrt().flatten().numpy() / 3
            np.testing.assert_allclose(rows[name].to_numpy(), sd, rtol=1e-3, atol=1e-5)
        sd = expected["mean_attention"].std(0).flatten().numpy()
        np.testing.assert_allclose(rows["attention_sd"].to_numpy(), sd, rtol=1e-3, atol=1e-5)


def test_rope_and_grouped_queries(stories: LanguageModel) -> None:
    frame = prefix_induction(
        stories, PrefixInductionSettings(sequences=3), length=24, n_bootstrap=20
    )
    assert frame["mean_attention"].is_between(0, 1).all()
    assert frame.drop_nulls().height == frame.height


def test_data_that_does_not_fit_is_refused(model: LanguageModel) -> None:
    with pytest.raises(DatasetError, match=r"21.*at least 22: raise length or lower longest"):
        prefix_sequences(model, PrefixInductionSettings(sequences=2), length=21)
    with pytest.raises(DatasetError, match=rf"context of .* \({CONTEXT}\); lower length"):
        prefix_sequences(model, PrefixInductionSettings(sequences=2), length=CONTEXT + 1)
    with pytest.raises(DatasetError, match="longest is 0"):
        prefix_sequences(model, PrefixInductionSettings(sequences=2), longest=0)


# ---- real text -----------------------------------------------------------------------------------


def slow_prefix_length(ids: list[int], i: int, s: int, longest: int) -> int:
    """One pair at a time, from the definition."""
    if s < 1 or s > i or BOS in (ids[i], ids[s]):
        return -1
    if s == i:
        return 0
    matched = 0
    while matched < longest:
        first, second = s - 1 - matched, i - matched
        if first < 0:
            break
        if ids[first] == ids[second] == BOS:
            return -1
        if ids[first] != ids[second] or first == 0:
            break
        matched += 1
    return matched


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=11, max_size=11), min_size=1, max_size=3),
    st.integers(1, 9),
)
def test_every_pair_has_the_prefix_length_of_its_definition(
    rows: list[list[int]], longest: int
) -> None:
    ids = [[BOS, *row] for row in rows]
    found = prefix_lengths(torch.tensor(ids), BOS, longest)
    for b, row in enumerate(ids):
        for i in range(12):
            for s in range(12):
                assert found[b, i, s] == slow_prefix_length(row, i, s, longest), (row, i, s)


def attends_by_document(pattern: Tensor, at: Tensor, documents: NDArray[np.int64]) -> list[int]:
    """Pairs among `at` with an attention above 0.3, by the document of their destination."""
    counts = [0] * (int(documents.max()) + 1)
    for b, i, s in at.nonzero().tolist():
        counts[documents[b, i]] += bool(pattern[b, i, s] > 0.3)
    return counts


def test_attention_by_prefix_length_equals_sums_over_pairs(
    organism: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Periodic text with a BOS in the middle, in batches that do not divide it."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 11, (5, 30), generator=generator)
    ids[:, 0] = ids[:, 17] = bos = organism.bos_token_id
    monkeypatch.setattr("mechinterp_assets.heads.prefix_corpus._PATTERN_ELEMENTS", 2 * 8 * 30**2)
    # The BOS in the middle ends a document; so does the end of every second sequence.
    documents = np.repeat(np.array([[0, 1], [1, 2], [3, 4], [4, 5], [6, 7]]), [18, 12], axis=1)
    result = prefix_corpus(organism, ids, documents=documents, text_name="text", n_bootstrap=30)
    assert result.frame.schema == polars_schema(table_spec("prefix_induction_corpus"))
    lengths = prefix_lengths(ids, bos)
    _, cache = organism.raw.run_with_cache(ids)
    for layer, head in ((0, 1), (2, 3), (4, 5)):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][:, head].double()
        rows = result.frame.filter(layer=layer, head=head).sort("prefix_length").to_dicts()
        assert [row["prefix_length"] for row in rows] == list(range(10))
        counted = lengths >= 0
        for p, row in enumerate(rows):
            at = lengths == p
            assert row["n"] == int(at.sum())
            if not row["n"]:
                assert row["mean_attention"] is None
                continue
            assert row["mean_attention"] == pytest.approx(float(pattern[at].mean()), abs=1e-6)
            assert row["n_attended"] == int((pattern[at] > 0.3).sum())
            share = float(pattern[at].sum() / pattern[counted].sum())
            assert row["attention_share"] == pytest.approx(share, abs=1e-6)
            every = attends_by_document(pattern, counted, documents)
            own = attends_by_document(pattern, at, documents)
            n_pairs = [int(at[torch.from_numpy(documents == d)].sum()) for d in range(8)]
            assert row["n_documents"] == sum(n > 0 for n in n_pairs)
            for name, whole in (("attended_rate", n_pairs), ("attended_share", every)):
                found = (row[f"{name}_ci_low"], row[f"{name}_ci_high"])
                expected = share_interval(list(zip(own, whole, strict=True)))
                assert found == pytest.approx(expected, abs=1e-9)
            weights = resample_counts(8, 30, 0)
            sums, totals = (
                [float((pattern * m)[torch.from_numpy(documents == d)].sum()) for d in range(8)]
                for m in (at, counted)
            )
            drawn = {
                "attention": [w @ sums / (w @ n_pairs) for w in weights if w @ n_pairs],
                "attention_share": [w @ sums / (w @ totals) for w in weights],
            }
            for name, means in drawn.items():
                found = (row[f"{name}_ci_low"], row[f"{name}_ci_high"])
                if row["n_documents"] < 2 and name == "attention":
                    assert found == (None, None)
                else:
                    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-6)
            pairs = [
                (b, i, s) for b, i, s in at.nonzero().tolist() if i < 29 and ids[b, i + 1] != bos
            ]
            hits = sum(int(ids[b, s] == ids[b, i + 1]) for b, i, s in pairs)
            assert row["n_next"] == len(pairs)
            assert row["source_is_next_rate"] == pytest.approx(hits / len(pairs))
        assert sum(row["attention_share"] or 0 for row in rows) == pytest.approx(1, abs=1e-6)
        own = (result.attended.layer == layer) & (result.attended.head == head)
        expected = ((lengths >= 2) & (pattern > 0.3)).nonzero().numpy()
        a = result.attended
        found = np.stack([a.sequence[own], a.destination[own], a.source[own]], axis=1)
        np.testing.assert_array_equal(found, expected)
        values = pattern[tuple(expected.T)]
        np.testing.assert_allclose(a.attention[own], values, atol=1e-6)


def test_planted_heads_in_text(model: LanguageModel, text: Tensor) -> None:
    frame = prefix_corpus(model, text, n_bootstrap=20).frame
    short, long = (frame.filter(layer=at[0], head=at[1]) for at in (SHORT, LONG))
    assert short.filter(pl.col("prefix_length").is_between(1, 4))["mean_attention"].min() > 0.99
    assert long.filter(prefix_length=1)["mean_attention"].item() < 0.01
    assert long.filter(pl.col("prefix_length").is_between(2, 4))["attended_rate"].min() == 1.0
    assert frame.filter(prefix_length=4)["n"].unique().to_list() == [6]


# ---- edits of text -------------------------------------------------------------------------------


def attended_everywhere(ids: Tensor, bos: int) -> AttendedCases:
    """A head that attends to every case of prefix length >= 2."""
    sequence, destination, source = (prefix_lengths(ids, bos) >= 2).nonzero().numpy().T
    zeros = np.zeros(len(sequence), dtype=np.int64)
    return AttendedCases(zeros, zeros, sequence, destination, source, np.ones(len(sequence)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 6))
def test_edits_change_one_token_each_and_leave_the_prefix_they_should(
    organism: LanguageModel, seed: int, letters: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = 5 + torch.randint(0, letters, (12, 24), generator=generator)
    ids[:, 0] = ids[3, 9] = bos = organism.bos_token_id
    # Other rows have other tokens, from which replacements are drawn.
    ids[6:] += 20 * (ids[6:] != bos)
    attended = attended_everywhere(ids, bos)
    cases = editable_cases(ids, attended, bos)
    edited = edited_sequences(organism, ids, cases, seed=seed)
    assert edited.shape == (len(EDITS), len(cases.sequence), 24)
    original = ids[torch.from_numpy(cases.sequence)]
    for edit, name in enumerate(EDITS):
        changed = (edited[edit] != original).nonzero().numpy()
        np.testing.assert_array_equal(changed[:, 0], np.arange(len(original)))
        np.testing.assert_array_equal(changed[:, 1], cases.positions()[edit])
        lengths = prefix_lengths(edited[edit], bos, longest=24) if len(original) else None
        for row in range(len(original)):
            assert lengths is not None
            i, s, p = cases.destination[row], cases.source[row], cases.prefix_length[row]
            new = int(edited[edit, row, changed[row, 1]])
            assert new not in original[row].tolist()
            assert new in ids
            plain = [BOS if token == bos else token for token in original[row].tolist()]
            assert p == slow_prefix_length(plain, int(i), int(s), 24)
            assert lengths[row, i, s] == (1 if name == "match" else p)


def test_planted_heads_under_edits(model: LanguageModel, text: Tensor) -> None:
    attended = prefix_corpus(model, text, n_bootstrap=20).attended
    frame = prefix_intervention(
        model, text, attended, [SHORT, LONG, (1, 3)], n_cases=50, n_bootstrap=50
    )
    assert frame.schema == polars_schema(table_spec("prefix_induction_intervention"))
    assert frame["edit"].to_list() == [*EDITS] * 3
    rows = {(row["layer"], row["head"], row["edit"]): row for row in frame.to_dicts()}
    for head in (SHORT, LONG):
        for edit in EDITS:
            row = rows[*head, edit]
            # 6 rows each with blocks of 2, 3 and 4 tokens: 1 + 2 + 3 matches of 2 and more.
            assert row["n"] == row["n_editable"] == row["n_attended"] == 36
            assert row["n_documents"] == 18  # every sequence: none were given
            breaks = head == LONG and edit == "match"
            assert row["attention_before"] > 0.99
            assert row["attention_after"] == pytest.approx(0 if breaks else 1, abs=0.01)
            assert row["drop_ci_low"] <= row["mean_drop"] <= row["drop_ci_high"]
            expected = None if edit != "match" else pytest.approx(int(breaks), abs=0.01)
            assert row["excess_drop"] == row["excess_ci_low"] == expected
            assert row["still_attended_rate"] == (0 if breaks else 1)
    nothing = rows[1, 3, "match"]
    assert (nothing["n"], nothing["attention_before"], nothing["drop_ci_low"]) == (0, None, None)


def test_heads_share_their_cases(model: LanguageModel, text: Tensor) -> None:
    """With fewer cases than there are, both heads get the same ones, and the same every time."""
    attended = prefix_corpus(model, text, n_bootstrap=20).attended
    drawn = [
        prefix_intervention(model, text, attended, [SHORT, LONG], n_cases=9, n_bootstrap=20)
        for _ in range(2)
    ]
    assert drawn[0].equals(drawn[1])
    means = drawn[0].group_by("edit").agg(pl.col("mean_prefix_length").n_unique())
    assert means["mean_prefix_length"].to_list() == [1, 1, 1]
    assert drawn[0]["n"].unique().to_list() == [9]


def test_text_without_cases_or_replacements(model: LanguageModel, text: Tensor) -> None:
    plain = torch.arange(20)[None].repeat(2, 1)
    attended = prefix_corpus(model, plain, n_bootstrap=20).attended
    frame = prefix_intervention(model, plain, attended, [SHORT], n_bootstrap=20)
    assert frame["n"].to_list() == [0, 0, 0]
    repeated = torch.tensor([[BOS, *range(1, 10), 2, 3, 4, 5, 6]])
    cases = editable_cases(repeated, attended_everywhere(repeated, BOS), BOS)
    assert len(cases.sequence) > 0
    with pytest.raises(DatasetError, match=r"9 different tokens .* give more text"):
        edited_sequences(model, repeated, cases, seed=0)
    with pytest.raises(DatasetError, match="must start with BOS"):
        prefix_corpus(model, text[:, 1:])
    with pytest.raises(DatasetError, match=r"41 tokens do not fit .* \(40\)"):
        prefix_corpus(model, torch.zeros(1, 41, dtype=torch.long))
    with pytest.raises(DatasetError, match=r"shape \(0, 5\)"):
        prefix_corpus(model, torch.zeros(0, 5, dtype=torch.long))
