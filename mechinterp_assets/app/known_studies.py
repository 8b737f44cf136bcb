"""A study by its name, without loading definitions.

Belongs here: the error that an unknown name gives. Does not belong here: study files (studies/).
"""

from typing import TYPE_CHECKING

from mechinterp_assets.app.mistakes import Mistake, nearest, told

if TYPE_CHECKING:
    from mechinterp_assets.studies.study import Study


def known_study(name: str) -> "Study":
    """The study of that name. Raises Mistake for an unknown one, or for a wrong study file."""
    from mechinterp_assets.studies.study import STUDIES_VARIABLE, StudyError, load_registry

    with told(StudyError):
        studies = load_registry()
    if name not in studies:
        raise Mistake(
            f"no study {name!r}; {nearest(name, studies)} (own studies: name their folder "
            f"in {STUDIES_VARIABLE})"
        )
    return studies[name]
