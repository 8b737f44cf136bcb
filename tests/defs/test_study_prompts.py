"""Prompts of a materialized study have rows in every table (test_reruns.py: what is stale)."""

import re
from html import unescape
from urllib.parse import parse_qs

import pytest

from mechinterp_assets.app.kept_prompts import keep_prompt
from mechinterp_assets.dashboards.tokens import token_label
from tests.defs.conftest import Materialized
from tests.defs.served_pages import served_pages

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


def test_the_page_of_prompts_leads_to_each_in_the_explorer(
    tiny: Materialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    get = served_pages()
    status, front = get("/")
    assert status == 200
    assert 'href="tiny.prompts/index.html"' in front
    status, page = get("/tiny.prompts/")
    assert status == 200
    assert "have no rows yet" not in page
    tokens = tiny.lake.read("prompt_tokens", "tiny").collect()
    for name, (text,) in tiny.study.prompts.sets.items():
        last = tokens.filter(prompt_set=name).sort("position").row(-1, named=True)
        link = re.search(rf'<a href="([^"]*)"><bdi>{re.escape(text)}</bdi></a>', page)
        assert link is not None
        address, _, view = unescape(link[1]).partition("#")
        assert address == "../explore/"
        assert parse_qs(view) == {"study": ["tiny"], "text": [text]}
        row = page[link.end() :].partition("</tr>")[0]
        assert f"<td>{last['position'] + 1}</td>" in row
        assert token_label(last["next_token"]) in row

    hostile = '</bdi><img src=x onerror=alert(1)> "quoted" & more'
    file = keep_prompt("tiny", hostile)
    try:
        _, page = get("/tiny.prompts/index.html")
        assert "1 have no rows yet" in page
        assert "<img" not in page
        assert hostile in unescape(page)
        assert "not made yet" in page
        file.write_text("kept: 3\n")
        status, page = get("/tiny.prompts/")
        assert "write a list of at least one text" in unescape(page)
        assert get("/")[0] == 200
    finally:
        file.unlink()
        get("/")  # the first page records how studies stand: without the file again
    assert get("/nobody.prompts/")[0] == 404
