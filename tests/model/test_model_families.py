"""A matrix of architectures: of every family, each identity holds or its analysis is refused.

What is refused is listed (families.py), so that a family that gains or loses an analysis shows.
NOT_LOADED families say why in one sentence. The page docs/models.md shows the same table.
"""

from pathlib import Path

import pytest

from mechinterp_assets.heads.head_scores import head_scores
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.agreement import disagreement
from mechinterp_assets.model.analyses import ANALYSES, RESTS_ON
from mechinterp_assets.model.architecture import shape_in_adapter
from mechinterp_assets.model.capabilities import UnsupportedAnalysisError, capabilities_of
from mechinterp_assets.model.identities import attention_scores, hooks_of_scores, identities_of
from mechinterp_assets.model.shape import ModelError, read_shape
from tests.model.families import FAMILIES, NOT_LOADED, REFUSED
from tests.model.family_identities import BEGIN, HEADER, IDENTITIES, PAGE, OwnRun, load_family

TOLERANCE = 1e-4
LOADED = [name for name in FAMILIES if name not in NOT_LOADED]


@pytest.mark.parametrize("family", LOADED)
def test_identities_hold_or_the_analysis_is_refused(family: str, tmp_path: Path) -> None:
    model = load_family(family, tmp_path)
    capabilities = capabilities_of(model)
    refused = {analysis for analysis in ANALYSES if not capabilities.of(analysis).holds}
    assert refused == REFUSED.get(family, set())
    for analysis in refused:
        with pytest.raises(UnsupportedAnalysisError) as raised:
            capabilities.require(analysis)
        assert model.config.architecture in str(raised.value)
        assert str(tmp_path) in str(raised.value)
        broken = [one for one in RESTS_ON[analysis] if not identities_of(model).holds(one)]
        assert max(identities_of(model).error(one) for one in broken) > TOLERANCE
    own = OwnRun(model)
    for name, (analysis, identity) in IDENTITIES.items():
        if analysis not in refused:
            assert identity(own) < TOLERANCE, name


@pytest.mark.parametrize("family", LOADED)
def test_a_config_alone_gives_the_sizes_of_the_bridge(family: str, tmp_path: Path) -> None:
    model = load_family(family, tmp_path)
    assert read_shape(tmp_path) == model.config
    assert shape_in_adapter(model.adapter, model.hf.config) == model.config
    for layer in range(model.config.n_layers):
        assert model.output_projection(layer).weight.numel() == (
            model.config.d_z * model.config.d_model
        )


@pytest.mark.parametrize("family", NOT_LOADED)
def test_a_family_that_does_not_load_says_why(family: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        load_family(family, tmp_path)
    message = str(raised.value)
    assert NOT_LOADED[family] in message
    assert "docs/models.md" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("family", "missing"),
    [
        ("opt", set()),  # its MLP is no module of its own
        ("gpt_neox", {"copying", "copying_effective", "copy_suppression_qk"}),
        ("gemma2", {"copying", "copying_effective", "copy_suppression_qk", "induction_dla"}),
    ],
)
def test_scores_of_heads_are_those_that_hold(
    family: str, missing: set[str], tmp_path: Path
) -> None:
    settings = HeadSettings(
        sequences=2, repeat_length=8, sink_length=8, null_draws=2, cspa_sequences=3, cspa_length=8
    )
    scores = set(head_scores(load_family(family, tmp_path), settings)["score"])
    assert {"induction", "previous_token"} < scores
    assert not missing & scores
    if not missing:
        assert {"copying", "induction_dla"} < scores


@pytest.mark.parametrize(
    ("family", "shown"), [("gpt2", True), ("llama", True), ("opt", False), ("gpt_neo", False)]
)
def test_scores_are_those_of_the_pattern(family: str, shown: bool, tmp_path: Path) -> None:
    """Bridges around transformers' own attention call the hook of scores with the pattern."""
    model = load_family(family, tmp_path)
    assert identities_of(model).hooks_scores == shown
    own = OwnRun(model)
    names = [f"blocks.1.attn.hook_{name}" for name in ("pattern", *hooks_of_scores(model))]
    _, cache = model.processed.run_with_cache(own.ids, names_filter=names)
    found = attention_scores(model, cache, 1).softmax(-1)
    assert disagreement(found, own.pattern[1]) < TOLERANCE


def test_the_page_shows_what_is_refused() -> None:
    shown_table = PAGE.read_text().split(BEGIN)[1]
    rows = [line for line in shown_table.splitlines() if line.startswith("| ")]
    assert rows[0] == HEADER
    shown = {
        row.split(" | ")[0].removeprefix("| "): row.strip("| ").split(" | ")[1:] for row in rows
    }
    assert list(shown) == ["family", *FAMILIES]
    for family in FAMILIES:
        refused = REFUSED.get(family, set()) if family in LOADED else set(ANALYSES)
        for cell, (analysis, _) in zip(shown[family], IDENTITIES.values(), strict=True):
            assert cell.startswith("refused (") == (analysis in refused), (family, analysis)
            if analysis not in refused:
                assert float(cell) < TOLERANCE
