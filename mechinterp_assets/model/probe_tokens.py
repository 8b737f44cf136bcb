"""Tokens on which a loaded model is looked at before anything is made of it.

Belongs here: a few short real texts as a batch of token ids. Does not belong here: corpora.
"""

from typing import Any

import torch
from torch import Tensor

_TEXTS = (
    "When Mary and John went to the store, John gave a bottle of milk to Mary, and then she asked "
    "him where he had found it. The old harbour of the town lies two miles to the north of here; "
    "ships of every size came there in 1874, 1875 and 1876.",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))  # 12\n\nThe cat sat "
    "on the mat. The dog sat on the rug. The cat saw the dog, and the dog saw the cat. It rained.",
)
LENGTH = 48  # tokens of a text, at most
_DISTINCT = 8  # fewer say that a tokenizer does not know these texts


def probe_tokens(tokenizer: Any, bos: int, d_vocab: int, n_ctx: int) -> Tensor:
    """Token ids [text, position] that start with BOS, of at most LENGTH and n_ctx positions.

    Where the tokenizer does not know words (a placeholder for a model without one), ids are drawn
    from the vocabulary, always the same.
    """
    length = min(LENGTH, n_ctx)
    rows = [tokenizer.encode(text, add_special_tokens=False)[: length - 1] for text in _TEXTS]
    known = all(len(row) >= min(_DISTINCT, length - 1) for row in rows)
    if not known or len({i for row in rows for i in row}) < min(_DISTINCT, length - 1):
        drawn = torch.Generator().manual_seed(0)
        rows = torch.randint(d_vocab, (2, length - 1), generator=drawn).tolist()
    shortest = min(len(row) for row in rows)
    return torch.tensor([[bos, *row[:shortest]] for row in rows])
