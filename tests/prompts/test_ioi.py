"""IOI prompts: roles from assembly, variants, balance, errors."""

import re
from collections import Counter
from collections.abc import Callable

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.circuits.baseline import ioi_baseline
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import (
    TEMPLATES,
    VARIANTS,
    PromptError,
    SegmentEncoder,
    equal_length_groups,
    ioi_prompts,
    parse_template,
    single_token_names,
)
from mechinterp_assets.prompts.roles import position_roles


@pytest.fixture(scope="module")
def prompts(organism: LanguageModel) -> pl.DataFrame:
    return ioi_prompts(organism.encode, 64, 3, organism.bos_token_id, VARIANTS)


def test_ids_are_those_of_the_text_after_bos(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    for row in prompts.iter_rows(named=True):
        assert row["token_ids"] == [organism.bos_token_id, *organism.encode(row["text"])]
        assert row["n_tokens"] == len(row["token_ids"])


def test_positions_hold_the_tokens_of_their_roles(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    def at(row: dict[str, object], role: str) -> str:
        ids, position = row["token_ids"], row[role]
        assert isinstance(ids, list)
        assert isinstance(position, int)
        return str(organism.tokenizer.decode([ids[position]]))

    for row in prompts.iter_rows(named=True):
        assert at(row, "pos_io") == f" {row['io']}"
        assert at(row, "pos_s1") == f" {row['subject']}"
        assert at(row, "pos_s2") == f" {row['subject2']}"
        assert row["token_ids"][row["pos_io"]] == row["io_token_id"]
        assert row["token_ids"][row["pos_s1"]] == row["s_token_id"]
        assert (row["pos_io"] < row["pos_s1"]) == (row["name_order"] == "ABBA")
        assert row["pos_s1_next"] == row["pos_s1"] + 1
        assert row["pos_end"] == row["n_tokens"] - 1
        assert at(row, "pos_end") == " to"
        assert at(row, "pos_punct") in {",", "."}
        assert row["pos_punct"] < row["pos_s2"] < row["pos_verb"] <= row["pos_end"]
        names = {"and_comma": ","}.get(row["variant"])
        if names is None and not row["variant"].startswith("and_"):
            names = " and"
        if names is not None:
            assert at(row, "pos_and") == names


def test_variants_change_what_they_say_and_nothing_else(prompts: pl.DataFrame) -> None:
    def of(variant: str) -> list[dict[str, object]]:
        return prompts.filter(variant=variant).sort("pair_id").to_dicts()

    base = of("base")
    for variant in VARIANTS:
        for row, plain in zip(of(variant), base, strict=True):
            for column in ("pair_id", "template", "place", "object"):
                assert row[column] == plain[column]
            people = {row["io"], row["subject"], row["subject2"]}
            if variant == "ABC":
                assert len(people | {plain["io"], plain["subject"]}) == 5
            elif variant in {"random_names", "names_and_fillers"}:
                assert row["subject"] == row["subject2"] != row["io"]
                assert not people & {plain["io"], plain["subject"]}
            elif variant == "S2_to_IO":
                assert row["subject2"] == row["io"] == plain["io"]
            else:
                assert row["io"] == plain["io"]
                assert row["subject"] == row["subject2"] == plain["subject"]
            if variant == "swap":
                assert (row["pos_io"], row["pos_s1"]) == (plain["pos_s1"], plain["pos_io"])
                assert row["name_order"] != plain["name_order"]
            else:
                assert row["name_order"] == plain["name_order"]
            if variant not in {"base", "swap"}:
                assert row["text"] != plain["text"]
            if variant == "filler_before":
                assert row["text"] == f"It was a nice day. {plain['text']}"
            if variant == "names_and_fillers":
                text = str(row["text"])
                assert text.startswith("It was a nice day. ")
                assert text.count("nice day") == 2


def test_templates_and_orders_are_balanced(organism: LanguageModel) -> None:
    frame = ioi_prompts(organism.encode, 100, 0, organism.bos_token_id, ["base"])
    counts = Counter(zip(frame["template"], frame["name_order"], strict=True))
    assert len(TEMPLATES) >= 15
    assert len(counts) == 2 * len(TEMPLATES)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_deterministic_and_a_new_variant_changes_no_other_row(organism: LanguageModel) -> None:
    def draw(seed: int, variants: list[str]) -> pl.DataFrame:
        return ioi_prompts(organism.encode, 12, seed, organism.bos_token_id, variants)

    assert draw(1, ["base", "ABC"]).equals(draw(1, ["base", "ABC"]))
    assert not draw(1, ["base"]).equals(draw(2, ["base"]))
    wide = draw(1, ["base", "swap", "ABC"]).filter(pl.col("variant") == "ABC").drop("prompt")
    assert wide.equals(draw(1, ["ABC"]).drop("prompt"))


def test_allowed_pair_is_respected(organism: LanguageModel) -> None:
    def allowed(a: str, b: str) -> bool:
        return {a[0], b[0]} == {"J", "M"}

    frame = ioi_prompts(
        organism.encode, 40, 0, organism.bos_token_id, ["base", "ABC"], allowed_pair=allowed
    )
    assert all(allowed(a, b) for a, b in zip(frame["io"], frame["subject"], strict=True))
    with pytest.raises(PromptError, match="allowed_pair accepts no pair"):
        ioi_prompts(organism.encode, 1, 0, organism.bos_token_id, allowed_pair=lambda a, b: False)


def test_roles_name_every_position_once(prompts: pl.DataFrame) -> None:
    for row, roles in zip(prompts.iter_rows(named=True), position_roles(prompts), strict=True):
        assert len(roles) == row["n_tokens"]
        assert roles[0] == "BOS"
        assert roles[row["pos_io"]] == "IO"
        assert roles[row["pos_s1_next"]] == "S1+1"
        assert roles[row["pos_end"]] == "END"
        counted = Counter(role for role in roles if role != "other")
        assert set(counted.values()) == {1}
        assert ("AND" in counted) == (row["name_order"] == "ABBA")


def test_groups_have_equal_length_and_cover_all(prompts: pl.DataFrame) -> None:
    seen: list[int] = []
    for group, ids in equal_length_groups(prompts, 10):
        assert ids.shape == (group.height, group["n_tokens"][0])
        assert group.height <= 10
        assert ids.tolist() == group["token_ids"].to_list()
        seen += group["prompt"].to_list()
    assert sorted(seen) == prompts["prompt"].to_list()


def test_the_length_may_bound_a_group(prompts: pl.DataFrame) -> None:
    lengths = sorted(prompts["n_tokens"].unique())
    most = {length: n + 1 for n, length in enumerate(lengths)}
    groups = [group for group, _ in equal_length_groups(prompts, most.__getitem__)]
    assert pl.concat(groups).equals(prompts.sort("n_tokens", maintain_order=True))
    counts = dict(prompts["n_tokens"].value_counts().iter_rows())
    for length, bound in most.items():
        sizes = [group.height for group in groups if group["n_tokens"][0] == length]
        assert sizes[:-1] == [bound] * (-(-counts[length] // bound) - 1)
        assert 0 < sizes[-1] <= bound


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"variants": ["base", "cba"]}, "unknown variants"),
        ({"variants": ["base", "base"]}, "distinct"),
        ({"variants": []}, "at least one"),
        ({"places": []}, "no places"),
        (
            {"templates": ["Then {first} {and} {second} met{punct:.} They {verb:left} to"]},
            "subject",
        ),
        ({"templates": ["{first} {and} {second} met{punct:.} {subject} {verb:ran} to"]}, "space"),
        (
            {"templates": ["So {second} {and} {first} met{punct:.} {subject} {verb:ran} to"]},
            "roles",
        ),
        (
            {"templates": ["So {first} {and} {second} met{punct:;} {subject} {verb:ran} to"]},
            "punct",
        ),
        (
            {"templates": ["So {first} {and} {second} met{punct:.} {subject} {verb:ran}"]},
            "end with",
        ),
        ({"templates": ["So {who} {and} {second} met{punct:.} {subject} {verb:ran} to"]}, "who"),
        ({"names": ["Xqzvbnmkl", "Mary"]}, "only 1 of 2 names"),
    ],
)
def test_bad_input_is_named(
    organism: LanguageModel, arguments: dict[str, object], message: str
) -> None:
    call: Callable[..., pl.DataFrame] = ioi_prompts
    settings = {"n": 4, "seed": 0, "bos_token_id": organism.bos_token_id, **arguments}
    with pytest.raises(PromptError, match=message):
        call(organism.encode, **settings)


