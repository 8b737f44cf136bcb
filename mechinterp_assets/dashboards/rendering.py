"""Templates to HTML text.

Belongs here: escaping, the page's style and script, the content security policy. Every value is
escaped by the template engine unless it is Markup made in this package from escaped parts.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from mechinterp_assets.storage.provenance import Provenance

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
def page_parts(
    *script_files: str, styles: tuple[str, ...] = (), asks_server: bool = False
) -> dict[str, Markup]:
    """Style, script and policy of a page; every page has copy.js, marks.js and style.css.

    The policy allows the inline style and this one script by its hash, and no request at all, so
    that markup in a token could neither run nor load anything even if it were not escaped.
    asks_server: requests of the script to the server that the page comes from are allowed.
    """
    sheets = ((TEMPLATES / name).read_text() for name in ("style.css", *styles))
    style = re.sub(r"\s+", " ", "\n".join(sheets).strip())
    style = re.sub(r"(?<=[{};]) | (?=[{}])|(?<=:) ", "", style)
    script = "\n".join(
        (TEMPLATES / name).read_text().strip() for name in ("copy.js", "marks.js", *script_files)
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
    if asks_server:
        policy += "; connect-src 'self'"
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


def write_page(path: Path, text: str) -> int:
    """Write a page as UTF-8; the number of bytes."""
    content = text.encode()
    path.write_bytes(content)
    return len(content)
