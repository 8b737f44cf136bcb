"""Induction: random tokens that begin again, and the token that followed the last one before.

Belongs here: prompts of repeated random tokens. Does not belong here: scores of induction heads
(heads/).

A prompt is BOS, LENGTHS distinct random tokens and the first few of them again (Olsson et al. 2022,
arXiv 2209.11895, use the same text). In the corrupt prompt of a pair the token to be repeated is
another one, which is the foil. Nothing is tokenised, so any vocabulary will do.
"""

import random
from collections.abc import Sequence

import polars as pl

from mechinterp_assets.model.token_labels import joined_label
from mechinterp_assets.prompts.common import (
    BASE,
    CORRUPT,
    END,
    TASK_PROMPTS_SCHEMA,
    balanced_design,
    check_task_prompts,
)
from mechinterp_assets.prompts.ioi import PromptError

INDUCTION = "induction"
# Distinct tokens, and how many of them are repeated before the prompt stops.
LENGTHS: tuple[tuple[int, int], ...] = ((8, 5), (10, 4), (12, 8))


def induction_prompts(
    token_strings: Sequence[str],
    n: int,
    seed: int,
    bos_token_id: int | None,
    *,
    ordinary_ids: Sequence[int],
) -> pl.DataFrame:
    """`n` pairs of prompts: TASK_PROMPTS_SCHEMA; `template` is the place in LENGTHS.

    token_strings: text of every token id; ordinary_ids: those that are drawn from, which the
    tokenizer has and which stand for text; bos_token_id: what prompts begin with; None: text.
    Roles: SOURCE (the first occurrence of the last token), ANSWER (the token after it), END. `text`
    joins the tokens' texts and is for reading alone: it need not tokenise into the same ids. Raises
    PromptError when the vocabulary has too few tokens.
    """
    first = [] if bos_token_id is None else [bos_token_id]
    ids = [i for i in ordinary_ids if i != bos_token_id]
    needed = max(distinct for distinct, _ in LENGTHS) + 1
    if len(ids) < needed:
        raise PromptError(
            f"task {INDUCTION}: the vocabulary has {len(ids)} tokens that are not special; at "
            f"least {needed} are needed: leave {INDUCTION} out of tasks.names"
        )
    rows: list[dict[str, object]] = []
    design = balanced_design(range(len(LENGTHS)), n, f"{INDUCTION}/{seed}/design")
    for pair_id, template in enumerate(design):
        distinct, repeated = LENGTHS[template]
        rng = random.Random(f"{INDUCTION}/{seed}/{pair_id}")
        *tokens, other = rng.sample(ids, distinct + 1)
        changed = [*tokens[:repeated], other, *tokens[repeated + 1 :]]
        for variant, shown, foil in ((BASE, tokens, other), (CORRUPT, changed, tokens[repeated])):
            sequence = [*shown, *shown[:repeated]]
            rows.append(
                {
                    "task": INDUCTION,
                    "prompt": len(rows),
                    "pair_id": pair_id,
                    "template": template,
                    "variant": variant,
                    "text": joined_label(token_strings[i] for i in sequence),
                    "token_ids": [*first, *sequence],
                    "n_tokens": len(first) + len(sequence),
                    "roles": [END, "SOURCE", "ANSWER"],
                    "positions": [
                        len(first) + p for p in (len(sequence) - 1, repeated - 1, repeated)
                    ],
                    "answer_token_ids": [shown[repeated]],
                    "wrong_token_ids": [foil],
                }
            )
    frame = pl.DataFrame(rows, schema=TASK_PROMPTS_SCHEMA, orient="row")
    return check_task_prompts(frame)
