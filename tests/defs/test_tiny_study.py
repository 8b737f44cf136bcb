"""A whole study, materialized: tables, provenance, checks, queries, export."""

from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest

from mechinterp_assets.app.queries import all_queries
from mechinterp_assets.interventions.published import PUBLISHED
from mechinterp_assets.orchestration.plan import stages
from mechinterp_assets.storage.declarations import table_specs
from tests.defs.conftest import Materialized

# Tables that may be empty: nobody has labelled this study's heads, it leaves out no norms.
MAY_BE_EMPTY = {"head_labels", "head_label_summary", "activation_outliers", "sae_adoption"}


def test_every_stage_succeeds_and_every_check_passes(tiny: Materialized) -> None:
    assert [result.success for result in tiny.results] == [True] * len(stages())
    checks = [check for result in tiny.results for check in result.checks]
    assert {check.asset_key.to_user_string() for check in checks} == set(table_specs())
    assert all(check.passed for check in checks)


def test_every_table_has_rows_of_every_partition(tiny: Materialized) -> None:
    for name in table_specs():
        partitions = tiny.lake.partitions(name)
        assert partitions in ([tiny.study.study], tiny.study.sites), name
        rows = tiny.lake.read(name).collect().height
        assert rows > 0 or name in MAY_BE_EMPTY, name


def test_every_row_can_be_traced(tiny: Materialized) -> None:
    runs = {result.run_id for result in tiny.results}
    for name, spec in table_specs().items():
        frame = tiny.lake.read(name).collect()
        if frame.is_empty():
            continue
        assert set(frame["run_id"]) <= runs, name
        assert set(frame["formula_version"]) == {spec.formula_version}, name
        assert set(frame["study"]) == {"tiny"}, name
        assert frame["model_version"].null_count() == 0 or name == "intervention_summary", name
    features = tiny.lake.read("feature_statistics", "tiny.L02").collect()
    sae = tiny.lake.read("attention_sae", "tiny.L02").collect()
    model = tiny.lake.read("language_model", "tiny").collect()
    assert features["sae_version"][0] == sae["weights_hash"][0]
    assert features["model_version"][0] == model["weights_hash"][0]
    assert sae["corpus_version"][0] == tiny.lake.data_version("tokenized_corpus", "tiny")


def test_nothing_is_stale(tiny: Materialized) -> None:
    assert tiny.lake.sql("FROM stale_partitions WHERE study = 'tiny'").is_empty()


def test_experiments_of_the_study_are_in_the_one_table(tiny: Materialized) -> None:
    summary = tiny.lake.read("intervention_summary", "tiny").collect().filter(metric="logit_diff")
    own = [f"splice:sae:L{layer}:all:vs-mean_counterfactual" for layer in (0, 2)]
    splices = summary.filter(pl.col("intervention").is_in([*own, "set:both"]))
    assert splices["n"].to_list() == [4, 4, 4]
    assert set(splices["weights"]) == {"raw"}
    assert splices["recovered_from_ablated"].null_count() == 0
    patches = summary.filter(kind="activation_patching", task="gendered_pronoun")
    assert patches.height == 2
    assert patches["mean_corrupt"].null_count() == 0
    paths = summary.filter(kind="path_patching", receiver="logits")
    assert paths["task"].to_list() == ["ioi"]
    members = tiny.lake.read("intervention_sets", "tiny").collect()
    assert members.filter(intervention="set:both")["member_id"].to_list() == own


def test_published_experiments_are_in_the_same_table(tiny: Materialized) -> None:
    listed = tiny.lake.read("intervention_experiments", "tiny").collect()
    results = tiny.lake.read("intervention_results", "tiny").collect()
    summary = tiny.lake.read("intervention_summary", "tiny").collect().filter(metric="logit_diff")
    assert set(listed["experiment"]) == set(PUBLISHED)
    assert set(listed["intervention"].drop_nulls()) <= set(results["intervention"])
    once = results.filter(metric="kl").select("task", "intervention", "prompt")
    assert once.n_unique() == once.height
    by = listed.join(summary, on=["study", "task", "intervention"]).filter(
        pl.col("experiment").str.starts_with("k24_")
    )
    counts = dict(by.group_by("experiment").agg(pl.col("part").n_unique()).rows())
    # Five layers to choose from and three variants; SAEs of two layers.
    assert counts["k24_noising"] == 5 + 3
    assert counts["k24_splicing"] == 2
    assert counts["k24_cross_section"] == 1
    # Every feature that is active at S2, and both error terms.
    at_s2 = by.filter(experiment="k24_features_at_s2")
    features = at_s2.filter(kind="sae_feature_ablation").select("layer", "feature").unique()
    assert features.height > 4
    assert counts["k24_features_at_s2"] == features.height + 2
    assert {"L0 error", "L2 error"} <= set(at_s2["part"])
    # The study's own splices are not run again.
    assert set(by.filter(experiment="k24_splicing")["n"]) == {4}
    noised = by.filter(experiment="k24_noising")
    # One of the eight prompts has a second "and".
    assert set(noised.filter(source_variant="and_with")["n"]) == {7}
    assert set(noised.filter(pl.col("source_variant") != "and_with")["n"]) == {8}


