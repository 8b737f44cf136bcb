"""Pictures of what attention scores are made of: what is drawn is what the tables say."""

import re

import duckdb
import polars as pl

from mechinterp_assets.dashboards import slice_figures
from mechinterp_assets.dashboards.answers import answer
from mechinterp_assets.dashboards.experiments_page import SLICE_FIGURES
from mechinterp_assets.dashboards.queries import filled_statements

# Terms of three prompts of one root pair of head 2.1: it fires in two of them. S is those above 1.
TERMS = {0: [5.0, 0.5, 2.0], 1: [-3.0, 0.25, -0.5], 2: [4.0, 3.0, -1.0]}
FIRES = {0: True, 1: False, 2: True}


def selected(terms: list[float]) -> list[int]:
    return [k for k, term in enumerate(terms) if abs(term) > 1]


def attention_slices() -> pl.DataFrame:
    """Table attention_slices; beside them a silent head, a pair that is no root, another task."""
    pair = {"layer": 2, "head": 1, "destination_role": "END", "source_role": "IO"}
    rows = [
        {
            "study": "s",
            "task": "ioi",
            "prompt": prompt,
            **pair,
            "destination": 5,
            "source": 2,
            "fires": FIRES[prompt],
            "is_root": True,
            "trace_rule": "fc24",
            "slices": selected(terms),
            "slice_terms": terms,
            "attention": 0.5,
            "attention_score": sum(terms) / 2,
        }
        for prompt, terms in TERMS.items()
    ]
    silent = {**rows[1], "head": 0, "slice_terms": [9.0, 9.0, 9.0], "slices": [0, 1, 2]}
    no_root = {**rows[0], "head": 3, "source_role": "S2", "is_root": False}
    other = {**rows[0], "task": "greater_than", "slice_terms": [7.0, 7.0, 7.0]}
    return pl.DataFrame([*rows, silent, no_root, other])


def rows_of(statement: str, **tables: pl.DataFrame) -> pl.DataFrame:
    with duckdb.connect() as con:
        for name, frame in tables.items():
            con.register(name, frame)
        return con.sql(filled_statements("s")[statement]).pl()


def test_nothing_is_drawn_of_no_rows() -> None:
    columns = ["head", "pair", "fires", "text_source", "effective_heads", "side", "position_role"]
    nothing = pl.DataFrame(schema=dict.fromkeys(columns, pl.Float64))
    assert [draw(nothing) for draw in SLICE_FIGURES.values()] == [None] * 8


def test_terms_are_those_of_the_pairs_with_the_median_score() -> None:
    frame = rows_of("slice_terms", attention_slices=attention_slices())
    figure = slice_figures.slice_terms(frame)
    assert figure is not None
    captions = [caption for caption, _ in figure.pictures]
    # Of the firing prompts, 0 (score 3.75) and 2 (3), the lower of the middle two.
    assert captions[0].startswith("L2H1, END → IO, fires: prompt 2, attention 0.5, score 3")
    assert captions[1].startswith("L2H1, END → IO, does not fire: prompt 1,")
    for (_, picture), prompt in zip(figure.pictures[:2], (2, 1), strict=True):
        bars = re.findall(
            r'<g class="(s1|rest)"><title>slice (\d)(, in S)?: ([−\d.]+)</title>'
            r'<rect [^>]*height="([\d.]+)"',
            picture,
        )
        terms = TERMS[prompt]
        assert [float(value.replace("−", "-")) for *_, value, _ in bars] == terms
        inside = [int(k) for kind, k, said, *_ in bars if kind == "s1" and said]
        assert inside == selected(terms)
        heights = [float(height) for *_, height in bars]
        for height, term in zip(heights, terms, strict=True):
            assert abs(height / heights[0] - abs(term / terms[0])) < 0.02
    assert answer("slice_terms", frame) == (
        "L2H1, END → IO, fires in prompt 2: 2 of its 3 terms are in S and sum to +7, the others to "
        "−1; it does not fire in prompt 1: 1 of its 3 terms are in S and sum to −3, the others to "
        "−0.25."
    )


def test_relative_rule_is_told() -> None:
    table = attention_slices().with_columns(trace_rule=pl.lit("relative"))
    figure = slice_figures.slice_terms(rows_of("slice_terms", attention_slices=table))
    assert figure is not None
    assert "minus their mean over the destination's other sources" in figure.note


