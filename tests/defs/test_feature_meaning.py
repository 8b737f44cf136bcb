"""Families, proxies, matching and labels of the materialized tiny study."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import polars as pl
import pytest
import torch

from mechinterp_assets.defs.saes.sae_matching import _other_sae
from mechinterp_assets.features.families import MEASURES
from mechinterp_assets.features.settings import ComparisonSettings
from mechinterp_assets.labels.features import label_summary
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.registry import STUDIES
from mechinterp_assets.orchestration.run import Run
from mechinterp_assets.sae.io import SaeMetadata, load_sae, save_sae
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.comparisons import Target, targets
from tests.command_line import call
from tests.defs.conftest import Materialized


def test_every_feature_that_fired_has_every_measure(tiny: Materialized) -> None:
    wrong = tiny.lake.sql(
        f"""
        SELECT s.layer, s.feature, count(f.measure) AS n FROM feature_statistics AS s
        LEFT JOIN feature_families AS f USING (study, layer, feature)
        GROUP BY s.layer, s.feature, s.n_active
        HAVING n <> CASE WHEN s.n_active > 0 THEN {len(MEASURES)} ELSE 0 END
        """
    )
    assert wrong.is_empty()


def test_labels_follow_from_the_measures(tiny: Materialized) -> None:
    families = tiny.lake.read("feature_families").collect().filter(pl.col("required"))
    expected = (
        families.group_by("layer", "feature", "family")
        .agg(pl.col("meets_threshold").fill_null(False).all())
        .filter(pl.col("meets_threshold"))
    )
    labels = tiny.lake.sql("SELECT layer, feature, family FROM feature_family_labels")
    keys = ["layer", "feature", "family"]
    assert labels.sort(keys).equals(expected.select(keys).sort(keys))
    assert labels.height > 0


def test_induction_groups_divide_the_features_that_fired(tiny: Materialized) -> None:
    rows = tiny.lake.sql(
        "SELECT layer, measure, sum(n_features) AS n FROM induction_test GROUP BY ALL"
    )
    alive = dict(
        tiny.lake.sql(
            "SELECT layer, count(*) FROM feature_statistics WHERE n_active > 0 GROUP BY ALL"
        ).iter_rows()
    )
    assert all(n == alive[layer] for layer, _, n in rows.iter_rows())


def test_proxy_counts_agree_with_the_feature_tables(tiny: Materialized) -> None:
    """n_active with the statistics; one proxy's counts with SQL over activations and tokens."""
    differences = tiny.lake.sql(
        """
        WITH counted AS (
            SELECT a.layer, a.feature, count(*) AS n, sum(activation) AS total
            FROM feature_activations AS a
            JOIN tokenized_corpus AS c USING (study, sequence)
            JOIN vocabulary AS v ON v.token_id = c.token_ids[a.position + 1]
            WHERE v.token = ' and'
            GROUP BY ALL
        )
        SELECT count(*) AS n_rows,
            count(*) FILTER (WHERE p.n_active <> s.n_active) AS wrong_active,
            count(*) FILTER (WHERE p.n_active_true <> coalesce(n, 0)) AS wrong_true,
            count(*) FILTER (WHERE abs(activation_sum_true - coalesce(total, 0)) > 1e-3)
        FROM feature_proxies AS p
        JOIN feature_statistics AS s USING (study, layer, feature)
        LEFT JOIN counted USING (layer, feature)
        WHERE proxy = 'and'
        """
    ).row(0)
    assert differences[0] > 0
    assert differences[1:] == (0, 0, 0)
    mismatch = tiny.lake.sql(
        """
        SELECT count(*) FROM feature_proxy_histogram AS h
        LEFT JOIN feature_intervals AS i USING (study, layer, feature, interval)
        WHERE i.n_active IS DISTINCT FROM h.n_active OR i.high <> h.high
        """
    )
    assert mismatch.item() == 0
    sums = tiny.lake.sql(
        "SELECT sum(weight_true + weight_false) AS whole FROM feature_proxy_expected_value"
        " GROUP BY layer, proxy, feature"
    )
    assert sums["whole"].to_numpy() == pytest.approx(1, abs=1e-9)


