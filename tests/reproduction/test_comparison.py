"""Differences, agreement of sets, and what counts as within."""

import math

import pytest

from mechinterp_assets.reproduction.comparison import compare, failures
from mechinterp_assets.reproduction.reference_file import (
    Number,
    Reference,
    ReferenceFile,
    ReferenceFileError,
    Tolerance,
)
from mechinterp_assets.reproduction.writing import new, to_yaml, updated


def _numbers(tolerance: Tolerance | None = None, **values: float | Number) -> Reference:
    return Reference.model_validate(
        {
            "id": "a",
            "what": "w",
            "measure": "m",
            "source": "s",
            "values": values,
            "tolerance": tolerance,
        }
    )


def _heads(*heads: tuple[int, int], tolerance: Tolerance | None = None) -> Reference:
    return Reference(
        id="h", what="w", measure="m", source="s", heads={"x": list(heads)}, tolerance=tolerance
    )


@pytest.mark.parametrize(
    ("ours", "tolerance", "within"),
    [
        (2.1, Tolerance(absolute=0.1001), True),
        (2.1, Tolerance(absolute=0.0999), False),
        (2.1, Tolerance(relative=0.051), True),
        (1.8, Tolerance(absolute=0.01, relative=0.1001), True),
        (None, Tolerance(absolute=1), False),
        (math.nan, Tolerance(absolute=1), False),
        (2.1, None, None),
        (None, None, None),
    ],
)
def test_numbers_within_a_tolerance(
    ours: float | None, tolerance: Tolerance | None, within: bool | None
) -> None:
    rows = compare([_numbers(tolerance, x=2.0)], {"m": {"x": ours}})
    assert rows["within"].to_list() == [within]
    assert failures(rows).height == (within is False)
    missing = ours is None or math.isnan(ours)
    assert rows["ours"].to_list() == [None if missing else ours]
    assert (rows["difference"][0] is None) == missing


def test_an_interval_says_within_and_never_fails() -> None:
    given = {"x": Number(value=3.0, interval=(2.5, 3.2)), "y": Number(value=3.0), "z": 3.0}
    rows = compare([_numbers(**given)], {"m": {"x": 4.0, "y": 4.0}})
    assert rows["within"].to_list() == [False, None, None]
    assert rows["ci_low"].to_list() == [2.5, None, None]
    assert failures(rows).is_empty()


def test_sets_of_heads() -> None:
    reference = _heads((9, 9), (9, 6), (10, 0))
    row = compare([reference], {"m": {"x": ["9.6", "9.9", "10.7", "2.2"]}}).row(0, named=True)
    assert row["reference_heads"] == ["9.6", "9.9", "10.0"]
    assert (row["precision"], row["recall"]) == (0.5, pytest.approx(2 / 3))
    assert (row["ours"], row["reference_value"], row["difference"]) == (4, 3, 3)
    assert row["within"] is None
    empty = compare([reference], {"m": {"x": []}}).row(0, named=True)
    assert (empty["precision"], empty["recall"], empty["ours"]) == (None, 0, 0)
    absent = compare([reference], {}).row(0, named=True)
    assert (absent["ours"], absent["recall"], absent["our_heads"]) == (None, None, None)
    one_off = _heads((1, 0), tolerance=Tolerance(absolute=1))
    assert failures(compare([one_off], {"m": {"x": ["1.0", "1.1"]}})).is_empty()
    assert failures(compare([one_off], {"m": {"x": ["1.1"]}})).height == 1
    assert failures(compare([one_off], {})).height == 1


def test_numbers_and_heads_are_not_mixed() -> None:
    with pytest.raises(ReferenceFileError, match="write them under heads"):
        compare([_numbers(x=1.0)], {"m": {"x": ["1.0"]}})
    with pytest.raises(ReferenceFileError, match="write them under values"):
        compare([_heads((1, 0))], {"m": {"x": 1.0}})


def test_a_written_file_reads_back_and_agrees_with_its_run() -> None:
    import yaml

    before = ReferenceFile(
        study="tiny",
        kind="measured",
        about="first",
        references=[
            _numbers(Tolerance(relative=0.01), x=1.0, y=2.0),
            _heads((1, 0), tolerance=Tolerance(absolute=0)),
        ],
    )
    measured = {"m": {"x": 12345.6789, "y": -1e-7, "more": 4.0}}
    numbers = before.model_copy(update={"references": before.references[:1]})
    after = updated(numbers, measured)
    read = ReferenceFile.model_validate(yaml.safe_load(to_yaml(after)))
    assert read == after
    assert {key: number.value for key, number in read.references[0].values.items()} == {
        "x": 12346.0,
        "y": -1e-7,
    }
    assert failures(compare(read.references, measured)).is_empty()
    heads = before.model_copy(update={"references": before.references[1:]})
    read = ReferenceFile.model_validate(
        yaml.safe_load(to_yaml(updated(heads, {"m": {"x": ["2.3", "10.1"]}})))
    )
    assert read.references[0].heads_of("x") == ["2.3", "10.1"]
    assert read.references[0].tolerance == Tolerance(absolute=0)
    with pytest.raises(ReferenceFileError, match="no value for 'y' any more"):
        updated(numbers, {"m": {"x": 1.0}})
    with pytest.raises(ReferenceFileError, match="published numbers, which a run does not replace"):
        updated(numbers.model_copy(update={"kind": "published"}), measured)
    fresh = new("other", "of another", numbers.references, measured)
    assert sorted(fresh.references[0].values) == ["more", "x", "y"]
    with pytest.raises(ReferenceFileError, match="nothing of other is measured"):
        new("other", "of another", numbers.references, {})
