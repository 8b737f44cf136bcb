"""A study by its name, and its model, without loading definitions.

Belongs here: the error that an unknown name gives. Does not belong here: study files (studies/).
"""

from typing import TYPE_CHECKING

from mechinterp_assets.app.mistakes import Mistake, nearest, told

if TYPE_CHECKING:
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.studies.study import Study


def known_study(name: str) -> "Study":
    """The study of that name. Raises Mistake for an unknown one, or one whose file is wrong."""
    from mechinterp_assets.studies.registry import STUDIES_VARIABLE, load_registry
    from mechinterp_assets.studies.study import StudyError

    registry = load_registry()
    if name not in registry.studies and not any(one.study == name for one in registry.problems):
        bad = ", ".join(problem.file for problem in registry.problems)
        raise Mistake(
            f"no study {name!r}; {nearest(name, registry.studies)} (own studies: name their folder "
            f"in {STUDIES_VARIABLE})" + (f"; left out: {bad} (`mechinterp studies`)" if bad else "")
        )
    with told(StudyError):
        return registry.find(name)


def model_of(study: "Study") -> "LanguageModel":
    """The model of a study on this machine's device. Raises ComputeError, ModelError."""
    from mechinterp_assets.resources.language_model import load_model
    from mechinterp_assets.storage.home import models_folder

    return load_model(study, models_folder())
