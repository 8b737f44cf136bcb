"""Label files: what is read, what each mistake is answered with, shares and sheets."""

import csv
import io

import numpy as np
import pytest

from mechinterp_assets.labels.features import (
    LABELS_SCHEMA,
    label_sheet,
    label_summary,
    read_labels,
    sample_features,
)
from mechinterp_assets.labels.files import LabelError, LabelledSae
from mechinterp_assets.statistics.clopper_pearson import clopper_pearson

HEADER = "rater,study,layer,feature,label,verdict,note\n"
SAES = {0: LabelledSae(10, "aaaa"), 2: LabelledSae(20, "cccc")}


def read(text: str) -> list[dict[str, object]]:
    return read_labels({"l.csv": HEADER + text}, "mine", SAES).to_dicts()


def test_lines_are_read_with_quotes_commas_and_line_breaks() -> None:
    rows = read(
        'bob,mine,2,19,"a, b",YES,"two\nlines"\nann,mine,0,0,<b>,unsure,\nann,mine,2,19,,no,x\n'
    )
    assert [(r["layer"], r["feature"], r["rater"], r["verdict"]) for r in rows] == [
        (0, 0, "ann", "unsure"),
        (2, 19, "ann", "no"),
        (2, 19, "bob", "yes"),
    ]
    assert rows[2]["label"] == "a, b"
    assert rows[2]["note"] == "two\nlines"
    assert [r["line"] for r in rows] == [4, 5, 3]


def test_byte_order_mark_and_further_columns_are_passed_over() -> None:
    text = "\ufeff" + HEADER.strip() + ",sae,dashboard\nann,mine,0,1,x,yes,,aaaa,/page.html\n"
    frame = read_labels({"l.csv": text}, "mine", SAES)
    assert frame.schema == LABELS_SCHEMA
    assert frame.height == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ann,mine,1,0,,yes,", ["layer 1 has no SAE", "0, 2"]),
        ("ann,mine,0,10,,yes,", ["feature 10 does not exist", "0..9"]),
        ("ann,mine,0,-1,,yes,", ["feature is '-1'", "whole number"]),
        ("ann,mine,zero,1,,yes,", ["layer is 'zero'"]),
        ("ann,mine,0,1,,maybe,", ["verdict is 'maybe'", "yes, no, unsure"]),
        ("ann,mine,0,1,,,", ["verdict is ''"]),
        (",mine,0,1,,yes,", ["rater is empty"]),
        ("ann,yours,0,1,,yes,", ["study is 'yours'", "'mine'"]),
        ("ann,mine,0,1,,yes", ["do not fit"]),
        ("ann,mine,0,1,,yes,,more", ["do not fit"]),
        ('ann,mine,0,1,"open,yes,', ["not CSV"]),
        (
            "ann,mine,0,5,,yes,\nann,mine,0,5,,no,",
            [".csv:3", "layer 0 feature 5", ".csv:2"],
        ),
    ],
)
def test_mistakes_name_file_line_value_and_remedy(line: str, expected: list[str]) -> None:
    with pytest.raises(LabelError) as raised:
        read(line + "\n")
    for part in ["l.csv", *expected]:
        assert part in str(raised.value)


def test_every_wrong_line_is_named_at_once() -> None:
    with pytest.raises(LabelError) as raised:
        read("ann,mine,1,0,,yes,\nann,mine,0,0,,yes,\nann,mine,0,1,,perhaps,\n")
    assert [f"l.csv:{n}:" in str(raised.value) for n in (2, 3, 4)] == [True, False, True]


def test_duplicates_across_files_missing_columns_and_another_sae() -> None:
    line = HEADER + "ann,mine,0,1,,yes,\n"
    with pytest.raises(LabelError, match=r"b\.csv:2: .*a\.csv:2"):
        read_labels({"a.csv": line, "b.csv": line}, "mine", SAES)
    with pytest.raises(LabelError, match="no column verdict"):
        read_labels({"a.csv": "rater,study,layer,feature,label,note\n"}, "mine", SAES)
    other = HEADER.strip() + ",sae\nann,mine,0,1,,yes,,bbbb\n"
    with pytest.raises(LabelError, match="given to SAE bbbb, but layer 0 now has aaaa"):
        read_labels({"a.csv": other}, "mine", SAES)


def test_shares_by_hand() -> None:
    frame = read_labels(
        {
            "l.csv": HEADER
            + "".join(f"ann,mine,0,{i},,{'yes' if i < 3 else 'no'},\n" for i in range(4))
            + "bob,mine,0,0,,yes,\nbob,mine,0,1,,unsure,\nbob,mine,2,7,,yes,\n"
        },
        "mine",
        SAES,
    )
    rows = {(r["layer"], r["rater"]): r for r in label_summary(frame).to_dicts()}
    counts = {
        key: (r["n_interpretable"], r["n_labelled"], r["n_unsure"]) for key, r in rows.items()
    }
    assert counts == {
        (0, "ann"): (3, 4, 0),
        (0, "bob"): (1, 2, 1),
        (0, None): (2, 4, 1),
        (2, "bob"): (1, 1, 0),
        (2, None): (1, 1, 0),
        (None, "ann"): (3, 4, 0),
        (None, "bob"): (2, 3, 1),
        (None, None): (3, 5, 1),
    }
    low, high = clopper_pearson(3, 4)
    assert (rows[0, "ann"]["ci_low"], rows[0, "ann"]["ci_high"]) == (float(low), float(high))
    assert label_summary(frame.clear()).height == 0


def test_a_filled_sheet_is_read_back() -> None:
    features = sample_features(np.arange(3, 19), 5, seed=1)
    assert len(set(features.tolist())) == 5
    assert (sample_features(np.arange(3, 19), 5, seed=1) == features).all()
    assert sample_features(np.arange(3), 5, seed=1).tolist() == [0, 1, 2]
    sheet = label_sheet("mine", 2, features, "cccc", {int(features[0]): "/x.html"})
    rows = list(csv.DictReader(io.StringIO(sheet)))
    assert rows[0]["dashboard"] == "/x.html"
    for row in rows:
        row.update(rater="ann", verdict="yes", label="=1+1, quoted")
    filled = io.StringIO()
    writer = csv.DictWriter(filled, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    frame = read_labels({"s.csv": filled.getvalue()}, "mine", SAES)
    assert frame["feature"].to_list() == features.tolist()
    with pytest.raises(LabelError, match="rater is empty"):
        read_labels({"s.csv": sheet}, "mine", SAES)
