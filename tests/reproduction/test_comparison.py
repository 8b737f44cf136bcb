"""Differences, agreement of sets, and what counts as within."""

import math
from collections.abc import Mapping, Sequence

import polars as pl
import pytest

from mechinterp_assets.reproduction import writing
from mechinterp_assets.reproduction.comparison import SMALLEST_DIVISOR, failures
from mechinterp_assets.reproduction.comparison import compare as compare_all
from mechinterp_assets.reproduction.measures import Found, Measure
from mechinterp_assets.reproduction.reference_file import (
    Number,
    Reference,
    ReferenceFile,
    ReferenceFileError,
    Tolerance,
)
from mechinterp_assets.reproduction.writing import to_yaml

SAID = {"statistic": "mean", "position": "END"}
MEASURE = Measure("m", "w", "SELECT 1", {**SAID, "weights": "raw"}, ("bos",))
RUN = {"bos": "none", "corpus": "of no concern"}
SAME = {"weights": "raw", "bos": "none"}
Values = Mapping[str, Mapping[str, float | list[str] | None]]


def _found(values: Values) -> dict[str, dict[str, Found]]:
    return {
        name: {key: Found(value) for key, value in found.items()} for name, found in values.items()
    }


def compare(references: Sequence[Reference], values: Values) -> pl.DataFrame:
    return compare_all(references, {"m": MEASURE}, _found(values), RUN)


def _numbers(tolerance: Tolerance | None = None, **values: float | Number) -> Reference:
    return Reference.model_validate(
        {
            "id": "a",
            "what": "w",
            "measure": "m",
            "source": "s",
            "condition": SAME,
            **SAID,
            "values": values,
            "tolerance": tolerance,
        }
    )


def _heads(*heads: tuple[int, int], tolerance: Tolerance | None = None) -> Reference:
    return Reference(
        id="h",
        what="w",
        measure="m",
        source="s",
        heads={"x": list(heads)},
        tolerance=tolerance,
        condition=SAME,
        **SAID,
    )


@pytest.mark.parametrize(
    ("ours", "tolerance", "judgement"),
    [
        (2.1, Tolerance(absolute=0.1001), "within"),
        (2.1, Tolerance(absolute=0.0999), "outside"),
        (2.1, Tolerance(relative=0.051), "within"),
        (1.8, Tolerance(absolute=0.01, relative=0.1001), "within"),
        (None, Tolerance(absolute=1), "missing"),
        (math.nan, Tolerance(absolute=1), "missing"),
        (2.1, None, "no_bound"),
        (None, None, "missing"),
    ],
)
def test_numbers_within_a_tolerance(
    ours: float | None, tolerance: Tolerance | None, judgement: str
) -> None:
    rows = compare([_numbers(tolerance, x=2.0)], {"m": {"x": ours}})
    assert rows["judgement"].to_list() == [judgement]
    assert failures(rows).height == (tolerance is not None and judgement != "within")
    missing = ours is None or math.isnan(ours)
    assert rows["ours"].to_list() == [None if missing else ours]
    assert (rows["difference"][0] is None) == missing


def test_an_interval_says_within_and_never_fails() -> None:
    given = {"x": Number(value=3.0, interval=(2.5, 3.2)), "y": Number(value=3.0), "z": 3.0}
    rows = compare([_numbers(**given)], {"m": {"x": 4.0, "y": 4.0}})
    assert rows["judgement"].to_list() == ["outside", "no_bound", "missing"]
    assert rows["ci_low"].to_list() == [2.5, None, None]
    assert failures(rows).is_empty()


def test_sets_of_heads() -> None:
    reference = _heads((9, 9), (9, 6), (10, 0))
    row = compare([reference], {"m": {"x": ["L9H6", "L9H9", "L10H7", "L2H2"]}}).row(0, named=True)
    assert row["reference_heads"] == ["L9H6", "L9H9", "L10H0"]
    assert (row["precision"], row["recall"]) == (0.5, pytest.approx(2 / 3))
    assert (row["ours"], row["reference_value"], row["difference"]) == (4, 3, 3)
    assert row["judgement"] == "no_bound"
    empty = compare([reference], {"m": {"x": []}}).row(0, named=True)
    assert (empty["precision"], empty["recall"], empty["ours"]) == (None, 0, 0)
    absent = compare([reference], {}).row(0, named=True)
    assert (absent["ours"], absent["recall"], absent["our_heads"]) == (None, None, None)
    one_off = _heads((1, 0), tolerance=Tolerance(absolute=1))
    assert failures(compare([one_off], {"m": {"x": ["L1H0", "L1H1"]}})).is_empty()
    assert failures(compare([one_off], {"m": {"x": ["L1H1"]}})).height == 1
    assert failures(compare([one_off], {})).height == 1


