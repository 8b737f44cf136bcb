"""The error of this package."""


class ExploreError(ValueError):
    """A prompt or a question about one that has no answer; says what to change."""
