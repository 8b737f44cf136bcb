"""The explorer on a materialized study: answers are those of the engine, pages that it links exist,
and in headless Chromium every view works, reopens from its address and shows hostile text as text.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import pytest
import torch
from starlette.routing import Match

import mechinterp_assets as mi
from mechinterp_assets.app.dashboard_app import dashboard_app
from mechinterp_assets.app.kept_prompts import keep_prompt
from mechinterp_assets.app.known_studies import model_of
from mechinterp_assets.app.request_check import RequestCheck
from mechinterp_assets.dashboards.live.explorer import (
    Asked,
    CancelledError,
    LiveExplorer,
    RefusedError,
)
from mechinterp_assets.dashboards.live.explorer_questions import read_question
from mechinterp_assets.dashboards.tokens import token_label
from mechinterp_assets.explore.exploration import Exploration
from mechinterp_assets.explore.prompt_sets import read_prompt_sets
from mechinterp_assets.model.shape import read_shape
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.studies.registry import Registry, load_registry
from mechinterp_assets.studies.study import site_key
from tests.attribution.random_models import random_gpt2
from tests.chromium import driven, find_chromium
from tests.defs.conftest import Materialized
from tests.foreign_sae import write_residual
from tests.served_app import served_app

TEXT = "When Mary and John went to the store, John gave a drink to"
DRIVER = Path(__file__).with_name("explorer_browser.cjs")


@pytest.fixture(scope="module")
def home(tiny: Materialized) -> Iterator[Materialized]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHINTERP_HOME", str(tiny.home))
        yield tiny


@pytest.fixture(scope="module")
def explorer(home: Materialized) -> LiveExplorer:
    return LiveExplorer(
        home.lake,
        home.tensors,
        load_registry,
        model_of,
        lambda study, text: str(keep_prompt(study.study, text)),
    )


def silent(what: str, done: int, of: int) -> None:
    pass


def ask(explorer: LiveExplorer, question: str, **more: Any) -> dict[str, Any]:
    given = {"ask": question, "study": "tiny", **more}
    found = explorer.answer(read_question(json.dumps(given).encode()), Asked(silent, Event()))
    # It goes over the wire as strict JSON.
    assert json.loads(json.dumps(found, allow_nan=False)) is not None
    return found


@pytest.fixture(scope="module")
def explored(home: Materialized, explorer: LiveExplorer) -> Exploration:
    """The engine's own, of the same model and SAEs."""
    ask(explorer, "open")
    return explorer._opened["tiny"].explorer.explore(TEXT)


