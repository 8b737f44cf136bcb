"""The error of this package, apart so that checking a study file imports no torch."""


class SaeError(ValueError):
    """An SAE, setting or SAE folder that cannot be used; the message names it and the remedy."""
