"""Label files of heads: what is read, what each mistake is answered with, shares and sheets."""

import csv
import io

import polars as pl
import pytest

from mechinterp_assets.labels.files import LabelError, LabelledSae
from mechinterp_assets.labels.heads import (
    CLASSES,
    NO_MAJORITY,
    head_label_sheet,
    head_label_summary,
    read_head_labels,
    sample_heads,
)
from mechinterp_assets.statistics.clopper_pearson import clopper_pearson
from mechinterp_assets.storage.declarations import polars_schema, table_spec

HEADER = "rater,study,layer,head,feature,label,class,note\n"
SAES = {0: LabelledSae(10, "aaaa"), 2: LabelledSae(20, "cccc")}


def read(text: str) -> pl.DataFrame:
    return read_head_labels({"h.csv": HEADER + text}, "mine", 4, SAES)


def test_heads_and_their_features_are_read() -> None:
    frame = read(
        "ann,mine,2,3,,succession,Monosemantic,\n"
        "ann,mine,2,3,19,<b>days</b>,,n\n"
        "ann,mine,2,3,18,,,\n"  # not described
        ",mine,2,2,,,,\n"  # not labelled
        ",mine,2,2,4,,,\n"
        'bob,mine,2,3,,"a, b",minor exception,"two\nlines"\n'
    )
    assert frame.schema == polars_schema(table_spec("head_labels"))
    assert frame.select("head", "feature", "rater", "class", "line").rows() == [
        (3, None, "ann", "monosemantic", 2),
        (3, None, "bob", "minor exception", 8),
        (3, 19, "ann", None, 3),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ann,mine,1,0,,x,polysemantic,", ["layer 1 has no SAE", "0, 2"]),
        ("ann,mine,0,4,,x,polysemantic,", ["head L0H4 does not exist", "0..3"]),
        ("ann,mine,0,-1,,x,polysemantic,", ["head is '-1'", "whole number"]),
        ("ann,mine,0,1,,x,trisemantic,", ["class is 'trisemantic'", ", ".join(CLASSES)]),
        ("ann,mine,0,1,,x,,", ["class is ''"]),
        ("ann,mine,0,1,3,x,polysemantic,", ["line of a feature", "feature is empty"]),
        ("ann,mine,0,1,10,x,,", ["feature 10 does not exist", "0..9"]),
        (",mine,0,1,,x,polysemantic,", ["rater is empty"]),
        ("ann,yours,0,1,,x,polysemantic,", ["study is 'yours'"]),
        ("ann,mine,0,1,,x,polysemantic", ["do not fit"]),
        (
            "ann,mine,0,1,,x,bisemantic,\nann,mine,0,1,,,polysemantic,",
            [".csv:3", "head L0H1 already", ".csv:2"],
        ),
        ("ann,mine,0,1,5,x,,\nann,mine,0,1,5,y,,", [".csv:3", "head L0H1 feature 5 already"]),
    ],
)
def test_mistakes_name_file_line_value_and_remedy(line: str, expected: list[str]) -> None:
    with pytest.raises(LabelError) as raised:
        read(line + "\n")
    for part in ["h.csv", *expected]:
        assert part in str(raised.value)


def test_another_sae_and_missing_columns() -> None:
    other = HEADER.strip() + ",sae\nann,mine,0,1,,x,bisemantic,,bbbb\n"
    with pytest.raises(LabelError, match="given to SAE bbbb, but layer 0 now has aaaa"):
        read_head_labels({"h.csv": other}, "mine", 4, SAES)
    with pytest.raises(LabelError, match="no column class"):
        read_head_labels({"h.csv": HEADER.replace(",class", "")}, "mine", 4, SAES)


def test_shares_by_hand() -> None:
    frame = read(
        "".join(
            f"ann,mine,0,{h},,,{'monosemantic' if h < 3 else 'polysemantic'},\n" for h in range(4)
        )
        + "ann,mine,0,0,5,not a head,,\n"
        + "bob,mine,0,0,,,bisemantic,\nbob,mine,0,1,,,monosemantic,\nbob,mine,2,0,,,polysemantic,\n"
    )
    summary = head_label_summary(frame)
    assert summary.schema == polars_schema(table_spec("head_label_summary"))
    rows = {(r["layer"], r["rater"], r["class"]): r for r in summary.to_dicts()}
    counts = {key: (r["n_class"], r["n_classified"]) for key, r in rows.items()}
    assert counts[0, "ann", "monosemantic"] == (3, 4)
    assert counts[0, "ann", "minor exception"] == (0, 4)
    assert counts[0, None, "monosemantic"] == (2, 4)
    assert counts[0, None, NO_MAJORITY] == (1, 4)  # head 0: two raters, two classes
    assert counts[0, None, "polysemantic"] == (1, 4)
    assert counts[None, None, "polysemantic"] == (2, 5)
    assert counts[None, "bob", "bisemantic"] == (1, 3)
    assert (0, "ann", NO_MAJORITY) not in counts
    low, high = clopper_pearson(3, 4)
    found = rows[0, "ann", "monosemantic"]
    assert (found["ci_low"], found["ci_high"]) == (float(low), float(high))
    shares = summary.group_by("layer", "rater").agg(pl.col("class_share").sum(), pl.len())
    assert shares["class_share"].to_list() == pytest.approx([1.0] * shares.height)
    assert head_label_summary(frame.clear()).height == 0


def test_a_filled_sheet_is_read_back() -> None:
    features = pl.DataFrame(
        {
            "layer": [0, 0, 2],
            "head": [1, 1, 0],
            "feature": [3, 4, 7],
            "frequent_tokens": [[" a", "=1+1"], [], ["\n"]],
        }
    )
    sheet = head_label_sheet("mine", features, SAES, {(0, 1): "/x.html"})
    assert read_head_labels({"s.csv": sheet}, "mine", 4, SAES).is_empty()
    rows = list(csv.DictReader(io.StringIO(sheet)))
    assert [(r["layer"], r["head"], r["feature"]) for r in rows] == [
        ("0", "1", ""),
        ("0", "1", "3"),
        ("0", "1", "4"),
        ("2", "0", ""),
        ("2", "0", "7"),
    ]
    assert rows[0]["dashboard"] == "/x.html"
    assert rows[1]["frequent_tokens"] == "' a' | '=1+1'"
    rows[0].update(rater="ann", **{"class": "polysemantic"})
    rows[1].update(rater="ann", label="=1+1, quoted")
    filled = io.StringIO()
    writer = csv.DictWriter(filled, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    frame = read_head_labels({"s.csv": filled.getvalue()}, "mine", 4, SAES)
    assert frame["class"].to_list() == ["polysemantic", None]
    assert frame["label"].to_list() == ["", "=1+1, quoted"]


def test_heads_are_drawn_with_a_seed() -> None:
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    drawn = sample_heads(heads, 5, seed=1)
    assert drawn == sample_heads(heads[::-1], 5, seed=1)
    assert len(set(drawn)) == 5
    assert drawn != sample_heads(heads, 5, seed=2)
    assert sample_heads(heads, 50, seed=0) == heads
