"""The error of the lake, which its parts raise and its callers tell in one line."""


class LakeError(RuntimeError):
    """The lake cannot do what was asked; the message says why and what to do."""
