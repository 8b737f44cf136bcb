"""Reference files and measures: what is packaged parses, mistakes say what to do."""

from pathlib import Path

import duckdb
import pytest
import yaml

from mechinterp_assets.interventions.experiments import noising_of_attention
from mechinterp_assets.orchestration.registry import STUDIES
from mechinterp_assets.reproduction.conditions import ALWAYS, CONDITIONS, run_conditions
from mechinterp_assets.reproduction.measures import (
    all_measures,
    find_measure,
    measured,
)
from mechinterp_assets.reproduction.reference_file import (
    PACKAGED_REFERENCES,
    ReferenceFileError,
    load_references,
    reference_path,
)
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.table_spec import plain_table

GOOD = {
    "study": "tiny",
    "kind": "published",
    "about": "a paper",
    "references": [
        {
            "id": "a",
            "what": "w",
            "measure": "sae_l0",
            "source": "s",
            "statistic": "mean",
            "position": "END",
            "condition": {"bos": "none"},
            "values": {0: 3, 1: 2.5},
        },
    ],
}


@pytest.mark.parametrize("file", sorted(PACKAGED_REFERENCES.glob("*.yaml")), ids=lambda f: f.stem)
def test_packaged_file_is_of_a_study_and_names_measures_that_exist(file: Path) -> None:
    references = load_references(file, file.stem)
    assert reference_path(file.stem, STUDIES[file.stem].reference) == file
    for one in references.references:
        assert one.measure in all_measures()
        assert (references.kind == "measured") == (one.tolerance is not None), one.id
        assert references.kind == "measured" or one.reason, one.id


def test_heads_of_published_circuits_are_not_written_twice() -> None:
    references = load_references(PACKAGED_REFERENCES / "gpt2-small.yaml", "gpt2-small")
    movers = next(one for one in references.references if one.id == "heads-name-mover")
    assert movers.heads_of("name_mover") == ["L9H6", "L9H9", "L10H0"]
    l0 = next(one for one in references.references if one.id == "k24-sae-l0")
    assert [l0.values[str(layer)].value for layer in (0, 1, 11)] == [3, 20, 8]


def test_keys_of_noising_are_those_of_the_published_experiment() -> None:
    """The measure turns ids of interventions into keys; the reference file names such keys."""
    found = find_measure("noising_recovered").sql
    references = load_references(PACKAGED_REFERENCES / "gpt2-small.yaml", "gpt2-small")
    named = {
        key
        for one in references.references
        if one.measure == "noising_recovered"
        for key in one.values
    }
    planned = noising_of_attention([5, 6], [key.split()[1] for key in named])
    with duckdb.connect() as con:
        con.execute(plain_table(table_spec("intervention_summary")))
        for one in planned:
            con.execute(
                "INSERT INTO intervention_summary BY NAME SELECT 'tiny' AS study, 'ioi' AS task,"
                " ? AS intervention, 'logit_diff' AS metric, 0.5 AS recovered_from_ablated",
                [one.id],
            )
        con.execute("SET VARIABLE study = 'tiny'")
        keys = {row[0] for row in con.sql(found).fetchall()}
    assert named <= keys
    assert len(keys) == len(planned) == 6 * len(named)


def test_every_measure_runs_on_an_empty_lake(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    found = measured(all_measures(), lambda sql: lake.query(sql, "tiny"))
    assert not any(one.value for values in found.values() for one in values.values())
    known = run_conditions(STUDIES["tiny"], lambda sql: lake.query(sql, "tiny"))
    assert known.keys() == CONDITIONS.keys() - {"model", "bos"} - FIXED_BY_MEASURES


FIXED_BY_MEASURES = {"weights", "prompts", "reference", "rule"}


@pytest.mark.parametrize("file", sorted(PACKAGED_REFERENCES.glob("*.yaml")), ids=lambda f: f.stem)
def test_packaged_references_say_what_their_measures_depend_on(file: Path) -> None:
    """And nothing else, so that no condition is named that nobody compares."""
    for one in load_references(file, file.stem).references:
        measure = find_measure(one.measure)
        assert one.depends_on.keys() == {*measure.fixed, *measure.of_run}, one.id


def test_every_condition_belongs_to_some_measure() -> None:
    used = {name for one in all_measures().values() for name in (*one.fixed, *one.of_run)}
    assert used == {*ALWAYS, *CONDITIONS}


def _with(**changes: object) -> dict[str, object]:
    entry = {**GOOD["references"][0], **changes}
    return {**GOOD, "references": [{k: v for k, v in entry.items() if v is not None}]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (_with(values=None), "a: give either values or heads"),
        (_with(heads={"x": [[0, 1]]}), "a: give either values or heads"),
        (_with(tolerance={"absolute": 1}), "a published number has no tolerance"),
        (_with(condition={"box": "none"}), "no condition 'box'; one of model, bos"),
        (_with(condition={"bos": ""}), "at least 1 character"),
        (_with(position=None), "position"),
        (_with(tolerence={}), "references.0.tolerence: unknown key"),
        (_with(values={0: {"value": 3, "interval": [4, 5]}}), "does not hold the value 3.0"),
        (_with(values=None, heads={"x": {"circuit": "wang", "part": "y"}}), "wang-2022-ioi"),
        (
            _with(values=None, heads={"x": {"circuit": "wang-2022-ioi", "part": "y"}}),
            "has no part 'y'; one of name mover",
        ),
        ({**GOOD, "references": GOOD["references"] * 2}, "the id 'a' is there twice"),
        ({**GOOD, "study": "other"}, "'other' is not 'tiny'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, data: dict[str, object], expected: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(ReferenceFileError) as error:
        load_references(file, "tiny")
    assert expected in str(error.value)
    assert str(file) in str(error.value)


def test_missing_file_and_unknown_names_have_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ReferenceFileError, match="--write-reference"):
        load_references(tmp_path / "none.yaml", "tiny")
    with pytest.raises(ReferenceFileError, match="perhaps sae_l0"):
        find_measure("sae_10")
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ReferenceFileError, match="no reference 'b' of tiny; one of a"):
        load_references(file, "tiny").only(["b"])
