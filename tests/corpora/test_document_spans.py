"""The view document_spans and token_documents: the owners of tokens that the packer knows."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from mechinterp_assets.corpora.token_documents import Separator, token_documents
from mechinterp_assets.corpora.tokenize import _DocumentPacker, _Packer

VIEW = Path(__file__).resolve().parents[2] / "sql" / "views" / "document_spans.sql"
BOS = 0


@pytest.mark.parametrize("prepend", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_spans_are_the_owners_of_the_packer(prepend: bool, packed: bool) -> None:
    random = np.random.default_rng(0)
    packer = (_Packer if packed else _DocumentPacker)(6)
    rows, owners = [], []
    for document in range(200):
        ids = random.integers(1, 9, random.integers(0, 15)).astype(np.int32)
        for tokens, owner in packer.add(ids, document, BOS):
            rows.append([BOS, *tokens.tolist()] if prepend else tokens.tolist())
            owners.append([owner[0], *owner.tolist()] if prepend else owner.tolist())
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE tokenized_corpus (study VARCHAR, sequence INTEGER, documents BIGINT[],"
            " n_tokens INTEGER, token_ids INTEGER[])"
        )
        con.execute("CREATE TABLE language_model AS SELECT 's' AS study, 0 AS bos_token_id,"
                    f" {prepend} AS prepend_bos")  # fmt: skip
        for sequence, (tokens, of) in enumerate(zip(rows, owners, strict=True)):
            documents = [int(one) for one in dict.fromkeys(of)]
            con.execute(
                "INSERT INTO tokenized_corpus VALUES ('s', ?, ?, ?, ?)",
                [sequence, documents, len(tokens), tokens],
            )
        con.execute(VIEW.read_text().partition("COMMENT ON")[0])
        found = con.execute(
            "SELECT sequence, document, first_position, last_position FROM document_spans"
        ).fetchall()
    spans = {
        (sequence, position): document
        for sequence, document, first, last in found
        for position in range(first, last + 1)
    }
    expected = {
        (sequence, position): int(owner)
        for sequence, of in enumerate(owners)
        for position, owner in enumerate(of)
    }
    assert len(expected) > 400
    assert spans == expected
    frame = pl.DataFrame(
        {
            "documents": [[int(one) for one in dict.fromkeys(of)] for of in owners],
            "token_ids": rows,
        }
    )
    np.testing.assert_array_equal(token_documents(frame, Separator(BOS, prepend)), owners)


def test_a_separator_within_a_document_moves_no_token_past_the_last_document() -> None:
    frame = pl.DataFrame({"documents": [[4, 7]], "token_ids": [[BOS, 1, BOS, 2, BOS, 3]]})
    assert token_documents(frame, Separator(BOS)).tolist() == [[4, 4, 4, 7, 7, 7]]