def test_regex_proxy_agrees_with_sql(tiny: Materialized) -> None:
    """The window's text rebuilt in SQL, for one layer."""
    counted = tiny.lake.sql(
        """
        WITH words AS (
            SELECT sequence, generate_subscripts(token_ids, 1) - 1 AS position,
                unnest(token_ids) AS token_id
            FROM tokenized_corpus
        ),
        texts AS (
            SELECT sequence, position, token_id,
                sum((token_id = bos_token_id)::INT) OVER past AS document, v.token
            FROM words JOIN vocabulary AS v USING (token_id), language_model
            WINDOW past AS (PARTITION BY sequence ORDER BY position)
        ),
        windows AS (
            SELECT sequence, position,
                string_agg(token, '') OVER (
                    PARTITION BY sequence, document ORDER BY position
                    ROWS BETWEEN 3 PRECEDING AND CURRENT ROW
                ) AS text
            FROM texts, language_model WHERE token_id <> bos_token_id AND position > 0
        )
        SELECT feature, count(*) AS n FROM feature_activations
        JOIN windows USING (sequence, position)
        WHERE layer = 2 AND regexp_matches(text, ' [A-Z][a-z]+ and$')
        GROUP BY ALL ORDER BY ALL
        """
    )
    stored = tiny.lake.sql(
        "SELECT feature, n_active_true AS n FROM feature_proxies WHERE layer = 2"
        " AND proxy = 'after a name and \"and\"' AND n_active_true > 0 ORDER BY ALL"
    )
    assert stored.height > 0
    assert stored.equals(counted)


def test_layers_are_matched_in_the_residual_stream(tiny: Materialized) -> None:
    frame = tiny.lake.read("sae_matching").collect()
    assert set(frame["layer"]) == {0}
    assert set(frame["other_layer"]) == {2}
    assert set(frame["space"]) == {"residual"}
    assert set(frame["same_corpus"]) == {True}
    assert frame["encoder_cosine"].null_count() == frame.height == tiny.study.sae.d_sae
    assert frame["matched_feature"].n_unique() == frame.height
    assert (frame["best_cosine"] >= frame["matched_cosine"] - 1e-6).all()
    summary = tiny.lake.sql("FROM sae_matching_summary").row(0, named=True)
    assert 0 < summary["mean_matched_cosine"] < 1
    assert 0 < summary["random_mean_cosine"] < 0.5


def test_label_tables_hold_the_file(tiny: Materialized) -> None:
    labels = tiny.lake.read("feature_labels").collect()
    assert labels.height == 5
    stored = tiny.lake.read("feature_label_summary").collect()
    expected = label_summary(labels)
    assert stored.select(expected.columns).equals(expected)
    agreement = tiny.lake.sql("FROM feature_label_agreement").row(0, named=True)
    # ann: yes, no; bob: yes, unsure. Observed 1/2, expected 1/2 * 1/2.
    assert (agreement["n_labelled_by_both"], agreement["n_agree"]) == (2, 1)
    assert agreement["kappa"] == pytest.approx((0.5 - 0.25) / (1 - 0.25))


def test_label_sheet_of_the_study(tiny: Materialized, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    result = call(["label-sheet", "tiny", "--layer", "2", "--n", "4"])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.output)))
    sae = tiny.lake.read("attention_sae", "tiny.L02").collect()
    assert len(rows) == 4
    for row in rows:
        assert row["sae"] == sae["weights_hash"][0]
        assert row["dashboard"].endswith(f"/tiny.L02/features/{row['feature']}.html")


def test_comparisons_become_targets(tiny: Materialized) -> None:
    own = Target("tiny", 0, previous=True, required=False)
    assert targets(tiny.study, 0, STUDIES) == [own, Target("tiny", 2, previous=False)]
    assert targets(tiny.study, 2, STUDIES) == [Target("tiny", 2, previous=True, required=False)]
    named = tiny.study.model_copy(
        update={
            "comparisons": [
                ComparisonSettings.model_validate({"with": "organism", "layer": "next"}),
                ComparisonSettings(layer=2),
                ComparisonSettings(version="previous"),
            ]
        }
    )
    assert targets(named, 2, STUDIES) == [
        Target("organism", 3, previous=False),
        Target("tiny", 2, previous=True),
    ]


def test_previous_version_is_the_newest_with_other_weights(
    tiny: Materialized, organism: LanguageModel, tmp_path: Path
) -> None:
    sae = load_sae(tiny.tensors.open("attention_sae", "tiny.L02").path)
    store = Tensors(tmp_path)
    run = cast(Run, SimpleNamespace(inputs=tiny.inputs(tensors=store), model=organism))
    target = Target("tiny", 2, previous=True, required=False)
    assert _other_sae(run, target, sae) is None
    decoders = [torch.randn_like(sae.W_dec), torch.randn_like(sae.W_dec), sae.W_dec, sae.W_dec]
    for number, decoder in enumerate(decoders):
        sae.W_dec = decoder
        with store.writer("attention_sae", "tiny.L02", Provenance("tiny", f"r{number}", "1")) as w:
            save_sae(w.folder, sae, SaeMetadata.of(organism, 2, context_size=64))
    found = _other_sae(run, target, sae)
    assert found is not None
    assert torch.equal(found.W_dec, decoders[1])
