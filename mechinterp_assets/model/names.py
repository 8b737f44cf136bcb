"""How heads are written: in tables, pages, errors and keys of references."""

import re
from collections.abc import Iterable

_HEAD = re.compile(r"L(\d{1,4})H(\d{1,4})|L?(\d{1,4})\.(\d{1,4})", re.IGNORECASE)


def head_name(layer: int, head: int) -> str:
    """L2H3 is head 3 of layer 2, both from 0."""
    return f"L{layer}H{head}"


def head_names(heads: Iterable[tuple[int, int]]) -> str:
    """Names of (layer, head) in the order given: `L9H9, L9H6`."""
    return ", ".join(head_name(*head) for head in heads)


def named_head(name: str) -> tuple[int, int] | None:
    """(layer, head) of `L2H3`, or of `2.3`, as papers write it; None: it names no head."""
    found = _HEAD.fullmatch(name.strip())
    if found is None:
        return None
    layer, head = (group for group in found.groups() if group is not None)
    return int(layer), int(head)