def test_answers_are_the_engines(explorer: LiveExplorer, explored: Exploration) -> None:
    prompt = ask(explorer, "prompt", text=TEXT)
    assert [row["token"] for row in prompt["tokens"]] == [
        token_label(token) for token in explored.tokens["token"]
    ]
    assert prompt["layers"] == list(explored.saes)
    layer = prompt["layers"][-1]
    last = len(explored) - 1
    found = ask(explorer, "features", text=TEXT, layer=layer)
    rows = explored.features.filter(layer=layer)
    assert found["features"] == rows.drop("layer").to_dict(as_series=False)
    feature = rows.filter(position=last)["feature"][0]
    place = {"layer": layer, "feature": feature, "position": last}

    dfa, own = ask(explorer, "dfa", text=TEXT, **place), explored.dfa(**place)
    assert dfa["activation"] == pytest.approx(own["value"].sum())
    assert sum(dfa["heads"]) + dfa["bias"] == pytest.approx(dfa["activation"])
    assert sum(dfa["sources"]) + dfa["bias"] == pytest.approx(dfa["activation"])
    assert sum(map(sum, dfa["matrix"])) == pytest.approx(sum(dfa["heads"]))

    node = explored.feature_node(**place)
    first = explored.parts(node).filter("can_split")["name"][0]
    parts = ask(explorer, "parts", text=TEXT, root=place, paths=[[], [first]])
    for one in parts["opened"]:
        frame = explored.parts(node, one["path"])
        assert [part["name"] for part in one["parts"]] == frame["name"].to_list()[:40]
        total = sum(part["value"] for part in one["parts"]) + one["rest"]
        assert total == pytest.approx(frame["value"].sum())

    heads = ask(explorer, "heads", text=TEXT, layer=layer, position=last)
    assert set(heads["heads"]["head"]) == set(range(prompt["n_heads"]))
    pattern = ask(explorer, "pattern", text=TEXT, layer=layer, head=1)["pattern"]
    assert [len(row) for row in pattern] == list(range(1, last + 2))
    assert all(sum(row) == pytest.approx(1, abs=0.01) for row in pattern)

    pair = {"layer": layer, "head": 1, "destination": last, "source": 2}
    slices = ask(explorer, "slices", text=TEXT, **pair)
    assert sum(slices["slices"]["term"]) == pytest.approx(slices["score"], rel=1e-4, abs=1e-4)
    answer = ask(explorer, "next", text=TEXT, position=last)["next"]
    token = answer[0]["token_id"]
    for by in ("head", "feature"):
        logits = ask(explorer, "logits", text=TEXT, position=last, token=token, by=by)
        total = sum(part["value"] for part in logits["parts"]) + logits["rest"]
        assert total == pytest.approx(logits["value"])
    edits = [{"kind": "head_scaling", "layer": 0, "head": 0, "alpha": 0}]
    what_if = ask(explorer, "what_if", text=TEXT, position=last, edits=edits)
    assert what_if["kl"] == pytest.approx(explored.what_if(edits).kl)
    other = TEXT.replace("John gave", "Mary gave")
    patched = ask(
        explorer,
        "what_if",
        text=TEXT,
        position=last,
        edits=[
            {
                "kind": "activation_patching",
                "mode": "noise",
                "site": "resid_pre",
                "layer": 0,
                "source_variant": "other",
            }
        ],
        other=other,
    )
    theirs = ask(explorer, "next", text=other, position=last)["next"]
    assert patched["tokens"][0]["token_id"] == theirs[0]["token_id"]
    assert patched["tokens"][0]["after"] == pytest.approx(theirs[0]["probability"], abs=1e-5)
    difference = ask(
        explorer,
        "difference",
        text=TEXT,
        other=other,
        layer=layer,
        position=last,
        other_position=last,
    )
    assert any(difference["features"]["difference"])


@pytest.mark.parametrize(
    ("question", "more"),
    [
        ("prompt", {}),
        ("features", {"layer": 2}),
        ("heads", {"layer": 1, "position": 5}),
        ("pattern", {"layer": 1, "head": 0}),
        ("slices", {"layer": 1, "head": 0, "destination": 6, "source": 2}),
        ("next", {"position": 6}),
        ("logits", {"position": 6, "token": " the", "versus": " a", "by": "feature"}),
        ("parts", {"root": {"token": " the", "position": 6}, "paths": [[], ["attention:L1"]]}),
        (
            "what_if",
            {
                "position": 6,
                "edits": [{"kind": "head_scaling", "layer": 0, "head": 0, "alpha": 0.5}],
                "other": TEXT.replace("John gave", "Mary gave"),
            },
        ),
    ],
)
def test_the_code_that_is_shown_runs(
    explorer: LiveExplorer, question: str, more: dict[str, Any]
) -> None:
    """Each line behind the study's opening is an expression or an assignment that works."""
    names: dict[str, Any] = {}
    code = ask(explorer, question, text=TEXT, **more)["code"]
    *start, last = code.splitlines()
    exec("\n".join(start), names)
    found = eval(last, names)
    assert (
        names["explored"].token_ids.tolist()
        == explorer._opened["tiny"].explorer.explore(TEXT).token_ids.tolist()
    )
    frame = getattr(found, "tokens", found)
    assert isinstance(frame, pl.DataFrame)
    assert len(frame)


