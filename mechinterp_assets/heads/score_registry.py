"""Which scores of heads exist: those that the files of `scores/` declare.

Belongs here: listing the folder. Does not belong here: computing (head_scores.py,
ioi_head_scores.py).
"""

import importlib
import pkgutil
from typing import TypeVar

from mechinterp_assets.heads import scores
from mechinterp_assets.heads.score_kinds import (
    IoiScore,
    ModelScore,
    MoverScore,
    PatternScore,
    Score,
)
from mechinterp_assets.model.capabilities import capabilities_of
from mechinterp_assets.model.language_model import LanguageModel

S = TypeVar("S", bound=Score)

# The table that a kind of score has its rows in.
KINDS_OF_TABLE: dict[str, tuple[type[Score], ...]] = {
    "head_scores": (PatternScore, ModelScore),
    "ioi_head_scores": (IoiScore, MoverScore),
}


def all_scores() -> tuple[Score, ...]:
    """Every score, by name.

    Raises ValueError for a file without SCORES, or two scores of one name.
    """
    found: dict[str, tuple[Score, str]] = {}
    for info in pkgutil.iter_modules(scores.__path__):
        module = importlib.import_module(f"{scores.__name__}.{info.name}")
        declared = getattr(module, "SCORES", None)
        if not isinstance(declared, tuple) or not all(isinstance(one, Score) for one in declared):
            raise ValueError(
                f"{module.__file__} declares no SCORES, a tuple of the kinds in score_kinds.py; "
                "add it, or move a file that has no score out of the folder"
            )
        for score in declared:
            if score.name in found:
                raise ValueError(
                    f"{module.__file__} and {found[score.name][1]} both declare a score "
                    f"{score.name!r}; rename one"
                )
            found[score.name] = score, str(module.__file__)
    return tuple(found[name][0] for name in sorted(found))


def scores_of(kind: type[S]) -> tuple[S, ...]:
    """Every score of a kind, by name."""
    return tuple(score for score in all_scores() if isinstance(score, kind))


def scores_that_hold(kind: type[S], model: LanguageModel) -> tuple[S, ...]:
    """Every score of a kind whose analyses hold of a model, by name."""
    capabilities = capabilities_of(model)
    return tuple(
        score
        for score in scores_of(kind)
        if all(capabilities.of(analysis).holds for analysis in score.needs)
    )


def scores_in(table: str) -> tuple[Score, ...]:
    """Every score that has rows in `head_scores` or `ioi_head_scores`, by name."""
    return tuple(score for score in all_scores() if isinstance(score, KINDS_OF_TABLE[table]))
