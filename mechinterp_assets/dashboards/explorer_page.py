"""The page on which any prompt is explored.

Belongs here: its frame. Does not belong here: what it asks and shows (templates/explorer.js,
live/explorer_answers.py).
"""

from mechinterp_assets.dashboards.live.explorer_questions import MAX_CHARACTERS, MAX_TOKENS
from mechinterp_assets.dashboards.rendering import page_parts, template


def explorer_page() -> str:
    """HTML of the page, the same for all studies and prompts: these stand in its address."""
    return template("explorer.html").render(
        **page_parts("explorer.js", styles=("explorer.css",), asks_server=True),
        max_characters=MAX_CHARACTERS,
        max_tokens=MAX_TOKENS,
    )