def test_a_cell_for_each_prompt_that_selects_a_slice() -> None:
    frame = rows_of("slice_prompts", attention_slices=attention_slices())
    figure = slice_figures.slice_prompts(frame)
    assert figure is not None
    picture = figure.pictures[0][1]
    assert figure.pictures[0][0].startswith("L2H1, END → IO")
    assert "2 prompts: fires" in picture
    assert "1 prompts: does not" in picture
    rows = dict(re.findall(r"<g><title>slice (\d)[^<]*</title>(.*?)</g>", picture))
    columns = {0: 0, 2: 1, 1: 2}  # firing prompts first
    x0 = float(re.search(r'class="field" x="([\d.]+)"', picture)[1])
    for k in range(3):
        cells = re.findall(r'class="([pn])\d" d="([^"]*)"', rows.get(str(k), ""))
        drawn = {
            (sign, round((float(x) - x0 - (14 if float(x) > x0 + 18.5 else 0)) / 9))
            for sign, path in cells
            for x in re.findall(r"M([\d.]+) ", path)
        }
        assert drawn == {
            ("p" if terms[k] > 0 else "n", columns[prompt])
            for prompt, terms in TERMS.items()
            if k in selected(terms)
        }
    assert "slice 0: in S of 2 of 2 pairs that fire, 1 of 1 others" in picture
    assert answer("slice_prompts", frame) == (
        "Singular vector 0 is in S of 2 of 2 prompts in which L2H1, END → IO, fires, and of 1 of 1 "
        "in which it does not; most apart is 1, with 1 and 0."
    )


def test_counts_have_a_plot_per_text_and_a_line_per_head() -> None:
    table = pl.DataFrame(
        [
            ("s", text, head, n, n_pairs)
            for text, head, n, n_pairs in (
                ("ioi", 0, 1, 3),
                ("ioi", 0, 2, 1),
                ("ioi", 1, 4, 1),
                ("corpus", 1, 2, 5),
            )
        ],
        schema=["study", "text_source", "head", "n_slices", "n_pairs"],
        orient="row",
    ).with_columns(layer=pl.lit(1))
    frame = rows_of("slice_counts", attention_slice_counts=table)
    figure = slice_figures.slice_counts(frame)
    assert figure is not None
    assert [name for name, _ in figure.legend] == ["all heads", "L1H0", "L1H1"]
    prompts, corpus = (
        re.findall(r"<title>([\w ]+), (\d) slices: ([\d.]+)", picture)
        for _, picture in figure.pictures
    )
    assert prompts == [
        *(("all heads", n, share) for n, share in (("1", "0.6"), ("2", "0.2"), ("4", "0.2"))),
        *(("L1H0", "1", "0.75"), ("L1H0", "2", "0.25"), ("L1H1", "4", "1")),
    ]
    assert corpus == [("all heads", "2", "1"), ("L1H1", "2", "1")]
    assert answer("slice_counts", frame) == (
        "Half of the firing pairs need at most this many slices: 1 on the prompts (one is enough "
        "for 60%), 2 on unspecific text (one is enough for 0%)."
    )


def test_usage_keeps_firing_and_silent_pairs_apart() -> None:
    frame = pl.DataFrame(
        {
            "head": ["L1H0"] * 3,
            "fires": [True, True, False],
            "slice": [0, 1, 1],
            "selected_share": [1.0, 0.5, 0.25],
            "mean_term_share": [0.1] * 3,
            "n_pairs": [4, 4, 9],
        }
    )
    figure = slice_figures.slice_usage(frame)
    assert figure is not None
    picture = figure.pictures[0][1]
    assert "L1H0 fires, slice 1: in S of 0.5 of 4 pairs" in picture
    assert "L1H0 does not, slice 1: in S of 0.25 of 9 pairs" in picture
    # No silent pair says anything of slice 0: an empty cell.
    assert picture.count('class="field"') == 1
    assert answer("slice_usage", frame) == (
        "In 1 of 1 heads pairs that fire select another slice most often than pairs that do not; "
        "the steadiest is slice 0 of L1H0, in S of 100% of its firing pairs."
    )


def test_contrast_and_signals_name_what_is_drawn() -> None:
    contrast = pl.DataFrame(
        {
            "head": ["L2H1", "L2H1", "L0H0"],
            "side": ["destination", "source", "source"],
            "n_pairs": [5, 5, 1],
            "effective_heads": [1.5, 2.0, None],
            "effective_heads_all_slices": [4.0, 3.0, None],
            "correlation": [0.5, None, None],
        }
    )
    figure = slice_figures.slice_contrast(contrast)
    assert figure is not None
    assert figure.pictures[0][1].count("<circle") == 2
    assert "L2H1, destination: 1.5 heads through S, 4 through all slices" in figure.pictures[0][1]
    assert answer("slice_contrast", contrast) == (
        "Through S the effective number of contributing heads is 52.1% of that through all slices, "
        "in the median; it is smaller in 2 of 2 cases."
    )

    signals = pl.DataFrame(
        {
            "node": ["L2H1 END → S2"] * 3,
            "destination_role": ["END"] * 3,
            "source_role": ["S2"] * 3,
            "side": ["destination", "source", "source"],
            "position_role": ["END", "END", "S2"],
            "mean_signal": [1.0, -0.5, 2.0],
            "sd_signal": [0.1, 0.1, 0.1],
            "n": [8, 8, 8],
        }
    )
    drawn = slice_figures.token_signals(signals)
    assert drawn is not None
    assert [caption.split(":")[0] for caption, _ in drawn.pictures] == ["destination", "source"]
    assert "token S2: 2, sd 0.1 over 8 tokens" in drawn.pictures[1][1]
    assert "token S2" not in drawn.pictures[0][1]
    assert answer("token_signals", signals) == (
        "Of all roles the one that a node attends from or to carries the largest signal: the query "
        "signal in 1 of 1 nodes, the key signal in 1 of 1 nodes."
    )