def test_features_have_names_and_pages_that_exist(
    explorer: LiveExplorer, home: Materialized
) -> None:
    layer = home.study.layers[-1]
    found = ask(explorer, "features", text=TEXT, layer=layer)
    texts = home.lake.read("vocabulary", "tiny").sort("token_id").collect()["token"].to_list()
    first = (
        home.lake.read("feature_top_examples", site_key("tiny", layer))
        .filter(pl.col("rank") == 0)
        .collect()
    )
    fires_on = dict(first.select("feature", "token_id").iter_rows())
    app = dashboard_app()
    assert found["names"]
    for key, name in found["names"].items():
        feature = int(key.split(".")[1])
        assert name.get("fires_on") == (
            token_label(texts[fires_on[feature]]) if feature in fires_on else None
        )
        path = "/" + name["href"].removeprefix("../")
        scope = {"type": "http", "path": path, "method": "GET", "headers": [], "root_path": ""}
        assert any(route.matches(scope)[0] is Match.FULL for route in app.routes[:-1])
    heads = ask(explorer, "heads", text=TEXT, layer=layer, position=3)
    assert heads["heads_href"] == "../tiny.heads/"


def sql_of(home: Materialized, answer: dict[str, Any], of: str) -> pl.DataFrame:
    """Rows of the statement of an answer, as it is pasted."""
    found = {one["of"]: one["sql"] for one in answer["sql"]}
    assert of in found, list(found)
    return home.lake.sql(found[of])


def test_sql_of_features_says_what_is_shown_of_any_prompt(
    explorer: LiveExplorer, home: Materialized, explored: Exploration
) -> None:
    layer = home.study.layers[-1]
    other = f"{TEXT} the"  # TEXT is a prompt of the study
    answer = ask(explorer, "features", text=other, layer=layer)
    assert [one["of"] for one in answer["sql"]] == ["what is known of the features"]
    known = sql_of(home, answer, "what is known of the features")
    rows = {row["feature"]: row for row in known.to_dicts()}
    for key, name in answer["names"].items():
        row = rows[int(key.split(".")[1])]
        assert name.get("meaning") == row["meaning"]
        for token in ("fires_on", "promotes"):
            assert name.get(token) == (None if row[token] is None else token_label(row[token]))
    assert any("meaning" in name for name in answer["names"].values())

    feature = answer["features"]["feature"][0]
    position = answer["features"]["position"][0]
    dfa = ask(explorer, "dfa", text=other, layer=layer, feature=feature, position=position)
    for one in dfa["sql"]:
        rows_of = home.lake.sql(one["sql"])
        assert len(rows_of), one["of"]
    statistics = sql_of(home, dfa, "the feature in the corpus").row(0, named=True)
    assert (statistics["layer"], statistics["feature"]) == (layer, feature)