def test_an_encode_with_special_tokens_is_refused(organism: LanguageModel) -> None:
    with pytest.raises(PromptError, match="add_special_tokens=False"):
        single_token_names(lambda text: [0, *organism.encode(text)])


def test_segments_that_merge_are_refused() -> None:
    ids: dict[str, int] = {}

    def words(text: str) -> list[int]:
        pieces = text.replace("lunch at", "lunch_at").split(" ")
        return [ids.setdefault(piece, len(ids)) for piece in pieces if piece]

    template = "So {first} {and} {second} met for lunch{punct:,} {subject} {verb:gave} it to"
    with pytest.raises(PromptError, match="other tokens"):
        # Words split at spaces only: "lunch" and "," are one token together, two apart.
        ioi_prompts(words, 2, 0, 999, ["base"], templates=[template])


def test_sentencepiece_like_encoders_are_read_behind_an_anchor() -> None:
    def pieces(text: str) -> list[int]:
        """Puts a space before any text, as sentencepiece does; one id per word or mark."""
        found = re.findall(r" ?[A-Za-z]+|[,.]| ", f" {text}") if text else []
        return [sum(ord(c) << (5 * i) for i, c in enumerate(word)) % 99991 for word in found]

    encoder = SegmentEncoder(pieces)
    assert len(encoder(" Mary")) == 1
    frame = ioi_prompts(pieces, 32, 0, 7, VARIANTS)
    for row in frame.iter_rows(named=True):
        assert row["token_ids"] == [7, *pieces(row["text"])]


