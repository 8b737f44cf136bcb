"""The page that stands for one that does not exist.

Belongs here: what it shows. Does not belong here: serving (app/dashboard_app.py).
"""

from mechinterp_assets.dashboards.rendering import page_parts, template


def not_found_page(studies_href: str) -> str:
    """HTML of the page. `studies_href`: address of the list of studies."""
    return template("not_found.html").render(**page_parts(), studies_href=studies_href)
