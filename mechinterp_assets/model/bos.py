"""The token that sequences begin with.

Belongs here: which id it is, from the study's setting, the tokenizer and the config. Does not
belong here: putting it before token ids (corpora/tokenize.py, prompts/).

`tokenizer` takes the tokenizer's own BOS, else the config's; only where neither names one is it an
EOS, which models that were trained on documents joined by it take for one. `none` starts sequences
with text; the same id then still stands between joined documents, and before the sequences of
scores that compare both ways. Anything else is the token itself, such as <|endoftext|>.
"""

from dataclasses import dataclass
from typing import Any

from mechinterp_assets.model.shape import ModelError

FROM_TOKENIZER, NO_BOS = "tokenizer", "none"


@dataclass(frozen=True)
class Bos:
    """token_id, and its piece; prepended: whether sequences and prompts begin with it."""

    token_id: int
    token: str
    prepended: bool


def resolved_bos(setting: str, tokenizer: Any, config: Any, d_vocab: int, source: str) -> Bos:
    """What `setting` (model.bos) is for a model of `d_vocab` tokens, called `source` in errors.

    Raises ModelError where there is no such token, or the model does not embed it.
    """
    named = setting not in (FROM_TOKENIZER, NO_BOS)
    token_id = _named(setting, tokenizer, source) if named else _own(tokenizer, config, source)
    if not 0 <= token_id < d_vocab:
        raise ModelError(
            f"the BOS token of {source} has id {token_id}, but the model embeds the ids "
            f"0..{d_vocab - 1} alone; correct bos_token_id in its config.json or tokenizer, or "
            "name a token in model.bos"
        )
    piece = setting if named else tokenizer.convert_ids_to_tokens(token_id)
    return Bos(token_id, str(piece or f"<{token_id}>"), prepended=setting != NO_BOS)


# ---- private -------------------------------------------------------------------------------------


def _named(piece: str, tokenizer: Any, source: str) -> int:
    token_id = tokenizer.get_vocab().get(piece)
    if token_id is None:
        special = sorted(set(map(str, tokenizer.all_special_tokens)))
        raise ModelError(
            f"model.bos: {piece!r} is no token of the tokenizer of {source}; give "
            f"{FROM_TOKENIZER}, {NO_BOS} or a token of its vocabulary (special ones: "
            f"{', '.join(special[:10])})"
        )
    return int(token_id)


def _own(tokenizer: Any, config: Any, source: str) -> int:
    for name in ("bos_token_id", "eos_token_id"):
        for owner in (tokenizer, config):
            value = getattr(owner, name, None)
            if isinstance(value, list | tuple):  # configs name several ends of a turn
                value = next(iter(value), None)
            if isinstance(value, int):
                return value
    raise ModelError(
        f"{source} has neither a BOS nor an EOS token id in its tokenizer and config; name a token "
        "in model.bos"
    )
