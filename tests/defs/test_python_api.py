"""A materialized study opened from Python: the same rows as in SQL, objects that fit the tables."""

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

import mechinterp_assets as mi
from mechinterp_assets.labels.files import LabelError
from mechinterp_assets.prompts.ioi import PromptError
from tests.conftest import HANGS
from tests.defs.conftest import Materialized


@pytest.fixture(scope="module")
def study(tiny: Materialized) -> mi.OpenedStudy:
    """The tiny study, opened by its name and home."""
    return mi.open("tiny", home=tiny.home)


# ---- tables --------------------------------------------------------------------------------------


def test_a_table_is_the_same_as_a_frame_lazily_as_a_relation_and_in_sql(
    study: mi.OpenedStudy,
) -> None:
    table = study.tables["head_scores"]
    order = ["layer", "head", "score", "mode", "reference"]
    frame = table.frame().sort(order)
    assert frame.height == table.n_rows > 0
    assert frame.equals(table.lazy().collect().sort(order))
    assert frame.equals(table.relation().pl().sort(order))
    assert frame.equals(
        study.sql("FROM head_scores WHERE study = getvariable('study')")
        .select(frame.columns)
        .sort(order)
    )
    assert (
        study.sql("SELECT count(*) FROM head_scores WHERE score = $score", score="no").item() == 0
    )


def test_every_table_and_view_can_be_read_and_says_what_its_columns_mean(
    study: mi.OpenedStudy,
) -> None:
    listed = study.tables.frame()
    for name, rows, comment in listed.iter_rows():
        table = study.tables[name]
        frame = table.lazy().head(3).collect() if not table.is_view else table.frame()
        assert list(table.comments) == frame.columns, name
        assert all(table.comments.values()), name
        assert comment, name
        assert rows is None or rows == table.lazy().select(pl.len()).collect().item(), name
        if "study" in frame.columns:
            assert set(frame["study"].unique()) <= {"tiny"}, name


def test_layers_of_a_table_are_cut_out(study: mi.OpenedStudy) -> None:
    table = study.tables.feature_statistics
    assert study.layers == [0, 2]
    assert table.frame()["layer"].unique().sort().to_list() == [0, 2]
    assert table.frame(layer=2)["layer"].unique().to_list() == [2]
    assert study.tables["head_scores"].frame(layer=1)["layer"].unique().to_list() == [1]
    assert study.features(2)["layer"].unique().to_list() == [2]
    with pytest.raises(
        mi.NotThereError, match="no rows of layer 1 of tiny; `mechinterp materialize"
    ):
        table.frame(layer=1)
    assert "sae_version" in table.frame(provenance=True).columns


def test_rows_with_some_values_are_those_of_the_frame(study: mi.OpenedStudy) -> None:
    for name, values in (
        ("feature_head_attribution", {"layer": 2, "feature": 5}),
        ("feature_head_attribution", {"head": 3}),
        ("feature_overview", {"layer": 2, "feature": 5}),
        ("head_roles", {"role": "induction"}),
        ("ioi_prompts", {"variant": "base"}),
    ):
        table = study.tables[name]
        assert table.where(**values).height > 0, name
        expected = table.frame().filter(**values)
        assert sorted(map(repr, table.where(**values).rows())) == sorted(map(repr, expected.rows()))
    with pytest.raises(mi.NotThereError, match="head_roles has no column feature"):
        study.tables["head_roles"].where(feature=1)


def test_names_that_do_not_exist_are_answered(study: mi.OpenedStudy, tiny: Materialized) -> None:
    with pytest.raises(mi.NotThereError, match="did you mean 'head_scores'"):
        study.tables["head_score"]
    with pytest.raises(AttributeError, match="did you mean 'head_scores'"):
        _ = study.tables.head_score
    with pytest.raises(mi.NotThereError, match=r"nothing of study 'tinny' .*did you mean 'tiny'"):
        mi.open("tinny", home=tiny.home)
    assert mi.materialized_studies(tiny.home)["study"].to_list() == ["tiny"]


# ---- features and heads --------------------------------------------------------------------------


def strongest(study: mi.OpenedStudy, layer: int) -> mi.Feature:
    """A feature with examples."""
    rows = study.tables["feature_statistics"].frame(layer=layer)
    return study.feature(layer, rows.sort("max_activation", descending=True)["feature"][0])


