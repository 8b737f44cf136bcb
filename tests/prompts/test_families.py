"""Prompt families: ids and roles from assembly, answers, pairs, independence of rows, errors."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.colored_objects import COLORS, colored_objects
from mechinterp_assets.prompts.common import TASK_PROMPTS_SCHEMA, check_pairs, from_ioi
from mechinterp_assets.prompts.families import FAMILIES, family_prompts
from mechinterp_assets.prompts.gendered_pronoun import NAMES, gendered_pronoun
from mechinterp_assets.prompts.greater_than import greater_than
from mechinterp_assets.prompts.ioi import TEMPLATES, VARIANTS, Encode, PromptError, ioi_prompts
from mechinterp_assets.prompts.roles import position_roles, role_positions

N = 48


class Tokens:
    """A tokenizer as tests read it: ids of a text, text of one id."""

    def __init__(self, encode: Encode, decode: dict[int, str], bos: int) -> None:
        self.encode, self.bos = encode, bos
        self.text = decode


@pytest.fixture(scope="module", params=["organism", "gpt2"])
def tokens(request: pytest.FixtureRequest) -> Tokens:
    if request.param == "organism":
        model: LanguageModel = request.getfixturevalue("organism")
        return Tokens(model.encode, dict(enumerate(model.token_strings())), model.bos_token_id)
    folder: Path = request.getfixturevalue("shared") / "gpt2_tokenizer"
    if not folder.is_dir():
        pytest.skip(f"no tokenizer at {folder}")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = {i: tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())}
    return Tokens(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, texts, 50256)


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest, tokens: Tokens) -> pl.DataFrame:
    return FAMILIES[request.param](tokens.encode, N, 5, tokens.bos)


def at(row: dict[str, object], role: str) -> int:
    """Token id at a role's position."""
    roles, positions, ids = row["roles"], row["positions"], row["token_ids"]
    assert isinstance(roles, list)
    assert isinstance(positions, list)
    assert isinstance(ids, list)
    return int(ids[positions[roles.index(role)]])


def test_ids_are_those_of_the_text_after_bos(tokens: Tokens, family: pl.DataFrame) -> None:
    assert dict(family.schema) == TASK_PROMPTS_SCHEMA
    for row in family.iter_rows(named=True):
        assert row["token_ids"] == [tokens.bos, *tokens.encode(row["text"])]
        assert row["positions"][row["roles"].index("END")] == row["n_tokens"] - 1


def test_pairs_are_equally_long_and_designs_balanced(family: pl.DataFrame) -> None:
    assert family["variant"].to_list() == ["base"] * N + ["corrupt"] * N
    assert family["pair_id"].to_list() == [*range(N), *range(N)]
    check_pairs(family)
    for pair in family.partition_by("pair_id"):
        a, b = pair.iter_rows(named=True)
        assert a["template"] == b["template"]
        assert a["text"] != b["text"]
        assert a["answer_token_ids"] != b["answer_token_ids"]
    counts = Counter(family.filter(variant="base")["template"])
    assert max(counts.values()) - min(counts.values()) <= 2
    assert len(counts) >= 8


def test_rows_depend_on_the_seed_and_their_pair_alone(tokens: Tokens) -> None:
    for name, build in FAMILIES.items():
        frame = build(tokens.encode, 6, 1, tokens.bos)
        assert frame.equals(build(tokens.encode, 6, 1, tokens.bos))
        assert not frame.equals(build(tokens.encode, 6, 2, tokens.bos))
        more = build(tokens.encode, 7, 1, tokens.bos).filter(pl.col("pair_id") < 6)
        assert more.drop("prompt").equals(frame.drop("prompt")), name
        # Other families beside it change nothing.
        both = family_prompts(None, tokens.encode, 6, 1, tokens.bos).prompts
        assert both.filter(task=name).equals(frame)


def test_years(tokens: Tokens) -> None:
    """Answers are exactly the continuations that make the second year the later one."""
    frame = greater_than(tokens.encode, N, 5, tokens.bos)
    by_digits = "UNIT" in frame["roles"][0].to_list()
    assert by_digits == (tokens.bos != 50256)
    for row in frame.iter_rows(named=True):
        century, year = (tokens.text[at(row, role)] for role in ("CENTURY", "YEAR"))
        assert tokens.text[at(row, "END")] == century
        start = year + (tokens.text[at(row, "UNIT")] if by_digits else "")
        assert f"{century}{start}" in row["text"]
        right = {tokens.text[i] for i in row["answer_token_ids"]}
        wrong = {tokens.text[i] for i in row["wrong_token_ids"]}
        every = {str(d) for d in range(10)} if by_digits else {f"{y:02d}" for y in range(100)}
        same = {year} if by_digits else set()
        assert right | wrong | same == every
        assert right
        assert wrong
        for end in right:
            assert int(end.ljust(2, "0")) > int(start)
        for end in wrong:
            assert int(end.ljust(2, "9")) <= int(start)
        if row["variant"] == "corrupt":
            assert start == "01" if not by_digits else start[0] == "1"