def test_sql_of_a_kept_prompt_gives_what_is_shown(
    explorer: LiveExplorer, home: Materialized
) -> None:
    (text,), *_ = home.study.prompts.sets.values()
    prompt = ask(explorer, "prompt", text=text)
    last, layer = len(prompt["tokens"]) - 1, prompt["layers"][-1]

    features = ask(explorer, "features", text=text, layer=layer)
    rows = sql_of(home, features, "activations in this prompt")
    shown = pl.DataFrame(features["features"])
    for column in ("position", "feature"):
        assert rows[column].to_list() == shown[column].to_list()
    assert rows["activation"].to_list() == pytest.approx(shown["activation"].to_list())

    answer = ask(explorer, "next", text=text, position=last)
    row = sql_of(home, answer, "the next token").row(0, named=True)
    assert row["next_token_id"] == answer["next"][0]["token_id"]
    assert row["next_probability"] == pytest.approx(answer["next"][0]["probability"])
    token = answer["next"][0]["token_id"]

    logits = ask(explorer, "logits", text=text, position=last, token=token)
    effects = sql_of(home, logits, "the heads")
    heads = [part for part in logits["parts"] if part["node_kind"] == "head"]
    first = effects.head(len(heads))
    assert heads
    assert first["direct_logit_effect"].to_list() == pytest.approx([h["value"] for h in heads])
    assert [list(h) for h in first.select("layer", "head").rows()] == [
        [h["layer"], h["head"]] for h in heads
    ]

    root = {"token": token, "position": last}
    parts = ask(explorer, "parts", text=text, root=root, paths=[[]])
    tree = sql_of(home, parts, "the tree")
    assert tree["path_contribution"][0] == pytest.approx(parts["value"])
    kept = tree.filter(pl.col("parent") == 0, pl.col("node_kind") == "mlp")
    by_layer = {
        p["layer"]: p["value"] for p in parts["opened"][0]["parts"] if p["node_kind"] == "mlp"
    }
    for layer_of, value in kept.select("at_layer", "path_contribution").iter_rows():
        assert value == pytest.approx(by_layer[layer_of])
    strongest = shown.filter(position=last)["feature"][0]
    own = {"layer": layer, "feature": strongest, "position": last}
    tree = sql_of(home, ask(explorer, "parts", text=text, root=own, paths=[[]]), "the tree")
    assert tree["at_feature"][0] == strongest

    pair = home.lake.read("prompt_pairs", "tiny").collect().row(0, named=True)
    assert pair["destination"] == last
    place = {key: pair[key] for key in ("layer", "head", "destination", "source")}
    slices = ask(explorer, "slices", text=text, **place)
    row = sql_of(home, slices, "the score and its slices").row(0, named=True)
    assert row["uncapped_score"] == pytest.approx(slices["score"])
    chosen = [
        number
        for number, selected in zip(
            slices["slices"]["slice"], slices["slices"]["selected"], strict=True
        )
        if selected
    ]
    assert row["slices"] == sorted(chosen)
    heads_of = ask(explorer, "heads", text=text, layer=pair["layer"], position=last)
    attended = sql_of(home, heads_of, "the sources of the heads that are kept")
    seen = pl.DataFrame(heads_of["heads"])
    for head, source, attention in attended.iter_rows():
        match = seen.filter(head=head, source=source)["attention"]
        assert match.to_list() == pytest.approx([attention])

    edits = [{"kind": "head_scaling", "layer": 1, "head": 2, "alpha": 0}]
    changed = ask(explorer, "what_if", text=text, position=last, edits=edits)
    row = sql_of(home, changed, "the ablation").row(0, named=True)
    assert row["ablation_kl"] == pytest.approx(changed["kl"], rel=1e-4, abs=1e-8)
    half = [{**edits[0], "alpha": 0.5}]
    assert ask(explorer, "what_if", text=text, position=last, edits=half)["sql"] == []

    places = {"layer": layer, "position": last, "other_position": last - 1}
    difference = ask(explorer, "difference", text=text, other=text, **places)
    rows = sql_of(home, difference, "the difference")
    assert rows["feature"].to_list() == difference["features"]["feature"]
    assert rows["difference"].to_list() == pytest.approx(difference["features"]["difference"])
    assert ask(explorer, "pattern", text=text, layer=0, head=0)["sql"] == []


def test_the_effect_on_any_token_is_that_of_the_table(
    explorer: LiveExplorer, home: Materialized
) -> None:
    layer = home.study.layers[-1]
    table = home.lake.read("feature_logit_effects", site_key("tiny", layer)).collect()
    feature = table["feature"][0]
    own = table.filter(feature=feature)
    d_vocab = home.lake.read("vocabulary", "tiny").collect().height
    for row in own.iter_rows(named=True):
        found = ask(explorer, "logit_effect", layer=layer, feature=feature, token=row["token_id"])
        assert found["logit_effect"] == pytest.approx(row["logit_effect"], rel=1e-4, abs=1e-6)
        place = row["rank"] if row["extreme"] == "top" else d_vocab - 1 - row["rank"]
        assert found["rank"] == pytest.approx(place, abs=1)  # equal effects change places
        assert found["token"] == token_label(row["token"])
    between = ask(explorer, "logit_effect", layer=layer, feature=feature, token=" the")
    assert own["logit_effect"].min() <= between["logit_effect"] <= own["logit_effect"].max()
    names: dict[str, Any] = {}
    *start, last = between["code"].splitlines()
    exec("\n".join(start), names)
    assert eval(last, names) == pytest.approx(between["logit_effect"])
    for more, said in (
        ({"token": "no such token"}, "give one token"),
        ({"token": " the", "feature": 10**6}, "has no logit effects"),
        ({"token": 10**6}, "does not exist"),
    ):
        with pytest.raises(RefusedError, match=said):
            ask(explorer, "logit_effect", **{"layer": layer, "feature": feature, **more})


