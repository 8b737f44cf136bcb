"""What a hook is: a function that sees an activation of a bridge, and may give another.

Belongs here: types. Does not belong here: hooks themselves, passes that call them.
"""

from typing import Any, Protocol

from torch import Tensor


class Hook(Protocol):
    """Sees an activation; what it returns, if anything, takes the activation's place."""

    def __call__(self, value: Tensor, /, hook: Any) -> Tensor | None:
        """hook: the HookPoint, which TransformerLens passes by this name."""
        ...


NamedHook = tuple[str, Hook]
"""A hook and the name of the activation that it sees."""
