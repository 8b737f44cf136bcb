"""The section `checks` of a study: bounds of the asset checks that block what lies downstream.

Belongs here: its keys. Does not belong here: the checks (defs/), checks of study files
(validation.py).
"""

from mechinterp_assets.settings.section import Section


class CheckSettings(Section):
    """Bounds of the asset checks that block what lies downstream."""

    l0: tuple[float, float] = (0.5, 256.0)
    """Least and largest mean number of active features of an SAE."""
    ce_recovered_min: float = 0.5
    """Least CE loss recovered of an SAE."""
    ioi_accuracy_min: float | None = None
    """Least accuracy on IOI; null: not checked."""
    outlier_share_max: float = 0.1
    """Largest share of an SAE's variance, or of its loss, that the 0.1% of tokens of largest norm
    may carry; above it a check warns."""