def test_residual_features_open_here_and_in_python(home: Materialized, tmp_path: Path) -> None:
    """Parts of a source are those of the notebook's engine, and have no pages of other SAEs."""
    d_model = read_shape(ORGANISM_FOLDER).d_model
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(d_model, 64, generator=generator) / 8
    sae = StandardSAE(W, torch.zeros(64), W.T.contiguous(), torch.zeros(d_model))
    write_residual(tmp_path / "resid2", sae, 2)
    study = load_registry().find("tiny")
    named = {"path": str(tmp_path / "resid{layer}"), "layers": [2]}
    with_saes = study.model_copy(update={"residual_sae": study.residual_sae.with_changes(**named)})
    with_saes._file, with_saes._n_layers = study.file, study.n_layers
    fresh = LiveExplorer(
        home.lake, home.tensors, lambda: Registry({"tiny": with_saes}, []), model_of, str
    )
    opened = mi.open("tiny", home=home.home)
    opened.__dict__["settings"] = with_saes
    seen = opened.explore(TEXT)
    layer, position, feature, _ = seen.features.filter(layer=2).row(-1)
    root = seen.feature_node(layer, feature, position)
    source = seen.parts(root).filter("can_split")["name"][0]
    first = seen.parts(root, [source]).filter(node_kind="residual_feature")["name"][0]
    paths = [[source], [source, first]]
    asked_of = {"layer": layer, "feature": feature, "position": position}
    found = ask(fresh, "parts", text=TEXT, root=asked_of, paths=paths)
    for path, answer in zip(paths, found["opened"], strict=True):
        expected = seen.parts(root, path)["value"].to_list()
        shown = [part["value"] for part in answer["parts"]]
        assert shown == pytest.approx(expected[: len(shown)], rel=1e-6, abs=1e-9)
    kinds = [part["node_kind"] for part in found["opened"][0]["parts"]]
    assert "residual_feature" in kinds
    assert "feature" not in kinds
    assert found["names"] == {}
    assert first in found["code"]
    # An SAE that was replaced is another one; one that is gone is said to be.
    write_residual(tmp_path / "resid2", StandardSAE(W, 1 + sae.b_enc, sae.W_dec, sae.b_dec), 2)
    again = ask(fresh, "parts", text=TEXT, root=asked_of, paths=paths[:1])
    assert again["opened"][0]["parts"] != found["opened"][0]["parts"]
    (tmp_path / "resid2" / "cfg.json").unlink()
    with pytest.raises(RefusedError, match=r"residual_sae: .*resid2"):
        ask(fresh, "open")


def test_questions_that_are_refused(explorer: LiveExplorer) -> None:
    studies = explorer.answer(read_question(b'{"ask": "studies"}'), Asked(silent, Event()))
    made = {study["name"]: study["made"] for study in studies["studies"]}
    assert made["tiny"]
    assert not made["gpt2-small"]
    for question, what in (
        ({"ask": "prompt", "study": "nobody", "text": "x"}, "no study 'nobody'"),
        ({"ask": "prompt", "study": "gpt2-small", "text": "x"}, "nothing of study 'gpt2-small'"),
        ({"ask": "prompt", "text": "the " * 3000}, "a prompt here|at most"),
        ({"ask": "features", "text": TEXT, "layer": 77}, "layer 77 has no SAE"),
        ({"ask": "pattern", "text": TEXT, "layer": 0, "head": 99}, "head 99 does not exist"),
        ({"ask": "next", "text": TEXT, "position": 500}, "position 500 does not exist"),
        ({"ask": "what_if", "text": TEXT, "position": 3, "edits": [{"kind": "x"}]}, "unknown kind"),
        (
            {"ask": "logits", "text": TEXT, "position": 3, "token": "no such token"},
            "give one token",
        ),
    ):
        given: dict[str, Any] = {"study": "tiny", **question}
        with pytest.raises(RefusedError, match=what):
            ask(explorer, given.pop("ask"), **given)


