"""Prompts in a chat: every role on its own token, one BOS, END last."""

from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.chat import chat_turn, in_chat
from mechinterp_assets.prompts.families import family_prompts
from mechinterp_assets.prompts.induction import induction_prompts
from mechinterp_assets.prompts.ioi import PromptError, ioi_prompts
from mechinterp_assets.prompts.roles import role_names, role_positions

TEMPLATE = (
    "{% for m in messages %}{{ bos }}{{ m.role }}:\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)


class Chats:
    """The embedded model's tokenizer with a chat template."""

    def __init__(self, model: LanguageModel, template: str) -> None:
        self._tokenizer, self.chat_template = model.tokenizer, template

    def apply_chat_template(self, messages: list[dict[str, str]], **settings: bool) -> str:
        assert not settings.pop("tokenize")
        rendered = self._tokenizer.apply_chat_template(
            messages, chat_template=self.chat_template, tokenize=False, **settings
        )
        return str(rendered)

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize("starts_with_bos", [True, False])
@pytest.mark.parametrize("bos", [0, None])
def test_roles_stay_on_their_tokens(
    organism: LanguageModel, bos: int | None, starts_with_bos: bool
) -> None:
    template = TEMPLATE.replace("bos", repr("<|endoftext|>" if starts_with_bos else ""))
    turn = chat_turn(Chats(organism, template), "Continue the text.", bos)
    variants = ("base", "ABC", "filler_before")
    ioi = ioi_prompts(organism.encode, 12, 0, bos, variants)
    family = family_prompts(["gendered_pronoun"], organism.encode, 6, 0, bos).prompts
    random = induction_prompts(
        organism.token_strings(), 4, 0, bos, ordinary_ids=organism.ordinary_ids
    )
    for alone in (ioi, family, random):
        chat = in_chat(alone, turn, organism.encode, bos, 128)
        assert chat.schema == alone.schema
        assert chat["n_tokens"].to_list() == [len(ids) for ids in chat["token_ids"].to_list()]
        for role in role_names(alone):
            before, after = role_positions(alone, role), role_positions(chat, role)
            for row, (a, b) in enumerate(zip(before, after, strict=True)):
                assert (a < 0) == (b < 0)
                assert a < 0 or alone["token_ids"][row][a] == chat["token_ids"][row][b]
        ends = role_positions(chat, "END")
        assert ends == (chat["n_tokens"] - 1).to_list()
        # Exactly one BOS at the beginning, whether the template writes one or not.
        expected = int(bos is not None or starts_with_bos)
        assert [ids.count(0) for ids in chat["token_ids"].to_list()] == [expected] * chat.height
    chat = in_chat(ioi, turn, organism.encode, bos, 128)
    for text, ids in chat.select("text", "token_ids").iter_rows():
        assert ids == [*([] if bos is None else [bos]), *organism.encode(text)]


def test_what_cannot_be_put_in_a_chat_is_refused(organism: LanguageModel) -> None:
    with pytest.raises(PromptError, match="has no chat template; set chat_template to false"):
        chat_turn(organism.tokenizer, "Continue.", 0)
    with pytest.raises(PromptError, match="chat template cannot be filled in"):
        chat_turn(Chats(organism, "{{ raise_exception('no user') }}"), "Continue.", 0)
    prompts = ioi_prompts(organism.encode, 2, 0, 0, ("base",))
    turn = chat_turn(Chats(organism, TEMPLATE), "Continue.", 0)
    with pytest.raises(PromptError, match=r"tokens in the chat, but the model's context is 20"):
        in_chat(prompts, turn, organism.encode, 0, 20)
    joined = chat_turn(Chats(organism, "{{ messages[0].content }}"), "Some", 0)
    words = pl.DataFrame(
        {"text": ["times we met"], "token_ids": [[0, *organism.encode("times we met")]]}
    ).with_columns(n_tokens=pl.col("token_ids").list.len().cast(pl.Int32))
    assert organism.encode("Sometimes we") != organism.encode("Some") + organism.encode("times we")
    with pytest.raises(PromptError, match="become others behind 'Some'"):
        in_chat(words, joined, organism.encode, 0, 128)


def test_smollm2(smollm2_folder: Path) -> None:
    """Its template begins with its BOS, which is there once."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    start = tokenizer.bos_token_id
    prompts = ioi_prompts(encode, 32, 0, start, ("base",))
    chat = in_chat(prompts, chat_turn(tokenizer, "Continue the text.", start), encode, start, 8192)
    turns = [ids.count(start) for ids in chat["token_ids"].to_list()]
    assert turns == [3] * 32  # system, user, assistant
    assert all(text.startswith("system\n") for text in chat["text"].to_list())
    for row in chat.iter_rows(named=True):
        assert row["token_ids"][row["pos_io"]] == row["io_token_id"]
