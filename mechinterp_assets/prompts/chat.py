"""Prompts as the beginning of an assistant's turn, for models that were trained on chats.

Belongs here: what stands before a prompt in a chat, and putting it there. Does not belong here: the
wording of prompts.

A prompt stops before its answer, so the assistant's turn begins with it: a user asks to go on with
a text (`request`), and the turn's text is the prompt. Every role stays on its token, further back
by the length of what stands before, whose positions have no role; END is the prompt's last token
still. (The prompt as the user's own turn would leave the answer to the assistant's first word,
which is seldom the answer: a model of instructions begins to talk about the text.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mechinterp_assets.prompts.ioi import Encode, PromptError


@dataclass(frozen=True)
class ChatTurn:
    """text: what stands before an assistant's words. token_ids: the same, without the BOS that
    prompts begin with."""

    text: str
    token_ids: tuple[int, ...]


def chat_turn(tokenizer: Any, request: str, bos_token_id: int | None) -> ChatTurn:
    """What a chat has before the assistant's answer to `request`, by the tokenizer's template.

    bos_token_id: the token that prompts begin with already; the template's own is left out then.
    Raises PromptError where the tokenizer has no chat template, or it cannot be filled in.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise PromptError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', 'the model')} has no chat "
            "template; set chat_template to false, or give a model that was trained on chats"
        )
    try:
        text = str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
            )
        )
    except Exception as error:  # a template is a program of the model's author
        raise PromptError(
            f"the chat template cannot be filled in ({type(error).__name__}: {error}); set "
            "chat_template to false"
        ) from error
    ids = [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]
    if bos_token_id is not None and ids[:1] == [bos_token_id]:
        ids = ids[1:]
        text = text.removeprefix(str(tokenizer.convert_ids_to_tokens(bos_token_id)))
    return ChatTurn(text, tuple(ids))


def in_chat(
    prompts: pl.DataFrame, turn: ChatTurn, encode: Encode, bos_token_id: int | None, n_ctx: int
) -> pl.DataFrame:
    """Prompts of either form (ioi_prompts, task prompts) behind a chat's turn.

    text, token_ids, n_tokens and all positions become those of the whole. encode: text -> token ids
    without special tokens that are not in the text. Raises PromptError where a prompt's own tokens
    become others there, or the whole does not fit n_ctx.
    """
    n_first = int(bos_token_id is not None)
    rows = []
    for row in prompts.iter_rows(named=True):
        first, own = row["token_ids"][:n_first], row["token_ids"][n_first:]
        whole = [*first, *turn.token_ids, *_behind(turn, row["text"], own, encode)]
        if len(whole) > n_ctx:
            raise PromptError(
                f"a prompt has {len(whole)} tokens in the chat, but the model's context is "
                f"{n_ctx}: set chat_template to false, or shorten chat_request"
            )
        rows.append({"token_ids": whole, "n_tokens": len(whole), "text": turn.text + row["text"]})
    changed = pl.DataFrame(rows, schema={name: prompts.schema[name] for name in rows[0]})
    by = len(turn.token_ids)
    names = [name for name in prompts.columns if name.startswith("pos_")]
    moved = [pl.col(name) + by for name in names]
    if "positions" in prompts.columns:
        moved.append(pl.col("positions").list.eval(pl.element() + by))
    shifted = prompts.with_columns(moved).with_columns(changed)
    return shifted.cast(prompts.schema)


# ---- private -------------------------------------------------------------------------------------


def _behind(turn: ChatTurn, text: str, own: Sequence[int], encode: Encode) -> list[int]:
    """Ids of a prompt behind the turn: its own, but for a space that its first token has alone."""
    before = list(encode(turn.text))
    alone, whole = list(encode(text)), list(encode(turn.text + text))
    if alone != list(own):  # random tokens, which no text has
        return list(own)
    joined = whole[len(before) :]
    same_length = len(whole) == len(before) + len(alone) and whole[: len(before)] == before
    if same_length and joined[1:] == alone[1:]:
        return joined
    raise PromptError(
        f"the tokens of {text!r} become others behind {turn.text[-30:]!r}: positions of roles "
        "would be wrong; set chat_template to false"
    )
