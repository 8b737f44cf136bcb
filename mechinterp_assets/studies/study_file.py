"""One study file, read and validated.

Belongs here: from a file to a Study, and the lines that a wrong file gives. Does not belong here:
what YAML may hold (files/yaml_reader.py), the checks (study.py, validation.py).

Every check that needs no weights runs here: unknown keys, types, layers that the model does not
have, paths that do not exist. What depends on the machine (does an SAE of this width fit its
memory?) is checked before work starts.
"""

from pathlib import Path

from pydantic import ValidationError

from mechinterp_assets.files.yaml_reader import YamlError, read_yaml
from mechinterp_assets.settings.messages import message_lines, one_line, shown
from mechinterp_assets.settings.section import FOLDER
from mechinterp_assets.studies.study import Study, StudyError
from mechinterp_assets.studies.validation import problems, shape_of_model


def load_study(file: Path) -> Study:
    """Read and validate one study file. Raises StudyError with file, key, value and remedy."""
    try:
        data = read_yaml(file)
    except YamlError as error:
        raise StudyError(str(error)) from None
    if not isinstance(data, dict):
        what = "nothing" if data is None else f"a {type(data).__name__}"
        raise StudyError(
            f"{file}: a study is a mapping of keys to values, and this file holds {what}; "
            "start from docs/studies.md or `mechinterp new`"
        )
    try:
        study = Study.model_validate(data, context={FOLDER: file.parent})
        shape = shape_of_model(study.model)
        study._file, study._n_layers = file, shape.n_layers
        wrong = list(problems(study, shape))
    except ValidationError as error:
        wrong = list(message_lines(error, Study))
    except StudyError as error:
        wrong = [str(error)]
    except OSError as error:  # a path that may not be looked at, or is too long
        wrong = [f"{shown(error.filename)}: {error.strerror}; correct the path"]
    if wrong:
        raise StudyError("\n".join(one_line(f"{file}: {line}") for line in wrong))
    return study