@given(st.text(alphabet="{}abfirst second:.,", max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_template_or_an_error(text: str) -> None:
    try:
        slots = parse_template(text)
    except PromptError:
        return
    assert {"first", "second"} <= {slot.kind for slot in slots}


def test_baseline_equals_the_bridge_and_the_model_answers(
    organism: LanguageModel, prompts: pl.DataFrame
) -> None:
    base = prompts.filter(pl.col("variant").is_in(["base", "swap"]))
    frame = ioi_baseline(organism, base, max_prompts=16)
    assert frame["prompt"].to_list() == base["prompt"].to_list()
    assert frame["logit_diff"].to_numpy().mean() > 1
    row, got = base.row(5, named=True), frame.row(5, named=True)
    with torch.no_grad():
        logits = organism.raw(torch.tensor([row["token_ids"]]))[0, -1].double()
    assert got["logit_io"] == pytest.approx(float(logits[row["io_token_id"]]), abs=1e-4)
    assert got["logit_s"] == pytest.approx(float(logits[row["s_token_id"]]), abs=1e-4)
    assert got["logit_diff"] == pytest.approx(got["logit_io"] - got["logit_s"])
    assert got["prob_io"] == pytest.approx(float(logits.softmax(-1)[row["io_token_id"]]), abs=1e-5)
    assert got["top_token_id"] == int(logits.argmax())
    assert got["prefers_io"] == (got["logit_diff"] > 0)
    with pytest.raises(PromptError, match="no prompts"):
        ioi_baseline(organism, base.clear())
