"""The error of circuits, which checks of study files raise without torch."""


class CircuitError(ValueError):
    """A model or request that circuit analysis cannot serve; the message names the remedy."""
