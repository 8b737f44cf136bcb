"""Prompts that somebody keeps while looking at them.

Belongs here: writing one to the study's file of kept prompts, and which prompts a study has now.
Does not belong here: their tables (defs/prompts/).
"""

from pathlib import Path

from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.explore.prompt_sets import joined_sets, read_prompt_sets, sets_as_yaml
from mechinterp_assets.staleness.study_files import prompt_files
from mechinterp_assets.storage.files import locked, write_durably
from mechinterp_assets.storage.home import kept_prompts_file
from mechinterp_assets.studies.study import Study

KEPT_SET = "kept"
MAX_KEPT = 1000
_HEADER = "# Prompts kept in the explorer: sets by name, each a list of texts.\n"


def keep_prompt(study: str, text: str) -> Path:
    """Add a prompt to the set `kept` of a study's file, once; the file.

    Raises ExploreError for a file that somebody made unreadable, or that is full.
    """
    file = kept_prompts_file(study)
    with locked(file.with_name(f"{file.name}.lock")):
        sets = read_prompt_sets(file) if file.is_file() else {}
        kept = sets.setdefault(KEPT_SET, [])
        if text in kept:
            return file
        if sum(map(len, sets.values())) >= MAX_KEPT:
            raise ExploreError(f"{file} has {MAX_KEPT} prompts; remove some before keeping more")
        kept.append(text)
        write_durably(file, _HEADER + sets_as_yaml(sets))
    return file


def prompts_now(study: Study) -> dict[str, list[str]]:
    """Texts by set: those that the study names, and those kept, as the files stand now.

    Files that are not there are left out. Raises ExploreError for one that cannot be read.
    """
    files = [file for file in prompt_files(study) if file.is_file()]
    return joined_sets(study.prompts.sets, files)
