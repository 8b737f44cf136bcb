"""The page of tables and terms: complete, and each join it shows runs."""

import re

import duckdb

from mechinterp_assets.app.joins_page import PATH, joins_text
from mechinterp_assets.dashboards.glossary_page import glossary_page
from mechinterp_assets.storage.declarations import declarations
from mechinterp_assets.storage.joins import joins, joins_of
from mechinterp_assets.storage.table_spec import plain_table


def test_every_table_view_column_and_score_has_its_place() -> None:
    text = glossary_page()
    declared = declarations()
    for relation in [*declared.tables.values(), *declared.views]:
        assert f'<details class="term" id="{relation.name}">' in text
        for column in relation.columns:
            assert f'<div id="{relation.name}.{column.name}">' in text
    assert 'id="score.induction"' in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert text == glossary_page()


def test_every_declared_foreign_key_is_a_join_that_runs() -> None:
    declared = declarations()
    known = joins(declared.tables)
    n_references = sum(len(s.constraints.references) for s in declared.tables.values())
    assert len(known) == n_references > 30
    with duckdb.connect() as con:
        for spec in declared.tables.values():
            con.execute(plain_table(spec, stored=True))
        for join in known:
            con.sql(f"SELECT count(*) {join.sql}").fetchall()


def test_joins_of_a_table_are_those_from_it_and_those_to_it() -> None:
    known = joins(declarations().tables)
    refers, _ = joins_of("head_attention_examples", known)
    assert [join.sql for join in refers] == [
        "FROM head_attention_examples JOIN tokenized_corpus USING (study, sequence)"
    ]
    _, referred = joins_of("feature_top_examples", known)
    assert {join.table for join in referred} >= {"feature_dfa", "feature_rdfa"}


def test_the_file_of_joins_is_what_the_declarations_say() -> None:
    assert PATH.read_text() == joins_text(), "python -m mechinterp_assets.app.joins_page"
