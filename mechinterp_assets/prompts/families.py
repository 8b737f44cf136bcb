"""The prompt families of the platform, by name.

Belongs here: the list of families, building several of them for one tokenizer. Does not belong
here: their wording (a file each). A new family is a file, a line here and in settings.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from mechinterp_assets.prompts.colored_objects import colored_objects
from mechinterp_assets.prompts.common import TASK_PROMPTS_SCHEMA, check_length
from mechinterp_assets.prompts.gendered_pronoun import gendered_pronoun
from mechinterp_assets.prompts.greater_than import greater_than
from mechinterp_assets.prompts.ioi import Encode, PromptError

Family = Callable[[Encode, int, int, int | None], pl.DataFrame]

FAMILIES: Mapping[str, Family] = {
    "greater_than": greater_than,
    "gendered_pronoun": gendered_pronoun,
    "colored_objects": colored_objects,
}


@dataclass(frozen=True)
class FamilyPrompts:
    """prompts: TASK_PROMPTS_SCHEMA of all families built. skipped: name -> why it was not."""

    prompts: pl.DataFrame
    skipped: dict[str, str] = field(default_factory=dict)


def family_prompts(
    names: Sequence[str] | None,
    encode: Encode,
    n: int,
    seed: int,
    bos_token_id: int | None,
    *,
    n_ctx: int | None = None,
) -> FamilyPrompts:
    """`n` base prompts and their corrupt ones of each family, as far as the model can read them.

    names: of FAMILIES; None for all. A family that the tokenizer cannot express, or whose prompts
    exceed the context n_ctx, is skipped with the reason. A family's rows depend on its own name,
    `n` and the seed alone. Raises PromptError for an unknown name.
    """
    if unknown := [name for name in names or () if name not in FAMILIES]:
        raise PromptError(f"unknown prompt families {unknown}; known: {list(FAMILIES)}")
    frames, skipped = [], {}
    for name in FAMILIES if names is None else names:
        try:
            prompts = FAMILIES[name](encode, n, seed, bos_token_id)
            frames.append(prompts if n_ctx is None else check_length(name, prompts, n_ctx))
        except PromptError as error:
            skipped[name] = str(error)
    empty = pl.DataFrame(schema=TASK_PROMPTS_SCHEMA)
    return FamilyPrompts(pl.concat([empty, *frames]), skipped)
