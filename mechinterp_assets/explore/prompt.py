"""From a text or token ids to a prompt that the model can run.

Belongs here: tokenising and the limits on length. Does not belong here: running it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.model.language_model import LanguageModel

# No tokenizer makes so few tokens of ordinary text; longer texts need not be tokenised to refuse.
_CHARACTERS_PER_TOKEN = 64


def prompt_ids(model: LanguageModel, text: str | Sequence[int], max_tokens: int) -> Tensor:
    """Token ids [position] int64 of a prompt. Raises ExploreError."""
    limit = min(max_tokens, model.config.n_ctx)
    if isinstance(text, str):
        if not len(text) <= limit * _CHARACTERS_PER_TOKEN:
            raise ExploreError(
                f"the text has {len(text):,} characters; a prompt here has at most {limit} tokens: "
                "cut it"
            )
        first = [] if model.first_token_id is None else [model.first_token_id]
        ids = first + model.encode(text)
        if not ids or not text:
            raise ExploreError("the prompt is empty; give a text of at least one token")
    else:
        ids = [int(i) for i in text]
        if not ids:
            raise ExploreError("there are no token ids; give at least one")
        if bad := [i for i in ids if not 0 <= i < model.config.d_vocab]:
            raise ExploreError(
                f"token id {bad[0]} does not exist; {model.source} has "
                f"0..{model.config.d_vocab - 1}"
            )
    if not len(ids) <= limit:
        raise ExploreError(
            f"the prompt has {len(ids)} tokens; at most {limit} are explored at once (the context "
            f"of {model.source} is {model.config.n_ctx}): cut it"
        )
    return torch.tensor(ids, dtype=torch.int64)
