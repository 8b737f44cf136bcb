"""Quoting of names and texts in SQL statements that are put together from declarations."""


def quote_name(name: str) -> str:
    """SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def comment_on_column(relation: str, column: str, comment: str) -> str:
    """COMMENT ON COLUMN statement; `relation` is used as it is, quoted already if need be."""
    return f"COMMENT ON COLUMN {relation}.{quote_name(column)} IS {quote_text(comment)};"
