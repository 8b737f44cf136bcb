"""Templates to HTML text.

Belongs here: escaping, the page's style and script, the content security policy. Every value is
escaped by the template engine unless it is Markup made in this package from escaped parts.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from mechinterp_assets.dashboards.charts import bar_chart
from mechinterp_assets.provenance import Provenance

TEMPLATES = Path(__file__).resolve().parent / "templates"


@cache
def template(name: str) -> Template:
    """A compiled template; undefined names are errors."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


@cache
def page_parts(script_file: str | None) -> dict[str, Markup]:
    """Style, script and policy of a page.

    The policy allows the inline style and this one script by its hash, and no request at all, so
    that markup in a token could neither run nor load anything even if it were not escaped.
    """
    style = re.sub(r"\s+", " ", (TEMPLATES / "style.css").read_text().strip())
    style = re.sub(r"(?<=[{};]) | (?=[{}])|(?<=:) ", "", style)
    script = (TEMPLATES / script_file).read_text().strip() if script_file else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    if script:
        policy += f"; script-src 'sha256-{digest}'"
    return {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}


def json_block(data: Any) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def provenance_rows(
    provenance: Provenance, model: str, details: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Names and values of the provenance block, without what took no part."""
    known = [
        ("study", provenance.study),
        ("model", model),
        ("model version", provenance.model_version),
        ("corpus version", provenance.corpus_version),
        ("SAE version", provenance.sae_version),
        ("run", provenance.run_id),
        ("code version", provenance.code_version),
    ]
    return [(name, value) for name, value in known if value] + list(details.items())


def density_chart(counts: Mapping[float, int], edges: Sequence[float], height: int) -> Markup:
    """Bars of features per bin of log10 density; `edges` are the lower edges of all bins."""
    values = [counts.get(edge, 0) for edge in edges]
    titles = [
        f"log10 density {edge:.2f} to {edge + 0.25:.2f}: {value} features"
        for edge, value in zip(edges, values, strict=True)
    ]
    return bar_chart(
        values,
        label="Histogram of features by log10 density; " + "; ".join(titles),
        titles=titles,
        height=height,
        bar_width=18 if height > 40 else 9,
    )
