"""Labels put into the text of a file: what is there stays, what is wrong is not written."""

import pytest

from mechinterp_assets.files.regular_file import FileError
from mechinterp_assets.labels.features import COLUMNS, read_labels
from mechinterp_assets.labels.files import LabelledSae
from mechinterp_assets.labels.written import with_line

SAES = {0: LabelledSae(4, "abc")}
KEY = ("rater", "study", "layer", "feature")


def line(feature: int, label: str = "names", rater: str = "ann") -> dict[str, str]:
    return {
        "rater": rater,
        "study": "tiny",
        "layer": "0",
        "feature": str(feature),
        "label": label,
        "verdict": "yes",
        "sae": "abc",
    }


def labels(text: str) -> list[tuple[int, str, str]]:
    frame = read_labels({"a.csv": text}, "tiny", SAES)
    return frame.select("feature", "rater", "label").rows()


def test_a_new_file_gets_a_header_and_reads_back() -> None:
    label = 'fires on "a, b"\nand =SUM(1)'
    text = with_line("a.csv", "", (*COLUMNS, "sae"), line(1, label))
    assert labels(text) == [(1, "ann", label)]


def test_lines_that_are_there_stay_byte_for_byte() -> None:
    old = "feature,rater,study,layer,label,verdict,note,page\r\n2,bob,tiny,0,'x',no,,http://a\r\n"
    for text in (old, old.rstrip("\r\n")):
        new = with_line("a.csv", text, COLUMNS, line(1))
        assert new.startswith(text)
        assert labels(new) == [(1, "ann", "names"), (2, "bob", "'x'")]


def test_only_the_same_rater_and_feature_is_replaced() -> None:
    text = with_line("a.csv", "", COLUMNS, line(1, "old"))
    text = with_line("a.csv", text, COLUMNS, line(1, "other", "bob"))
    text = with_line("a.csv", text, COLUMNS, line(2, "two"))
    text = with_line("a.csv", text, COLUMNS, line(1, "new"), replace=KEY)
    assert labels(text) == [(1, "ann", "new"), (1, "bob", "other"), (2, "ann", "two")]


def test_text_that_is_no_csv_is_named() -> None:
    with pytest.raises(FileError, match=r"a\.csv:2: 1 cells do not fit"):
        with_line("a.csv", "rater,study\nann\n", COLUMNS, line(1))
