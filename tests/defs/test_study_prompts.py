"""Prompts of a materialized study have rows in every table (test_reruns.py: what is stale)."""

from tests.defs.conftest import Materialized

TABLES = [
    "prompt_tokens",
    "prompt_features",
    "prompt_head_effects",
    "prompt_attributions",
    "prompt_pairs",
]


def test_every_prompt_has_rows_in_every_table(tiny: Materialized) -> None:
    sets = tiny.study.prompts.sets
    expected = {(name, number) for name, texts in sets.items() for number in range(len(texts))}
    assert len(expected) == 2
    for table in TABLES:
        rows = tiny.lake.read(table, "tiny").select("prompt_set", "prompt_number").unique()
        assert set(rows.collect().iter_rows()) == expected, table
    tokens = tiny.lake.read("prompt_tokens", "tiny").sort("prompt_set", "position").collect()
    for (name,), own in tokens.group_by("prompt_set"):
        assert "".join(own["token"].to_list()[1:]) == sets[str(name)][0]
    features = tiny.lake.read("prompt_features", "tiny").collect()
    assert sorted(features["layer"].unique()) == tiny.study.layers
    most = features.group_by("prompt_set", "layer", "position").len()["len"].max()
    assert most == tiny.study.sae.k  # TopK, every one of them above 0
