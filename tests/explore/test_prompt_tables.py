"""Rows that are kept of prompts: sums hold in the rows themselves, columns are those declared,
files of prompts are read as written and refused where they are none."""

from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from pydantic import ValidationError

from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.explore.exploration import Exploration, Explorer
from mechinterp_assets.explore.prompt_sets import joined_sets, read_prompt_sets, sets_as_yaml
from mechinterp_assets.explore.prompt_tables import explored_prompts, prompt_frames
from mechinterp_assets.explore.settings import PromptSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec

SETTINGS = PromptSettings(pairs=4, min_share=0.01, max_nodes=60)
KEYS = {"study", "prompt_set", "prompt_number"}


@pytest.fixture(scope="module")
def frames(explored: Exploration) -> dict[str, pl.DataFrame]:
    found, reasons = prompt_frames(explored, SETTINGS)
    assert reasons == {}
    return found


def test_frames_have_the_declared_columns(frames: dict[str, pl.DataFrame]) -> None:
    for name, frame in frames.items():
        declared = polars_schema(table_spec(name))
        given = {column: declared[column] for column in declared if column not in KEYS}
        assert set(frame.columns) == set(given), name
        frame.select(*given).cast(pl.Schema(given))  # raises where values do not fit


def test_trees_sum_level_by_level_to_the_logit_and_to_features(
    frames: dict[str, pl.DataFrame], explored: Exploration
) -> None:
    rows = frames["prompt_attributions"]
    parts = (
        rows.drop_nulls("parent")
        .group_by("tree", node="parent")
        .agg(total=pl.col("path_contribution").sum(), size=pl.col("path_contribution").abs().sum())
    )
    joined = parts.join(rows, on=["tree", "node"])
    assert len(joined) == len(parts) >= len(explored.saes) + 1
    gap = (joined["total"] - joined["path_contribution"]).abs() / joined["size"]
    assert gap.to_numpy().max() < 1e-9
    roots = rows.filter(node=0).sort("tree")
    token = explored.next_tokens(k=1)["token_id"][0]
    assert roots["node_kind"].to_list() == ["logit", *["feature"] * len(explored.saes)]
    assert roots["token_id"][0] == token
    assert roots["path_contribution"][0] == pytest.approx(explored.logit_node(token).value)
    for layer, feature, activation in (
        roots[1:].select("at_layer", "at_feature", "path_contribution").iter_rows()
    ):
        own = explored.features.filter(layer=layer, position=8)
        assert (feature, activation) == (own["feature"][0], pytest.approx(own["activation"][0]))


def test_trees_through_residual_saes_sum_too(explored_by_residual: Exploration) -> None:
    frames, reasons = prompt_frames(explored_by_residual, SETTINGS)
    assert reasons == {}
    rows = frames["prompt_attributions"]
    assert "residual_feature" in rows["node_kind"]
    split = rows.drop_nulls("identity_error")
    assert split["identity_error"].max() < 1e-9 * rows["path_contribution"].abs().max()


def test_effects_of_heads_are_those_of_single_questions(
    frames: dict[str, pl.DataFrame], explored: Exploration
) -> None:
    rows = frames["prompt_head_effects"]
    config = explored.model.config
    assert len(rows) == config.n_layers * config.n_heads
    token = explored.next_tokens(k=1)["token_id"][0]
    for layer, head in ((0, 1), (2, 0)):
        (row,) = rows.filter(layer=layer, head=head).to_dicts()
        found = explored.what_if(
            [{"kind": "head_scaling", "layer": layer, "head": head, "alpha": 0}]
        )
        assert row["ablation_kl"] == pytest.approx(found.kl, rel=1e-5, abs=1e-9)
        after = found.tokens.filter(token_id=token)["after"][0]
        assert row["ablated_probability"] == pytest.approx(after, rel=1e-5)
        # z W_O through the frozen final norm, less the mean logit.
        z = explored.forward.z[layer][-1].reshape(config.n_heads, -1)[head]
        wrote = (
            z
            @ explored.explorer.frozen.weights(layer).W_O.reshape(
                config.n_heads, config.d_head, config.d_model
            )[head]
        )
        W_U = explored.model.raw_weights.W_U.double()
        gain, _ = explored.explorer.frozen.final_norm
        centred = wrote - wrote.mean() if explored.explorer.frozen.centres else wrote
        effect = (centred * gain / explored.forward.scale[-1][-1]) @ (W_U[:, token] - W_U.mean(1))
        assert row["direct_logit_effect"] == pytest.approx(float(effect), rel=1e-9)
    without, _ = prompt_frames(explored, SETTINGS.model_copy(update={"ablations": False}))
    assert without["prompt_head_effects"]["ablation_kl"].null_count() == len(rows)


