"""Mechanistic interpretability of attention as data assets.

In a notebook or a script (docs/python.md):

    import mechinterp_assets as mi

    study = mi.open("organism")
    study.tables["head_scores"].frame()   # a polars frame; .comments says what columns mean
    study.feature(3, 12)                  # examples, effects and heads of one feature
    study.intervene([{"kind": "head_ablation", "mode": "zero", "layer": 3, "head": "all"}])

Belongs here: the public names, each imported when it is first used, so that importing the package
imports nothing. Where they are defined: `api/`, and the science packages for what works without a
study.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechinterp_assets.api.feature import Example, Feature
    from mechinterp_assets.api.head import Head
    from mechinterp_assets.api.not_there import NotThereError
    from mechinterp_assets.api.opened_study import OpenedStudy
    from mechinterp_assets.api.opening import materialized_studies, open_study
    from mechinterp_assets.api.origin import Origin
    from mechinterp_assets.api.tables import Table, Tables
    from mechinterp_assets.interventions.summary import intervention_summary
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.sae.io import load_sae

    open = open_study

_DEFINED_IN = {
    "open": ("api.opening", "open_study"),
    "materialized_studies": ("api.opening", "materialized_studies"),
    "OpenedStudy": ("api.opened_study", "OpenedStudy"),
    "Tables": ("api.tables", "Tables"),
    "Table": ("api.tables", "Table"),
    "Feature": ("api.feature", "Feature"),
    "Example": ("api.feature", "Example"),
    "Head": ("api.head", "Head"),
    "Origin": ("api.origin", "Origin"),
    "NotThereError": ("api.not_there", "NotThereError"),
    "intervention_summary": ("interventions.summary", "intervention_summary"),
    "LanguageModel": ("model.language_model", "LanguageModel"),
    "load_sae": ("sae.io", "load_sae"),
}

__all__ = [
    "Example",
    "Feature",
    "Head",
    "LanguageModel",
    "NotThereError",
    "OpenedStudy",
    "Origin",
    "Table",
    "Tables",
    "intervention_summary",
    "load_sae",
    "materialized_studies",
    "open",
]


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, defined = _DEFINED_IN[name]
    found = getattr(import_module(f"{__name__}.{module}"), defined)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
