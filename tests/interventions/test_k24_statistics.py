"""What `reproduce` calls K24's numbers, against the paper's words written down again: on the
embedded model, and on a rotary one with RMSNorm and grouped queries."""

from dataclasses import dataclass

import duckdb
import polars as pl
import pytest

from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.experiments import noising_of_attention, splicing
from mechinterp_assets.interventions.summary import intervention_summary
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.storage.declarations import SQL_FOLDER
from tests.attribution.random_models import random_llama, random_sae
from tests.interventions.k24_reference import (
    ORDERS,
    Passes,
    active_at_s2,
    noised,
    spliced,
    taken_out,
    taken_out_of_values,
)

VARIANTS = ("base", "ABC", "random_names")


@dataclass(frozen=True)
class Case:
    """A model with prompts and SAEs of two layers; atol: of a logit difference."""

    model: LanguageModel
    prompts: pl.DataFrame
    saes: dict[int, SparseAutoencoder]
    atol: float


@pytest.fixture(scope="module", params=["organism", "rotary"])
def case(
    request: pytest.FixtureRequest,
    organism: LanguageModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    """Both orders of names; the rotary model reads each token modulo its vocabulary."""
    model = organism
    prompts = ioi_prompts(organism.encode, 4, 0, organism.bos_token_id, VARIANTS)
    assert set(prompts.filter(variant="base")["name_order"]) == set(ORDERS)
    if request.param == "rotary":
        model = random_llama(tmp_path_factory.mktemp("rotary"))
        size = model.config.d_vocab - 3
        ids = [
            [model.bos_token_id, *(3 + token % size for token in row[1:])]
            for row in prompts["token_ids"].to_list()
        ]
        answers = [(pl.col(name) % size + 3).alias(name) for name in ("io_token_id", "s_token_id")]
        prompts = prompts.with_columns(*answers, token_ids=pl.Series(ids))
        # Two names may be one token now: the difference is then to another one.
        same = pl.col("io_token_id") == pl.col("s_token_id")
        prompts = prompts.with_columns(s_token_id=(pl.col("s_token_id") - 2 * same.cast(int)).abs())
        assert prompts["n_tokens"].max() <= model.config.n_ctx
    saes = {
        layer: random_sae(model.config.d_z, "topk", seed=layer).to(model.dtype) for layer in (0, 1)
    }
    return Case(model, prompts, saes, 2e-4 if model is organism else 1e-6)


def measure(name: str, **tables: pl.DataFrame) -> dict[str, float]:
    """sql/reproduce/<name>.sql over frames, which become the study's tables."""
    with duckdb.connect() as connection:
        connection.execute("SET VARIABLE study = 'test'")
        for table, frame in tables.items():
            connection.register("given", frame.to_arrow())
            connection.execute(f"CREATE TABLE {table} AS SELECT 'test' AS study, * FROM given")
        rows = connection.execute((SQL_FOLDER / "reproduce" / f"{name}.sql").read_text())
        return {row[0]: row[1] for row in rows.fetchall()}


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_noising_at_s2(case: Case, variant: str) -> None:
    """Fig. 5: one layer, and two at once."""
    planned = noising_of_attention([0, 1], [variant])
    found = measure(
        "noising_recovered",
        intervention_summary=intervention_summary(
            run(case.model, case.prompts, planned).with_columns(task=pl.lit("ioi"))
        ),
    )
    passes = Passes(case.model, "processed")
    assert len(found) == 6
    for name, layers in (("L0", [0]), ("L1", [1]), ("L0+L1", [0, 1])):
        at_s2, everywhere = noised(passes, case.prompts, layers, variant)
        assert found[f"{name} {variant} zero"] == pytest.approx(at_s2, rel=1e-3, abs=case.atol)
        assert found[f"{name} {variant} zero_all"] == pytest.approx(
            everywhere, rel=1e-3, abs=case.atol
        )


def test_every_feature_at_s2_by_order(case: Case) -> None:
    """Fig. 16: all that are active in some prompt, and the error."""
    passes, layer = Passes(case.model, "raw"), 1
    features = active_at_s2(passes, case.prompts, case.saes[layer], layer)
    assert len(features) > 3
    at_s2 = {"layer": layer, "position_role": "S2"}
    given = [{"kind": "sae_feature_ablation", "feature": f, **at_s2} for f in features]
    given.append({"kind": "sae_splice", **at_s2})
    frame = run(case.model, case.prompts, given, saes=case.saes)
    found = measure(
        "feature_ablation_at_s2",
        intervention_results=frame.with_columns(task=pl.lit("ioi")),
        ioi_prompts=case.prompts.select("prompt", "name_order"),
    )
    expected = taken_out(passes, case.prompts, case.saes[layer], layer)
    assert len(expected) == 2 * (len(features) + 1)
    for (feature, order), change in expected.items():
        key = f"L{layer}{' error' if feature is None else f'F{feature}'} {order}"
        assert found[key] == pytest.approx(change, abs=case.atol), key
    assert max(map(abs, expected.values())) > 20 * case.atol


@pytest.mark.parametrize("via_mlp", [False, True])
def test_every_feature_at_s2_into_the_values_of_heads(case: Case, via_mlp: bool) -> None:
    """Fig. 16b, by order."""
    passes, layer = Passes(case.model, "raw"), 0
    features = active_at_s2(passes, case.prompts, case.saes[layer], layer)
    receivers = [(1, 0), (2, 3)]
    into = {"layer": layer, "position_role": "S2", "receiver": "v", "receivers": receivers}
    into |= {"receiver_role": "S2", "via_mlp": via_mlp}
    given = [{"kind": "sae_feature_path", "feature": f, **into} for f in features]
    given.append({"kind": "sae_error_path", **into})
    frame = run(case.model, case.prompts, given, saes=case.saes)
    effects = (
        frame.filter(metric="logit_diff")
        .join(case.prompts.select("prompt", "name_order"), on="prompt")
        .group_by("feature", "name_order")
        .agg((pl.col("patched") - pl.col("clean")).mean())
    )
    found = {(feature, order): change for feature, order, change in effects.iter_rows()}
    expected = taken_out_of_values(
        passes, case.prompts, case.saes[layer], layer, receivers, via_mlp=via_mlp
    )
    assert set(found) == set(expected)
    for key, change in expected.items():
        assert found[key] == pytest.approx(change, abs=case.atol), key
    assert max(map(abs, expected.values())) > 20 * case.atol


def test_splicing(case: Case) -> None:
    """App. K: each layer, and both at once."""
    planned = splicing([0, 1], [(0, 1)])
    frame = run(case.model, case.prompts, planned, saes=case.saes)
    found = measure(
        "splice_effect",
        intervention_summary=intervention_summary(frame.with_columns(task=pl.lit("ioi"))),
    )
    passes = Passes(case.model, "raw")
    groups = {"L0": [0], "L1": [1], "L0+L1": [0, 1]}
    assert set(found) == set(groups)
    for key, layers in groups.items():
        saes = {layer: case.saes[layer] for layer in layers}
        expected = spliced(passes, case.prompts, saes, "ABC")
        assert found[key] == pytest.approx(expected, rel=1e-3, abs=case.atol), key
