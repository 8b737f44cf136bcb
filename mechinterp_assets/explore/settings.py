"""The section `prompts` of a study: prompts whose tokens, features and attributions are kept.

Belongs here: its keys and what of them can be checked alone. Does not belong here: files of prompts
(prompt_sets.py), what is made of prompts (prompt_tables.py).
"""

from pydantic import field_validator

from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.explore.prompt_sets import checked_texts
from mechinterp_assets.settings.section import Count, LocalPath, Positive, Section, Share


class PromptSettings(Section):
    """Prompts by name of a set, here and in files; those kept in the explorer are added."""

    sets: dict[str, list[str]] = {}
    """Texts by set."""
    files: list[LocalPath] = []
    """Files of further sets: `.yaml`, sets by name, each a list of texts; `.txt`, one text a line,
    of the set that is called as the file is. Texts of one set from several places are joined."""
    kept: bool = True
    """Whether prompts that were kept in the explorer (prompts/<study>.yaml in MECHINTERP_HOME) are
    among them."""
    max_tokens: Positive = 128
    """Longest prompt, BOS included."""
    ablations: bool = True
    """Whether every head is zero-ablated on every prompt."""
    pairs: Count = 8
    """Heads of each prompt whose strongest pair at the last position is split into slices: those
    with the largest direct effects."""
    branching: Positive = 5
    """Parts of a node of a tree with a row of their own."""
    min_share: Share = 0.05
    """Share of the root that such a part reaches."""
    max_nodes: Positive = 200
    """Nodes of a tree."""

    @field_validator("sets")
    @classmethod
    def _texts(cls, sets: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, texts in sets.items():
            try:
                checked_texts("sets", name, texts)
            except ExploreError as error:
                raise ValueError(str(error)) from None
        return sets
