"""The bounds of a study's checks.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from mechinterp_assets.settings.section import Section


class CheckSection(Section):
    """Bounds of the asset checks that block what lies downstream."""

    l0: tuple[float, float] = (0.5, 256.0)
    ce_recovered_min: float = 0.5
    ioi_accuracy_min: float | None = None
