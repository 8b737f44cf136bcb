"""The pages that stand for one that does not exist, or that could not be made.

Belongs here: what they show. Does not belong here: serving (app/dashboard_app.py).
"""

from mechinterp_assets.dashboards.rendering import page_parts, template


def not_found_page(studies_href: str) -> str:
    """HTML of the page. `studies_href`: address of the list of studies."""
    return _page(
        studies_href,
        "No such page",
        "There is no page at this address: its study, layer, head or feature does not exist, or"
        " its tables are not made yet.",
        " with the pages that they have.",
    )


def failed_page(studies_href: str) -> str:
    """As `not_found_page`, of a page that failed while it was made."""
    return _page(
        studies_href,
        "This page could not be made",
        "Its tables may be of an older form, which `mechinterp materialize STUDY` replaces; the"
        " server's log has the error.",
        " say what is stale, and why.",
    )


def unreadable_page(studies_href: str, reason: str) -> str:
    """As `not_found_page`, of a page whose file somebody wrote in a way that cannot be read."""
    return _page(
        studies_href, "A file of prompts cannot be read", f"{reason}.", " stand as they do without."
    )


def _page(studies_href: str, title: str, reason: str, rest: str) -> str:
    return template("stand_in.html").render(
        **page_parts(), studies_href=studies_href, title=title, reason=reason, rest=rest
    )