def test_pronouns(tokens: Tokens) -> None:
    frame = gendered_pronoun(tokens.encode, N, 5, tokens.bos)
    women = {f" {name}" for name in NAMES["female"]}
    for row in frame.iter_rows(named=True):
        name = tokens.text[at(row, "NAME")]
        pronouns = (" she", " he") if name in women else (" he", " she")
        assert [tokens.text[i] for i in row["answer_token_ids"]] == [pronouns[0]]
        assert [tokens.text[i] for i in row["wrong_token_ids"]] == [pronouns[1]]
        assert tokens.text[at(row, "PUNCT")] == ","
        assert row["text"].endswith("'t")
    female = frame.filter(variant="base")["answer_token_ids"].list.first()
    assert sorted(Counter(female).values()) == [N // 2, N // 2]


def test_colors(tokens: Tokens) -> None:
    frame = colored_objects(tokens.encode, N, 5, tokens.bos)
    for row in frame.iter_rows(named=True):
        listed = {
            tokens.text[at(row, f"OBJECT{label}")]: tokens.text[at(row, f"COLOR{label}")]
            for label in ("", "_B", "_C")
        }
        assert len(listed) == 3
        assert {color.strip() for color in listed.values()} <= set(COLORS)
        asked = tokens.text[at(row, "QUERY")]
        assert asked == tokens.text[at(row, "OBJECT")]
        assert tokens.text[row["answer_token_ids"][0]] == listed[asked]
        assert {tokens.text[i] for i in row["wrong_token_ids"]} == set(listed.values()) - {
            listed[asked]
        }
        assert row["text"].count(asked) >= 2
    # The counterfactual differs in the question alone.
    for pair in frame.partition_by("pair_id"):
        a, b = pair["token_ids"]
        query = role_positions(pair, "QUERY")[0]
        assert [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y] == [query]


def test_what_a_tokenizer_cannot_express_is_said() -> None:
    def characters(text: str) -> list[int]:
        return [ord(c) for c in text]

    with pytest.raises(PromptError, match=r"0 of \d+ female names are single tokens"):
        gendered_pronoun(characters, 4, 0, 0)
    with pytest.raises(PromptError, match=r"0 of \d+ colors are single tokens"):
        colored_objects(characters, 4, 0, 0)
    # Digit by digit is enough for years, whatever the century is.
    digits = family_prompts(None, characters, 4, 0, 0)
    assert set(digits.prompts["task"]) == {"greater_than"}
    assert set(digits.skipped) == {"gendered_pronoun", "colored_objects"}
    named = family_prompts(["colored_objects"], characters, 4, 0, 0)
    assert named.prompts.is_empty()
    assert "colors are single tokens" in named.skipped["colored_objects"]
    short = family_prompts(["greater_than"], characters, 4, 0, 0, n_ctx=20)
    assert "the model's context is 20" in short.skipped["greater_than"]
    with pytest.raises(PromptError, match="unknown prompt families"):
        family_prompts(["shapes"], characters, 4, 0, 0)
    with pytest.raises(PromptError, match="does not read years as a century"):
        greater_than(lambda text: [len(word) for word in text.split()], 4, 0, 0)
    with pytest.raises(PromptError, match="n is 0"):
        greater_than(characters, 0, 0, 0)


def test_ioi_in_every_variant(tokens: Tokens) -> None:
    """All templates, orders and variants with this tokenizer; the common form says the same."""
    wide = ioi_prompts(tokens.encode, 2 * len(TEMPLATES), 3, tokens.bos, VARIANTS)
    base = wide.filter(variant="base")
    cells = Counter(base.select("template", "name_order").rows())
    assert set(cells.values()) == {1}
    assert len(cells) == 2 * len(TEMPLATES) >= 30
    for row in wide.iter_rows(named=True):
        assert row["token_ids"] == [tokens.bos, *tokens.encode(row["text"])]
        for role, name in (("pos_io", "io"), ("pos_s1", "subject"), ("pos_s2", "subject2")):
            assert tokens.text[row["token_ids"][row[role]]] == f" {row[name]}"
    common = from_ioi(wide)
    assert dict(common.schema) == TASK_PROMPTS_SCHEMA
    assert position_roles(common) == position_roles(wide)
    for role in ("IO", "S1", "S2", "END", "PLACE"):
        assert role_positions(common, role) == role_positions(wide, role)
    answers = common["answer_token_ids"].list.first()
    swapped = wide["variant"] == "S2_to_IO"
    assert (answers == wide["io_token_id"]).to_list() == (~swapped).to_list()
