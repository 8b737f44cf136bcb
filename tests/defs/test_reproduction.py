"""The table `reproduction` of a materialized study."""

from mechinterp_assets.app.reproduce import compared, missing_tables
from mechinterp_assets.reproduction.measures import all_measures, measured
from tests.defs.conftest import Materialized

# Measures that the tiny study has nothing for: nobody labelled its heads, no published circuit has
# its shape, and no feature of its SAEs does induction.
WITHOUT_ROWS = {"loss_where_token_is_due", "polysemanticity", "trace_agreement"}


def test_table_is_what_the_command_compares(tiny: Materialized) -> None:
    stored = tiny.lake.read("reproduction", "tiny").collect()
    fresh = compared(tiny.lake, tiny.study, [])
    assert stored.select(fresh.columns).equals(fresh)
    by_key = {(row["reference_id"], row["key"]): row for row in stored.iter_rows(named=True)}
    edges = by_key["edges", "edges"]
    assert (edges["ours"], edges["difference"], edges["judgement"]) == (2461, 0, "within")
    assert by_key["heads", "previous_token"]["reference_heads"] == ["L0H5"]
    assert by_key["heads", "previous_token"]["other_condition"] == []
    assert by_key["l0", "0"]["judgement"] == "no_bound"
    assert by_key["l0", "2"]["judgement"] == "within"
    assert by_key["absent", "1"]["ours"] is None
    other = by_key["other-text", "0"]
    assert (other["judgement"], other["other_condition"]) == ("other_condition", ["corpus"])
    assert "corpus: structured" in other["own_condition"]


def test_every_measure_has_an_answer_of_a_whole_study(tiny: Materialized) -> None:
    assert missing_tables(tiny.lake, tiny.study) == []
    found = measured(all_measures(), lambda sql: tiny.lake.query(sql, "tiny"))
    assert {name for name, values in found.items() if not values} == WITHOUT_ROWS
