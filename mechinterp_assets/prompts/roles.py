"""Roles of positions and answers of prompts, read from either form of a prompts frame.

Belongs here: the common form of all tasks (roles, positions, answer_token_ids, wrong_token_ids;
prompts/common.py) and the columns of ioi_prompts (pos_*, io_token_id, s_token_id). Does not belong
here: building prompts, and anything that needs a model.
"""

import polars as pl

from mechinterp_assets.prompts.ioi import ROLE_PRECEDENCE, PromptError

END = "END"


def role_names(prompts: pl.DataFrame) -> list[str]:
    """Roles that any prompt has, in the order in which they name a position."""
    if "roles" in prompts.columns:
        return list(dict.fromkeys(role for roles in prompts["roles"] for role in roles))
    return [role for role, column in ROLE_PRECEDENCE if column in prompts.columns]


def role_positions(prompts: pl.DataFrame, role: str) -> list[int]:
    """Position of a role in every prompt, -1 where it has none.

    Raises PromptError for a role that no prompt of the frame has.
    """
    known = role_names(prompts)
    if role not in known:
        raise PromptError(f"no prompt has a position of role {role!r}; roles: {', '.join(known)}")
    if "roles" in prompts.columns:
        return [
            dict(zip(roles, positions, strict=True)).get(role, -1)
            for roles, positions in zip(prompts["roles"], prompts["positions"], strict=True)
        ]
    return prompts[dict(ROLE_PRECEDENCE)[role]].fill_null(-1).to_list()


def position_roles(prompts: pl.DataFrame, *, after_bos: bool = True) -> list[list[str]]:
    """Role of every position of every prompt; lists are n_tokens long.

    One name a position: where roles share one, the first by ROLE_PRECEDENCE, or as listed in the
    common form. Position 0 is "BOS" where prompts begin with it (after_bos), positions without a
    role are "other". A role of several tokens names its first. Frames without roles are read too:
    token ids are enough.
    """
    if "roles" in prompts.columns:
        of_rows = list(prompts.select("roles", "positions").iter_rows())
    else:
        names = role_names(prompts)
        columns = [role_positions(prompts, role) for role in names]
        of_rows = [(names, [column[row] for column in columns]) for row in range(prompts.height)]
    result = []
    for length, (roles, positions) in zip(prompts["n_tokens"], of_rows, strict=True):
        labels = ["BOS" if after_bos else "other", *["other"] * (length - 1)]
        for role, position in reversed(list(zip(roles, positions, strict=True))):
            if position >= 0:
                labels[position] = role
        result.append(labels)
    return result


def answer_tokens(prompts: pl.DataFrame) -> list[tuple[list[int], list[int]]]:
    """Answer and wrong token ids of every prompt; IO and S of ioi_prompts.

    Raises PromptError where a prompt has none of either, since the logit difference, mean logit of
    the answers minus mean logit of the wrong tokens, is then undefined.
    """
    if "answer_token_ids" not in prompts.columns:
        return [([io], [s]) for io, s in prompts.select("io_token_id", "s_token_id").iter_rows()]
    found = list(prompts.select("answer_token_ids", "wrong_token_ids").iter_rows())
    for prompt, (answers, wrong) in zip(prompts["prompt"], found, strict=True):
        if not answers or not wrong:
            raise PromptError(
                f"prompt {prompt} has {len(answers)} answer and {len(wrong)} wrong tokens; the "
                "logit difference needs at least one of each: give them, or leave the task out of "
                "what needs it"
            )
    return found