def test_tokens_are_ranked_within_their_node() -> None:
    node = {"layer": 2, "head": 1, "destination_role": "END", "source_role": "IO"}
    key = {"study": "s", "task": "ioi"}
    norms = pl.DataFrame(
        [
            {
                **key,
                **node,
                "token_id": k,
                "mean_projection": norm,
                "sd_projection": 0.5,
                "n": 3,
                "at_source": at,
            }
            for k, norm, at in ((0, 1.0, False), (1, 4.0, True), (2, 2.0, True), (3, 3.0, False))
        ]
    )
    frame = rows_of(
        "token_norms",
        attention_token_norms=norms,
        attention_consensus=pl.DataFrame([{**key, **node, "n_pairs": 5}]),
        vocabulary=pl.DataFrame(
            {"study": ["s"] * 4, "token_id": range(4), "token": ["<i>", "Ann", "Bob", "the"]}
        ),
    )
    figure = slice_figures.token_norms(frame)
    assert figure is not None
    ((caption, picture),) = figure.pictures
    assert caption == "L2H1 END → IO"
    drawn = [
        re.findall(r'cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>([^:]*): ([\d.]+), sd 0.5', part)
        for part in picture.split("<g class=")[1:]
    ]
    assert [[token for *_, token, _ in part] for part in drawn] == [
        ["the", "&lt;i&gt;"],
        ["Ann", "Bob"],  # above the others
    ]
    order = sorted((float(x), float(y), value) for part in drawn for x, y, _, value in part)
    assert [value for *_, value in order] == ["4", "3", "2", "1"]
    assert [y for _, y, _ in order] == sorted(y for _, y, _ in order)
    assert answer("token_norms", frame) == (
        "A token that stands at the source role has a larger norm than one that never does in 75% "
        "of pairs of such tokens, in the median of 1 nodes; most in L2H1 END → IO, 75%."
    )


def test_contributions_of_heads_stand_beside_those_through_s() -> None:
    key = {"study": "s", "task": "ioi", "layer": 2, "head": 1, "prompt": 7}
    key |= {"destination_role": "END", "source_role": "IO", "side": "source"}
    table = pl.DataFrame(
        [
            {
                **key,
                "upstream_layer": layer,
                "upstream_head": head,
                "contribution": through_s,
                "contribution_all_slices": through_all,
            }
            for layer, head, through_s, through_all in (
                *((0, 0, 0.0, 4.0), (0, 1, 0.1, -2.0)),
                *((1, 0, -3.0, 1.0), (1, 1, 0.0, 0.1)),
            )
        ]
    )
    frame = rows_of("slice_writers", attention_slice_writers=table)
    figure = slice_figures.slice_writers(frame)
    assert figure is not None
    ((caption, picture),) = figure.pictures
    assert caption == ("L2H1, END → IO, source, prompt 7: most L0H0 through all, L1H0 through S")
    x0 = float(re.search(r'class="field" x="([\d.]+)"', picture)[1])
    cells = {
        (layer, round((float(x) - x0) / 14), kind)
        for layer, row in enumerate(re.findall(r"<g><title>.*?</g>", picture))
        for kind, path in re.findall(r'class="([pn]\d)" d="([^"]*)"', row)
        for x in re.findall(r"M([\d.]+) ", path)
    }
    # All slices first, then, after a gap of a column, S; what is below 8% of 4 is blank.
    assert cells == {(0, 0, "p5"), (0, 1, "n2"), (1, 0, "p1"), (1, 3, "n4")}
    assert "L0H0 4, through S 0; L0H1 −2, through S 0.1" in picture
    assert answer("slice_writers", frame) == (
        "In 0 of 1 cases the head with the largest contribution is the same through S as through "
        "all slices; 25% of heads contribute at least 8% of the largest through S, 75% through "
        "all, in the median."
    )
