"""Pictures of what attention scores are made of: what is drawn is what the rows say."""

import re

import polars as pl

from mechinterp_assets.dashboards import circuit_figures


def test_nothing_is_drawn_of_no_rows() -> None:
    for draw, columns in (
        (circuit_figures.slice_counts, ["text_source"]),
        (circuit_figures.slice_usage, ["head", "fires"]),
        (circuit_figures.slice_contrast, ["effective_heads"]),
        (circuit_figures.token_signals, ["position_role"]),
    ):
        assert draw(pl.DataFrame(schema=dict.fromkeys(columns, pl.Float64))) is None


def test_counts_have_a_line_per_text() -> None:
    frame = pl.DataFrame(
        {
            "text_source": ["corpus", "corpus", "ioi"],
            "n_slices": [1, 2, 1],
            "n_pairs": [3, 1, 5],
            "share_of_pairs": [0.75, 0.25, 1.0],
        }
    )
    figure = circuit_figures.slice_counts(frame)
    assert figure is not None
    assert [name for name, _ in figure.legend] == ["corpus", "ioi"]
    titles = re.findall(r"<title>\w+, (\d slices: [\d.]+)", figure.pictures[0][1])
    assert sorted(titles) == ["1 slices: 0.75", "1 slices: 1", "2 slices: 0.25"]


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
    figure = circuit_figures.slice_usage(frame)
    assert figure is not None
    picture = figure.pictures[0][1]
    assert "L1H0 fires, slice 1: in S of 0.5 of 4 pairs" in picture
    assert "L1H0 does not, slice 1: in S of 0.25 of 9 pairs" in picture
    # No silent pair says anything of slice 0: an empty cell.
    assert picture.count('class="field"') == 1


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
    figure = circuit_figures.slice_contrast(contrast)
    assert figure is not None
    assert figure.pictures[0][1].count("<circle") == 2
    assert "L2H1, destination: 1.5 heads through S, 4 through all slices" in figure.pictures[0][1]

    signals = pl.DataFrame(
        {
            "node": ["L2H1 END → S2"] * 3,
            "side": ["destination", "source", "source"],
            "position_role": ["END", "END", "S2"],
            "mean_signal": [1.0, -0.5, 2.0],
            "sd_signal": [0.1, 0.1, 0.1],
            "n": [8, 8, 8],
        }
    )
    drawn = circuit_figures.token_signals(signals)
    assert drawn is not None
    assert [caption.split(":")[0] for caption, _ in drawn.pictures] == ["destination", "source"]
    assert "token S2: 2, sd 0.1 over 8 tokens" in drawn.pictures[1][1]
    assert "token S2" not in drawn.pictures[0][1]
