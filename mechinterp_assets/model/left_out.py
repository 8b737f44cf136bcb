"""Tokens that no statistic over tokens counts, beside BOS.

Belongs here: which ids the names in a study mean. Does not belong here: which positions that makes
(activations/cache.py).
"""

from collections.abc import Collection, Mapping, Sequence

from mechinterp_assets.model.shape import ModelError


def excluded_ids(
    names: Collection[str], token_strings: Sequence[str], vocabulary: Mapping[str, int]
) -> tuple[int, ...]:
    """Ids of tokens that are named by their label or by their piece, ascending.

    Raises ModelError for a name that is neither.
    """
    by_label = {label: i for i, label in enumerate(token_strings)}
    found = []
    for name in names:
        token_id = by_label.get(name, vocabulary.get(name))
        if token_id is None:
            raise ModelError(
                f"activations.exclude_tokens: {name!r} is no token of the tokenizer; name it as in "
                "the table vocabulary, with its space"
            )
        found.append(token_id)
    return tuple(sorted(set(found)))