def test_numbers_and_heads_are_not_mixed() -> None:
    with pytest.raises(ReferenceFileError, match="write them under heads"):
        compare([_numbers(x=1.0)], {"m": {"x": ["L1H0"]}})
    with pytest.raises(ReferenceFileError, match="write them under values"):
        compare([_heads((1, 0))], {"m": {"x": 1.0}})


def test_another_condition_is_neither_equal_nor_different() -> None:
    """Whatever the value: also where it lies within, and where it lies outside."""
    for ours in (2.0, 9.0):
        for changed, differs in (
            ({"condition": {"weights": "processed", "bos": "none"}}, ["weights"]),
            ({"condition": {"weights": "raw", "bos": "<s>"}}, ["bos"]),
            ({"condition": {"weights": "raw", "bos": "not said"}}, ["bos"]),
            ({"position": "S2", "statistic": "median"}, ["statistic", "position"]),
            ({"condition": SAME | {"model": "gpt2"}}, ["model"]),
        ):
            one = _numbers(Tolerance(absolute=0.1), x=2.0).model_copy(update=changed)
            row = compare([one], {"m": {"x": ours}})
            assert row["judgement"].to_list() == ["other_condition"]
            assert row["other_condition"].to_list() == [differs]
            assert failures(row).is_empty()
            assert compare([one], {"m": {}})["judgement"].to_list() == ["missing"]
    row = compare_all([_numbers(x=2.0)], {"m": MEASURE}, _found({"m": {"x": 2.0}}), {})
    assert row["other_condition"].to_list() == [["bos"]]  # not known of the run
    assert row["own_condition"].to_list() == ["statistic: mean; position: END; weights: raw"]


def test_a_condition_of_the_measure_must_be_said() -> None:
    silent = _numbers(x=2.0).model_copy(update={"condition": {"weights": "raw"}})
    with pytest.raises(ReferenceFileError, match="m depends on bos; say under `condition`"):
        compare([silent], {})


@pytest.mark.parametrize("ours", [2.0, 9.0])
def test_a_ratio_that_divides_by_little_is_shown_and_not_judged(ours: float) -> None:
    one = _numbers(Tolerance(absolute=0.1), x=2.0)
    just = compare_all(
        [one], {"m": MEASURE}, {"m": {"x": Found(ours, SMALLEST_DIVISOR * 0.999)}}, RUN
    )
    assert (just["judgement"][0], just["ours"][0]) == ("unstable", ours)
    assert failures(just).is_empty()
    enough = compare_all([one], {"m": MEASURE}, {"m": {"x": Found(ours, SMALLEST_DIVISOR)}}, RUN)
    assert enough["judgement"].to_list() == ["within" if ours == 2.0 else "outside"]
    nan = compare_all([one], {"m": MEASURE}, {"m": {"x": Found(ours, math.nan)}}, RUN)
    assert nan["judgement"].to_list() == ["unstable"]


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
    measured: Values = {"m": {"x": 12345.6789, "y": -1e-7, "more": 4.0}}
    other = {"bos": "<s>"}

    def updated(before: ReferenceFile, values: Values) -> ReferenceFile:
        return writing.updated(before, {"m": MEASURE}, _found(values), other)

    numbers = before.model_copy(update={"references": before.references[:1]})
    after = updated(numbers, measured)
    read = ReferenceFile.model_validate(yaml.safe_load(to_yaml(after)))
    assert read == after
    assert {key: number.value for key, number in read.references[0].values.items()} == {
        "x": 12346.0,
        "y": -1e-7,
    }
    assert read.references[0].condition == {"weights": "raw", "bos": "<s>"}
    again = compare_all(read.references, {"m": MEASURE}, _found(measured), other)
    assert again["judgement"].to_list() == ["within", "within"]
    assert compare(read.references, measured)["judgement"].unique().to_list() == ["other_condition"]
    heads = before.model_copy(update={"references": before.references[1:]})
    read = ReferenceFile.model_validate(
        yaml.safe_load(to_yaml(updated(heads, {"m": {"x": ["L2H3", "L10H1"]}})))
    )
    assert read.references[0].heads_of("x") == ["L2H3", "L10H1"]
    assert read.references[0].tolerance == Tolerance(absolute=0)
    with pytest.raises(ReferenceFileError, match="no value for 'y' any more"):
        updated(numbers, {"m": {"x": 1.0}})
    with pytest.raises(ReferenceFileError, match="published numbers, which a run does not replace"):
        updated(numbers.model_copy(update={"kind": "published"}), measured)
    fresh = writing.new(
        "other", "of another", numbers.references, {"m": MEASURE}, _found(measured), other
    )
    assert sorted(fresh.references[0].values) == ["more", "x", "y"]
    with pytest.raises(ReferenceFileError, match="nothing of other is measured"):
        writing.new("other", "of another", numbers.references, {"m": MEASURE}, {}, other)
    with pytest.raises(ReferenceFileError, match="depends on bos, which is not known of this run"):
        writing.updated(numbers, {"m": MEASURE}, _found(measured), {})