def test_cancelling_between_two_steps(home: Materialized) -> None:
    """The first step of opening a study happens; whoever leaves then gets no model."""
    told, cancelled = [], Event()

    def say(what: str, done: int, of: int) -> None:
        told.append(what)
        cancelled.set()

    loaded = []
    fresh = LiveExplorer(
        home.lake, home.tensors, load_registry, lambda study: loaded.append(study), lambda s, t: ""
    )
    with pytest.raises(CancelledError):
        fresh.answer(read_question(b'{"ask": "open", "study": "tiny"}'), Asked(say, cancelled))
    assert told == ["loading libraries"]
    assert loaded == []


def test_another_model_than_that_of_the_tables_is_refused(
    home: Materialized, tmp_path: Path
) -> None:
    other = random_gpt2(tmp_path)
    fresh = LiveExplorer(
        home.lake, home.tensors, load_registry, lambda study: other, lambda s, t: ""
    )
    with pytest.raises(RefusedError, match=r"weights_hash .* is not that of the study's tables"):
        ask(fresh, "open")


def test_a_prompt_is_kept_once(explorer: LiveExplorer, home: Materialized) -> None:
    hostile = 'tab\there "quoted" # and\n- a line: <b>ü</b>'
    for text in (TEXT, hostile, TEXT):
        kept = ask(explorer, "keep", text=text)["kept"]
    assert Path(kept) == home.home / "prompts" / "tiny.yaml"
    assert read_prompt_sets(Path(kept)) == {"kept": [TEXT, hostile]}
    Path(kept).write_text("kept: 3\n")
    with pytest.raises(RefusedError, match="write a list of at least one text"):
        ask(explorer, "keep", text="more")
    Path(kept).unlink()


# ---- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(home: Materialized) -> dict[str, Any]:
    chromium = find_chromium()
    layer = home.study.layers[-1]
    with served_app(RequestCheck(dashboard_app())) as url:
        asked = (f"{url}/explore/", "tiny", str(layer), TEXT)
        return driven(DRIVER, chromium, *asked, seconds=180)


def test_nothing_hostile_runs_and_only_the_server_is_asked(seen: dict[str, Any]) -> None:
    assert seen["dialogs"] == []
    assert seen["errors"] == []
    assert {request.rpartition("/")[2] for request in seen["requests"]} == {"api"}
    assert seen["hostileElements"] == 0
    assert "<img" in seen["hostileText"].replace("␣", "")


def test_no_view_is_wider_than_its_window(seen: dict[str, Any]) -> None:
    for width, found in seen["widths"].items():
        assert len(found) == 5
        assert max(found) <= int(width), (width, found)


def test_views_show_the_engines_numbers(seen: dict[str, Any], explored: Exploration) -> None:
    layer = list(explored.saes)[-1]
    rows = explored.features.filter(layer=layer, position=len(explored) - 1)
    assert seen["features"] == [str(feature) for feature in rows["feature"]]
    assert seen["tokens"] == [token_label(token) for token in explored.tokens["token"]]
    top = explored.next_tokens(None, 1)["token"][0]
    assert seen["nextToken"] == token_label(top)
    assert seen["opened"] >= 3  # levels of the tree, opened by clicks
    assert seen["changed"].startswith("The next token changes by ")
    assert "head L0H0" in seen["edits"]


def test_an_address_opens_the_same_view_again(seen: dict[str, Any]) -> None:
    assert seen["again"] == seen["before"]
    assert seen["back"] == seen["beforeWhatIf"]


def test_a_feature_has_its_effect_on_a_token_with_and_without_a_prompt(
    seen: dict[str, Any],
) -> None:
    assert "per unit of activation" in seen["effect"]
    assert seen["effectAlone"] == seen["effect"]


def test_the_keyboard_is_enough(seen: dict[str, Any]) -> None:
    assert seen["byKeyboard"]["pressed"] == 1  # the token left of the last but ... Home, then right
    assert seen["byKeyboard"]["tab"] == "Next token"


def test_code_is_shown(seen: dict[str, Any]) -> None:
    assert f"study.explore({TEXT!r})" in seen["code"]
    assert "explored.features.filter(layer=" in seen["code"]
    assert f"WHERE s.study = 'tiny' AND s.layer = {seen['layer']}" in seen["sql"]
