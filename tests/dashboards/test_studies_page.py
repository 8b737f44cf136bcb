"""The first page: every study with the pages it has, every problem, nothing of theirs as markup."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from mechinterp_assets.dashboards.studies_page import Failure, studies_page
from mechinterp_assets.staleness.reasons import Freshness
from mechinterp_assets.studies.registry import load_registry

SCRIPT = "<script>alert(1)</script>"
STUDY: dict[str, Any] = {
    "study": "mine",
    "description": SCRIPT,
    "model": {"embedded": "organism"},
    "corpus": {"format": "structured", "documents": 10},
    "activations": {"layers": [0, 3]},
    "tasks": {"traced": ["ioi", "greater_than"]},
    "sae": {"d_sae": 64, "k": 8, "training_tokens": 1000, "batch_size": 100},
}


class Parsed(HTMLParser):
    """Tags that were opened, and addresses of links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.hrefs: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "a":
            self.hrefs.append(dict(attrs)["href"] or "")


def page(folder: Path, *published: str) -> str:
    (folder / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    return studies_page(load_registry(sorted(folder.glob("*.yaml"))), published, {})


def test_pages_that_are_published_are_linked_and_no_others(tmp_path: Path) -> None:
    folders = ["mine", "mine.heads", "mine.trace.greater_than", "mine.L03"]
    parsed = Parsed(page(tmp_path, *folders, "other", "other.heads"))
    assert parsed.hrefs == ["#main", *(f"{folder}/index.html" for folder in folders)]
    none = page(tmp_path)
    assert Parsed(none).hrefs == ["#main"]
    assert "none made yet" in none
    assert "Left out" not in none


def test_problems_and_descriptions_are_shown_as_text(tmp_path: Path) -> None:
    hostile = tmp_path / "<img src=x onerror=alert(1)>.yaml"
    hostile.write_text(yaml.safe_dump({**STUDY, "study": "x", "sea": SCRIPT}))
    broken = tmp_path / "\udcff\n.yaml"
    broken.write_text("[")
    text = page(tmp_path)
    parsed = Parsed(text)
    assert parsed.tags.count("script") == 1
    assert "img" not in parsed.tags
    assert "&lt;img src=x onerror=alert(1)&gt;.yaml" in text
    assert re.search(r"sea: unknown key \(value &#39;&lt;script&gt;alert", text)
    assert "\\udcff\\n.yaml" in text
    assert text.encode()
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2  # the value, and mine's text


def test_what_is_stale_is_said_as_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    registry = load_registry([tmp_path / "mine.yaml"])
    many = tuple((f'corpus.text_column: "{SCRIPT}" -> {n}', 40 - n) for n in range(14))
    text = studies_page(registry, [], {"mine": Freshness(100, 41, many)})
    assert Parsed(text).tags.count("script") == 1
    assert "41 stale" in text
    assert text.count("corpus.text_column") == 12
    assert "and 2 more reasons: <code>mechinterp stale mine</code>" in text
    assert "up to date" in studies_page(registry, [], {"mine": Freshness(100, 0, ())})
    assert "nothing made" in studies_page(registry, [], {})


def test_what_is_missing_begun_and_failed_is_said(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    registry = load_registry([tmp_path / "mine.yaml"])
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    failed = Failure("0123456789", "mine", "head_scores", ("mine", "a", "b", "c", "d"), SCRIPT, at)
    text = studies_page(
        registry,
        ["glossary", "compare", "mine.training"],
        {"mine": Freshness(10, 7, (("never made", 5),), missing=5, begun=2)},
        failures=[failed],
        dagster_href="http://localhost:3000/",
    )
    assert "10 of 15 made" in text
    assert "5 missing" in text
    assert "2 begun" in text
    assert 'aria-label="10 of 15 partitions made, 2 of them stale"' in text
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', text)]
    assert sum(widths) == pytest.approx(120, abs=0.2)
    parsed = Parsed(text)
    assert "script" in parsed.tags
    assert parsed.tags.count("script") == 1
    assert "head_scores of mine, a, b <small>and 2 more</small>" in text
    for href in ("http://localhost:3000/runs/0123456789", "compare/", "glossary/"):
        assert href in parsed.hrefs
    assert "http:" not in studies_page(registry, [], {}, failures=[failed])