def test_a_feature_is_its_rows(study: mi.OpenedStudy) -> None:
    feature = strongest(study, 2)
    assert feature.statistics["max_activation"] == feature.examples[0].activation
    assert feature.heads["attribution"].sum() == pytest.approx(1)
    for example in feature.examples:
        at = example.position - example.window_start
        assert example.activations[at] == example.activation
        assert example.tokens[at] == study.sql(
            "SELECT token FROM vocabulary JOIN tokenized_corpus USING (study)"
            " WHERE sequence = $sequence AND token_id = token_ids[$position + 1]",
            sequence=example.sequence,
            position=example.position,
        ).item()  # fmt: skip


def test_attributions_of_an_example_sum_to_its_pre_activation(study: mi.OpenedStudy) -> None:
    feature = strongest(study, 2)
    rows = {row["rank"]: row for row in feature.rows("feature_dfa").iter_rows(named=True)}
    attributed = [example for example in feature.examples if example.dfa_by_source]
    assert {example.rank for example in attributed} == rows.keys()
    for example in attributed:
        whole = rows[example.rank]["pre_activation"] - rows[example.rank]["constant"]
        assert sum(example.dfa_by_source or ()) == pytest.approx(whole, abs=1e-4)
        assert sum(example.dfa_by_head or ()) == pytest.approx(whole, abs=1e-4)
        assert len(example.dfa_by_source or ()) == example.position + 1


def test_the_sae_and_the_model_give_what_the_tables_say(study: mi.OpenedStudy) -> None:
    """The activation of the first example, computed anew from its tokens."""
    feature = strongest(study, 2)
    example = feature.examples[0]
    ids = study.sql(
        "SELECT token_ids FROM tokenized_corpus WHERE sequence = $n", n=example.sequence
    ).item()
    kept: list[torch.Tensor] = []
    with study.model.replaced_z(2, lambda z: kept.append(z) or z), torch.no_grad():
        study.model.hf(torch.tensor([ids.to_list()]))
    activations = study.sae(2).encode(kept[0][:, example.position])[0]
    # The cache holds z in bfloat16.
    assert float(activations[feature.index]) == pytest.approx(example.activation, rel=0.02)


def test_what_runs_on_a_device_leaves_the_sae_on_the_cpu(
    study: mi.OpenedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study.model, "device", torch.device("meta"))
    assert study._sae_at_model(2).W_enc.is_meta
    assert study.sae(2).W_enc.device.type == "cpu"


def test_a_head_is_its_rows(study: mi.OpenedStudy) -> None:
    head = study.head("L1H0")
    assert (head.name, head.layer, head.index) == ("L1H0", 1, 0)
    assert (
        head.scores.height == study.tables["head_score_tests"].frame(layer=1).filter(head=0).height
    )
    for other in (study.head("1.0"), study.head(1, 0)):
        assert other.scores.equals(head.scores)
    for row in head.examples.iter_rows(named=True):
        assert row["tokens"][row["source"]] == row["source_token"]
        assert row["tokens"][row["destination"]] == row["destination_token"]
        assert sum(row["attention_row"]) == pytest.approx(1, abs=1e-3)
    assert study.heads("induction")[0].roles == study.head(study.heads("induction")[0].name).roles
    for role in study.tables["head_roles"].frame()["role"].unique():
        assert all(role in one.roles for one in study.heads(role))
    assert len(study.heads()) == 40


def test_features_and_heads_that_do_not_exist_are_answered(study: mi.OpenedStudy) -> None:
    with pytest.raises(
        mi.NotThereError, match=r"layer 2 of tiny has no feature 128; it has 0\.\.127"
    ):
        study.feature(2, 128)
    with pytest.raises(mi.NotThereError, match="layer 1 of tiny has no SAE; layers with one: 0, 2"):
        study.feature(1, 0)
    with pytest.raises(mi.NotThereError, match="no scores of L7H0; they are L0H0 to L4H7"):
        study.head("7.0")
    with pytest.raises(
        mi.NotThereError, match="no head of tiny is 'inductive'; did you mean 'induc"
    ):
        study.heads("inductive")
    with pytest.raises(mi.NotThereError, match="has no column feature"):
        study.feature(2, 0).rows("head_scores")


