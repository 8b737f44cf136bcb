"""Names of heads, and what is said of names that do not exist."""

import pytest

import mechinterp_assets as mi
from mechinterp_assets.api.head import head_of
from mechinterp_assets.api.not_there import perhaps


@pytest.mark.parametrize("name", ["2.13", "L2H13", "l02h13", " 2.13 ", "L2.13"])
def test_heads_are_written_in_several_ways(name: str) -> None:
    assert head_of(name) == (2, 13)


@pytest.mark.parametrize("name", ["", "2", "2.3.4", "H3", "-1.2", "2,3", "L2H", "a.b", "2.3; DROP"])
def test_what_names_no_head_is_refused(name: str) -> None:
    with pytest.raises(mi.NotThereError, match=r"names no head; write layer and head as L2H3"):
        head_of(name)


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    names = ["head_scores", "head_roles", "vocabulary"]
    assert perhaps("head_score", names).startswith("did you mean 'head_scores'")
    assert perhaps("xyz", names) == "there is: head_scores, head_roles, vocabulary"
    assert perhaps("xyz", []) == "there is none"


def test_every_public_name_is_there_and_documented() -> None:
    assert set(mi.__all__) == set(mi._DEFINED_IN)
    for name in mi.__all__:
        assert getattr(mi, name).__doc__, name
    assert set(mi.__all__) <= set(dir(mi))
    with pytest.raises(AttributeError, match="has no attribute 'opened'"):
        _ = mi.opened


def test_an_empty_home_is_named_with_what_to_do(tmp_path: object) -> None:
    with pytest.raises(mi.NotThereError, match=r"nothing is materialized in .*home="):
        mi.open("organism", home=str(tmp_path))