def test_feature_tables_agree_with_each_other(tiny: Materialized) -> None:
    """Counts, maxima and examples of the statistics are those of the sparse activations."""
    differences = tiny.lake.sql(
        """
        WITH counted AS (
            SELECT study, layer, feature, count(*) AS n, max(activation) AS largest
            FROM feature_activations GROUP BY ALL
        )
        SELECT count(*) AS features,
               count(*) FILTER (WHERE s.n_active <> coalesce(n, 0)) AS wrong_count,
               count(*) FILTER (WHERE abs(s.max_activation - largest) > 1e-6) AS wrong_maximum,
               count(*) FILTER (WHERE e.activation <> largest) AS wrong_example
        FROM feature_statistics AS s
        LEFT JOIN counted USING (study, layer, feature)
        LEFT JOIN feature_top_examples AS e
            ON (e.study, e.layer, e.feature, e.rank) = (s.study, s.layer, s.feature, 0)
        """
    )
    assert differences.row(0) == (2 * tiny.study.sae.d_sae, 0, 0, 0)


def test_activations_are_never_at_bos(tiny: Materialized) -> None:
    at_bos = tiny.lake.sql(
        "SELECT count(*) FROM feature_activations JOIN tokenized_corpus USING (study, sequence)"
        " JOIN language_model USING (study)"
        " WHERE position = 0 OR token_ids[position + 1] = bos_token_id"
    )
    assert at_bos.item() == 0


def test_materializing_again_changes_no_content(tiny: Materialized) -> None:
    names = ["ioi_prompts", "head_scores", "attention_svd"]
    before = {name: tiny.lake.data_version(name, "tiny") for name in names}
    tiny.run(names, partition="tiny")
    assert {name: tiny.lake.data_version(name, "tiny") for name in names} == before
    assert tiny.lake.current("head_scores", "tiny").version == 2
    older = tiny.lake.sql("FROM table_version('head_scores', 1)")
    assert older.height == tiny.lake.read("head_scores", "tiny").collect().height


@pytest.mark.parametrize("query", all_queries(), ids=lambda query: query.name)
def test_worked_query(tiny: Materialized, query: object) -> None:
    from mechinterp_assets.app.queries import Query

    assert isinstance(query, Query)
    assert query.question.endswith("?")
    assert tiny.lake.query(query.sql, "tiny").height > 0, query.name


def test_comments_reach_duckdb_and_the_export(tiny: Materialized, tmp_path: Path) -> None:
    exported = tiny.lake.export(tmp_path / "results.duckdb")
    comment = table_specs()["sae_evaluation"].columns[2].comment
    query = (
        "SELECT comment FROM duckdb_columns() WHERE schema_name = 'main'"
        " AND table_name = 'sae_evaluation'"
        f" AND column_name = '{table_specs()['sae_evaluation'].columns[2].name}'"
    )
    for database in (exported, tiny.lake.database):
        with duckdb.connect(str(database), read_only=True) as con:
            assert con.sql(query).fetchall() == [(comment,)]
    with duckdb.connect(str(exported), read_only=True) as con:
        tables = {row[0] for row in con.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
        assert set(table_specs()) <= tables
        assert con.sql("SELECT count(*) FROM head_score_matrix").fetchall()[0][0] > 0


def test_materializations_carry_uniform_metadata(tiny: Materialized) -> None:
    event = tiny.instance.get_latest_materialization_event(dg.AssetKey("sae_evaluation"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert event.asset_materialization.partition in tiny.study.sites
    assert metadata["dagster/partition_row_count"].value == 1
    assert isinstance(metadata["ce_recovered"].value, float)
    row = tiny.lake.read("sae_evaluation", str(event.asset_materialization.partition)).collect()
    assert metadata["l0"].value == pytest.approx(row["l0"][0])
    pictures = [
        value.value
        for name in ("head_scores", "ioi_baseline", "feature_statistics", "intervention_summary")
        for value in _latest(tiny, name).values()
        if isinstance(value, dg.MarkdownMetadataValue) and "data:image" in str(value.value)
    ]
    assert len(pictures) >= 4
    assert all(len(str(picture)) < 1100 for picture in pictures)


def _latest(tiny: Materialized, name: str) -> dict[str, object]:
    event = tiny.instance.get_latest_materialization_event(dg.AssetKey(name))
    assert event is not None
    assert event.asset_materialization is not None
    return dict(event.asset_materialization.metadata)


def test_saes_on_disk_give_the_published_numbers(tiny: Materialized) -> None:
    from mechinterp_assets.sae.io import load_sae

    row = tiny.lake.read("attention_sae", "tiny.L02").collect().row(0, named=True)
    sae = load_sae(tiny.tensors.open("attention_sae", "tiny.L02").path)
    assert sae.weights_hash() == row["weights_hash"]
    assert (sae.d_in, sae.d_sae, sae.k) == (row["d_in"], row["d_sae"], row["k"])


def test_held_out_sequences_are_not_trained_on(tiny: Materialized) -> None:
    """Training reads the train split of the cache alone: its passes have that many rows."""
    tokens = tiny.lake.sql(
        "SELECT sum(n_tokens) AS cached FROM activation_cache WHERE layer = 2"
    ).item()
    statistics = tiny.lake.read("activation_statistics", "tiny.L02").collect()
    held_out = tiny.lake.read("tokenized_corpus", "tiny").filter(pl.col("split") == "held_out")
    assert held_out.collect().height > 0
    assert statistics["n_tokens"][0] < tokens