def test_reading_and_showing_imports_no_torch(tiny: Materialized) -> None:
    program = (
        f"import mechinterp_assets as mi; s = mi.open('tiny', home={str(tiny.home)!r})\n"
        "for one in (s, s.tables, s.tables.head_scores, s.feature(2, 0), s.head('1.0')):\n"
        "    assert one._repr_html_() and repr(one)\n"
        "import sys; print('loaded:', *[m for m in ('torch', 'dagster', 'matplotlib', 'networkx')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGS, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded:"


# ---- circuits and origins ------------------------------------------------------------------------


def test_a_trace_is_the_table_as_a_graph(study: mi.OpenedStudy) -> None:
    for task in ("ioi", "gendered_pronoun"):
        rows = study.tables["trace_graph"].frame().filter(task=task)
        graph = study.trace(task)
        assert graph.number_of_edges() == rows.height
        found = {(up, down, e["side"], e["n_prompts"]) for up, down, e in graph.edges(data=True)}
        assert found == {
            (
                f"L{row['upstream_layer']}H{row['upstream_head']}",
                f"L{row['downstream_layer']}H{row['downstream_head']}",
                row["side"],
                row["n_prompts"],
            )
            for row in rows.iter_rows(named=True)
        }
    edges = study.tables["trace_edges"].frame().filter(task="ioi", kept=True)
    prompt = edges.filter(upstream_kind="head")["prompt"][0]
    one = study.trace(prompt=prompt)
    assert 0 < one.number_of_edges() <= study.trace().number_of_edges()
    assert all(edge["n_prompts"] == 1 for _, _, edge in one.edges(data=True))
    with pytest.raises(mi.NotThereError, match=r"task 'successor'; traced tasks: gendered_.*, ioi"):
        study.trace("successor")


def test_the_origin_of_a_number_names_what_it_was_made_of(
    study: mi.OpenedStudy, tiny: Materialized
) -> None:
    origin = study.why("head_scores", "value", score="induction")
    assert list(origin.columns) == ["value"]
    assert origin.version == tiny.lake.current("head_scores", "tiny")
    assert origin.settings["heads.sequences"] == "8"
    assert origin.tables.keys() >= {"language_model/tiny", "tokenized_corpus/tiny"}
    assert "Olsson et al. 2022" in origin.definition
    deep = study.why("feature_dfa", layer=2)
    assert deep.sources.keys() >= {"attention_sae/tiny.L02", "activation_cache/tiny.L02"}
    assert deep.stale == ()
    assert "setting features.dfa_examples = 2" in deep.text()
    with pytest.raises(mi.NotThereError, match="name a layer"):
        study.why("feature_dfa")
    with pytest.raises(mi.NotThereError, match=r"head_roles is a view, .* from head_scores"):
        study.why("head_roles")
    with pytest.raises(mi.NotThereError, match="no column 'values'; did you mean 'value'"):
        study.why("head_scores", "values")
    with pytest.raises(mi.NotThereError, match="no score 'inducton'; did you mean 'induction"):
        study.why("head_scores", score="inducton")


# ---- experiments ---------------------------------------------------------------------------------


def test_own_interventions_are_those_of_the_study(study: mi.OpenedStudy) -> None:
    """The study's own experiments, asked for from Python, give the stored numbers."""
    results = study.intervene(
        [
            {"kind": "sae_splice", "layer": [0, 2], "versus": "mean_counterfactual"},
            {"kind": "sae_feature_ablation", "layer": 0, "feature": 1, "position_role": "S2"},
        ],
        limit=4,
    )
    keys = ["intervention", "prompt", "metric"]
    stored = study.tables["intervention_results"].frame().filter(task="ioi")
    both = results.join(stored, on=keys, suffix="_stored")
    assert both.height == results.height == 3 * 4 * 4
    for name in ("clean", "patched"):
        gap = (both[name] - both[f"{name}_stored"]).abs().max()
        assert gap == pytest.approx(0, abs=1e-4)


def test_own_prompts_have_answers_where_they_are_given(study: mi.OpenedStudy) -> None:
    ablation = [{"kind": "head_ablation", "mode": "zero", "layer": 3, "head": 3}]
    text = "When Mary and John went to the store, John gave a drink to"
    results = study.intervene(ablation, [(text, " Mary", " John")])
    assert results.filter(metric="logit_diff")["clean"].is_not_null().all()
    silent = study.intervene(ablation, [text])
    assert silent.drop_nulls("clean")["metric"].unique().to_list() == ["kl"]
    changed = {m: results.filter(metric=m)["patched"].item() for m in ("kl", "logit_diff")}
    assert silent.filter(metric="kl")["patched"].item() == pytest.approx(changed["kl"], abs=1e-6)
    with pytest.raises(
        PromptError, match="' Mary' and the wrong answer ' Mary' begin with the same"
    ):
        study.intervene(ablation, [(text, " Mary", " Mary")])
    with pytest.raises(mi.NotThereError, match="no prompts of task 'ioy'; did you mean 'ioi'"):
        study.intervene(ablation, task="ioy")


def test_a_prompt_that_was_never_in_the_study_is_explored(study: mi.OpenedStudy) -> None:
    """Activations are those of the SAE; attribution over sources sums to them."""
    seen = study.explore("When Mary and John went to the store, John gave a drink to")
    assert seen.tokens["token"][-1] == " to"
    assert set(seen.features["layer"].unique()) == {0, 2}
    row = seen.features.filter(layer=2).sort("activation", descending=True).row(0, named=True)
    dfa = seen.dfa(2, row["feature"], row["position"])
    # Attribution is in float64, the SAE encodes in float32.
    assert dfa["value"].sum() == pytest.approx(row["activation"], rel=1e-5)
    assert study.explore(seen.token_ids.tolist()).features.equals(seen.features)


# ---- labels --------------------------------------------------------------------------------------


def test_labels_are_written_where_the_study_reads_them(
    study: mi.OpenedStudy, tmp_path: Path
) -> None:
    file = tmp_path / "mine.csv"
    feature = study.feature(2, 3)
    assert feature.label("names, after 'and'", verdict="yes", rater="ann", file=file) == file
    before = file.read_bytes()
    with pytest.raises(
        LabelError, match=r"mine\.csv:3: rater 'ann' has labelled layer 2 feature 3"
    ):
        feature.label("other", verdict="no", rater="ann", file=file)
    with pytest.raises(LabelError, match="verdict is 'maybe'; write yes, no, unsure"):
        feature.label("other", verdict="maybe", rater="bob", file=file)
    with pytest.raises(LabelError, match="rater is empty"):
        feature.label("other", verdict="yes", rater=" ", file=file)
    assert file.read_bytes() == before
    feature.label("places", verdict="no", rater="ann", file=file, replace=True)

    from mechinterp_assets.labels.features import read_labels

    read = read_labels({"mine.csv": file.read_text()}, "tiny", study._labelled_saes)
    assert read.select("layer", "feature", "rater", "label", "verdict").rows() == [
        (2, 3, "ann", "places", "no")
    ]
    heads = tmp_path / "heads.csv"
    study.head("2.1").label(class_="bisemantic", rater="ann", file=heads)
    study.head("2.1").label("names", rater="ann", feature=3, file=heads)
    assert len(heads.read_text().splitlines()) == 3
    with pytest.raises(LabelError, match="class is 'two'"):
        study.head("2.1").label(class_="two", rater="bob", file=heads)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads.csv", "mine.csv"]


def test_without_a_file_the_only_listed_one_is_taken(
    study: mi.OpenedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = shutil.copy(study.settings.labels[0], tmp_path / "listed.csv")
    monkeypatch.setitem(
        study.__dict__, "settings", study.settings.model_copy(update={"labels": [Path(listed)]})
    )
    before = Path(listed).read_text()
    study.feature(0, 5).label("names", verdict="unsure", rater="a new one")
    assert Path(listed).read_text().startswith(before)
    with pytest.raises(
        mi.NotThereError, match="lists no file under `head_labels`; name one: file="
    ):
        study.head("2.1").label(class_="bisemantic", rater="ann")


# ---- what a notebook shows -----------------------------------------------------------------------


def test_what_is_shown_is_what_is_there(study: mi.OpenedStudy) -> None:
    feature = strongest(study, 2)
    shown, text = feature._repr_html_(), feature.text()
    for head, _ in feature.heads.head(2).iter_rows():
        assert f"L2H{head} " in shown
        assert f"L2H{head} " in text
    assert text.count("**") == 2 * min(8, len(feature.examples))
    assert "One row per attention head and score" in study.tables.head_scores._repr_html_()
    assert "feature_statistics" in study.tables._repr_html_()
    assert "layers with an SAE: 0, 2" in repr(study)