def test_pairs_are_the_strongest_of_the_strongest_heads(
    frames: dict[str, pl.DataFrame], explored: Exploration
) -> None:
    effects, rows = frames["prompt_head_effects"], frames["prompt_pairs"]
    strongest = effects.sort(pl.col("direct_logit_effect").abs(), descending=True).head(4)
    assert set(rows.select("layer", "head").iter_rows()) == set(
        strongest.select("layer", "head").iter_rows()
    )
    for row in rows.to_dicts():
        pattern = explored.forward.pattern[row["layer"]][row["head"], 8]
        assert row["destination"] == 8
        assert row["source"] == int(pattern.argmax())
        assert row["attention"] == pytest.approx(float(pattern.max()), abs=1e-6)
        sign = 1 if row["uncapped_score"] > 0 else -1
        assert sign * row["slice_sum"] >= sign * row["uncapped_score"] - 1e-9
        assert row["n_slices"] == len(row["slices"]) > 0


def test_what_a_model_cannot_do_is_left_out_with_its_reason(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that changes its logits has features and trees of none, as with a cap."""
    explored = explorer.explore([explorer.model.bos_token_id, 4, 5])
    assert explored.forward.logits is not None
    capped = 30 * torch.tanh(explored.forward.logits / 3)
    monkeypatch.setattr(
        explored,
        "forward",
        explored.forward.__class__(**{**vars(explored.forward), "logits": capped}),
    )
    frames, reasons = prompt_frames(explored, SETTINGS)
    assert set(frames) == {"prompt_tokens", "prompt_features"}
    assert "caps or scales" in reasons["prompt_attributions"]
    assert "caps or scales" in reasons["prompt_head_effects"]
    assert set(reasons) == {"prompt_attributions", "prompt_head_effects", "prompt_pairs"}


def test_prompts_are_checked_before_any_is_run(organism: LanguageModel) -> None:
    explorer = Explorer(organism, {}, max_tokens=12)
    sets = {"short": ["Mary and John"], "long": ["Then", "Mary and John " * 20]}
    with pytest.raises(
        ExploreError, match=r"prompts: long, prompt 1: the prompt has .* at most 12"
    ):
        next(explored_prompts(explorer, sets))
    found = [keys for keys, _ in explored_prompts(explorer, {**sets, "long": ["Then", "Mary"]})]
    assert [tuple(keys.values()) for keys in found] == [("short", 0), ("long", 0), ("long", 1)]


# ---- sets of prompts -----------------------------------------------------------------------------

TEXTS = ["plain", " spaces  kept ", "line\nbreak", "quotes \" and ' : - #", "<b>ü</b>", "3", "null"]


def test_texts_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(sets_as_yaml({"a set": TEXTS}))
    assert read_prompt_sets(file) == {"a set": TEXTS}
    lines = tmp_path / "lines.txt"
    lines.write_text("first line\n\n second: with colon\n")
    assert read_prompt_sets(lines) == {"lines": ["first line", " second: with colon"]}
    joined = joined_sets({"a set": ["plain", "more"]}, [file, lines])
    assert joined["a set"] == ["plain", "more", *TEXTS[1:]]
    assert joined["lines"] == ["first line", " second: with colon"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("- a\n- b\n", "write sets by name"),
        ("kept: text\n", "write a list of at least one text"),
        ("kept: []\n", "write a list of at least one text"),
        ("kept: [3]\n", "has 3, which is no text; put it in quotes"),
        ("kept: ['']\n", "has '', which is no text"),
        ("kept: [a, a]\n", "has 'a' twice"),
        ("'../x': [a]\n", "is no name of a set"),
        ("kept: [a\n", "not YAML"),
    ],
)
def test_files_that_hold_no_prompts(tmp_path: Path, content: str, what: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ExploreError, match=what) as error:
        read_prompt_sets(file)
    assert str(file) in str(error.value)
    sets = None if what == "not YAML" else yaml.safe_load(content)
    if isinstance(sets, dict):  # a study's own sets are checked alike
        with pytest.raises(ValidationError):
            PromptSettings(sets=sets)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExploreError, match="name one ending in"):
        read_prompt_sets(tmp_path / "prompts.csv")
    with pytest.raises(ExploreError, match=r"missing\.yaml"):
        read_prompt_sets(tmp_path / "missing.yaml")
