"""Texts of documents to token ids, each text in one pass.

Belongs here: the call of the tokenizer, and what becomes of the name of a special token that a text
happens to hold. Does not belong here: packing (tokenize.py), prompts (model/language_model.py).

A document is encoded whole, however long it is: cut anywhere, it would have other tokens at the
cut. A web page about tokenizers may hold the text <|endoftext|>. As text it is tokenised like any
other text; as a token it would be an end of a document that the page does not have.
"""

import re
from collections.abc import Sequence
from typing import Any

from mechinterp_assets.corpora.skipped_rows import CorpusError
from mechinterp_assets.model.token_bytes import special_ids


class DocumentEncoder:
    """Token ids of documents, without BOS and without anything else that is no text of theirs.

    Args:
        tokenizer: of transformers.
        as_tokens: whether the name of a special token in a text is that token.
    """

    def __init__(self, tokenizer: Any, *, as_tokens: bool = False) -> None:
        self._tokenizer, self._as_tokens = tokenizer, as_tokens
        special = special_ids(tokenizer)
        names = {str(tokenizer.convert_ids_to_tokens(i)) for i in special}
        # Names of one character are ordinary text in some vocabularies.
        longest_first = sorted((n for n in names if len(n) > 1), key=lambda n: (-len(n), n))
        self._names = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._special = special - {tokenizer.unk_token_id}
        self.n_names = 0

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; names of special tokens are counted in `n_names`.

        Raises CorpusError where the tokenizer makes a special token of text that is to stay text.
        """
        named = [len(self._names.findall(text)) for text in texts]
        self.n_names += sum(named)
        encoded: list[list[int]] = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=not self._as_tokens,
            verbose=False,
        )["input_ids"]
        for text, ids, count in zip(texts, encoded, named, strict=True):
            if count and not self._as_tokens and (made := self._special & set(ids)):
                token = self._tokenizer.convert_ids_to_tokens(min(made))
                raise CorpusError(
                    f"the tokenizer makes the special token {token!r} of the same text in a "
                    f"document ({text[:60]!r}...) and can't be told not to: set "
                    "corpus.special_tokens to as_tokens, or leave the document out"
                )
        return encoded
