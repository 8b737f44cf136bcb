"""The registry of published experiments and those of Kissane et al.: choices on planted frames."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import polars as pl
import pytest
import torch

from mechinterp_assets.app.queries import find_query
from mechinterp_assets.interventions.api import request, run
from mechinterp_assets.interventions.experiment_context import (
    ExperimentContext,
    NothingToRun,
)
from mechinterp_assets.interventions.feature_choice import (
    FEATURE_ATTRIBUTION_SCHEMA,
    features_to_ablate,
    top_features,
)
from mechinterp_assets.interventions.measured_context import experiment_context
from mechinterp_assets.interventions.published import (
    PUBLISHED,
    choose_published,
    published_experiments,
)
from mechinterp_assets.interventions.published_k24 import pairs_in_order
from mechinterp_assets.interventions.published_sets import published_layers, published_sets
from mechinterp_assets.interventions.runner import spec_frame
from mechinterp_assets.interventions.sets import Planned, validate
from mechinterp_assets.interventions.settings import InterventionSettings
from mechinterp_assets.interventions.summary import intervention_summary
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelShape
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import plain_table
from tests.interventions.conftest import choose

K24 = ("k24_noising", "k24_splicing", "k24_cross_section", "k24_features_at_s2")
SMALL = ModelShape(
    architecture="gpt2",
    n_layers=5,
    n_heads=4,
    n_kv_heads=4,
    d_model=32,
    d_head=8,
    d_mlp=64,
    d_vocab=100,
    n_ctx=32,
    positional="absolute",
    normalization="LN",
    eps=1e-5,
)
GPT2 = replace(SMALL, n_layers=12, n_heads=12, n_kv_heads=12, d_model=768, d_vocab=50257)
SCORES = {"layer": pl.Int32, "head": pl.Int32, "score": pl.String, "value": pl.Float64}
ROLES = dict.fromkeys(("IO", "S1", "S2", "END"), ())

Effects = Callable[[Sequence[Planned]], Mapping[str, float]]


def planted_effects(by_layer: Mapping[int, float]) -> Effects:
    """The effect of what edits a layer is that of the layer."""

    def effects(planned: Sequence[Planned]) -> dict[str, float]:
        return {one.id: by_layer.get(one.layer, 0.0) for one in planned}

    return effects


def planted(
    shape: ModelShape = SMALL,
    *,
    variants: Sequence[str] = ("base", "ABC", "and_with"),
    scores: Sequence[tuple[int, int, str, float]] = (),
    attribution: Sequence[tuple[int, int, float]] = ((0, 7, 0.2), (0, 3, -0.9), (0, 1, 0.1)),
    effects: Mapping[int, float] | None = None,
    **given: Any,
) -> ExperimentContext:
    """A context without a model; attribution: (layer, feature, value)."""
    found = pl.DataFrame(
        [
            (layer, feature, order, 4, 4, 1.0, value)
            for layer, feature, value in attribution
            for order in ("ABBA", "BABA")
        ],
        schema=FEATURE_ATTRIBUTION_SCHEMA,
        orient="row",
    )
    defaults: dict[str, Any] = {
        "variants": tuple(variants),
        "prompt_roles": frozenset(),
        "with_role": {},
        "trace_edges": pl.DataFrame(),
        "trace_graph": pl.DataFrame(),
        "sae_layers": tuple(range(shape.n_layers)),
        "attribution": lambda role: found,
        "mean_effects": planted_effects(effects or {1: -2.0, 3: -1.0, 4: 5.0}),
        "settings": InterventionSettings(published_features=2, published_active_features=0),
    }
    return ExperimentContext(
        shape=shape,
        scores=pl.DataFrame(
            scores,
            schema=SCORES,
            orient="row",
        ),
        **{**defaults, **given},
    )


def ids(frame: pl.DataFrame, experiment: str) -> list[str]:
    return frame.filter(experiment=experiment)["intervention"].to_list()


# ---- registry ------------------------------------------------------------------------------------


def test_registry_by_name() -> None:
    assert set(K24) <= set(PUBLISHED)
    assert [one.name for one in published_experiments("all")] == list(PUBLISHED)
    chosen = published_experiments(["k24_splicing", "k24_noising"])
    assert [one.name for one in chosen] == ["k24_noising", "k24_splicing"]
    with pytest.raises(InterventionError, match=r"experiment 'k24_noise'.*k24_"):
        published_experiments(["k24_noise"])


def test_heads_by_role_then_by_score_with_the_reason() -> None:
    scores = [
        (2, 1, "ioi_attention_s2", 0.3),
        (1, 0, "ioi_attention_s2", 0.9),
        (1, 3, "ioi_attention_s2", 0.3),
        (0, 0, "ioi_attention_s2", 0.1),
        (0, 1, "ioi_backup_effect", -1.0),
    ]
    have = planted(scores=scores, with_role={"s_inhibition": [(3, 2), (2, 0)]}).heads(
        "s_inhibition"
    )
    assert have.by_role
    assert have.heads == ((3, 2), (2, 0))
    assert "role s_inhibition" in have.reason
    lack = planted(scores=scores).heads("s_inhibition")
    assert not lack.by_role
    assert lack.heads == ((1, 0), (1, 3), (2, 1))
    assert lack.reason == (
        "no head has the role s_inhibition: the 3 heads with the largest ioi_attention_s2"
    )
    assert planted(scores=scores).heads("s_inhibition", at_most=1).heads == ((1, 0),)
    with pytest.raises(NothingToRun, match="none has a positive ioi_backup_effect or ioi_direct"):
        planted(scores=scores).heads("backup_mover")
    with pytest.raises(InterventionError, match="unknown role 'mover'"):
        planted().heads("mover")


def test_what_cannot_run_says_why() -> None:
    notes: list[str] = []
    bare = planted(variants=["base"], sae_layers=())
    planned, listed = choose(K24, bare, notes.append)
    assert planned == ()
    assert listed["intervention"].to_list() == [None] * 4
    said = listed["chosen_by"].to_list()
    assert said[0] == "not run: no counterfactual prompts; add variants to ioi.variants"
    assert said[1:] == ["not run: no layer has an SAE"] * 3
    assert len(notes) == 4
    one_layer = planted(sae_layers=(2,))
    assert choose(["k24_cross_section"], one_layer)[1]["chosen_by"].to_list() == [
        "not run: only one layer has an SAE"
    ]


# ---- choices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SMALL, GPT2], ids=["small", "gpt2"])
def test_choices_are_valid_and_listed_once(shape: ModelShape) -> None:
    context = planted(shape, with_role={"s_inhibition": [(3, 1), (4, 0)]})
    planned, listed = choose(K24, context)
    validate(planned, shape, ROLES)
    assert set(listed["intervention"]) == {one.id for one in planned}
    keys = listed.select("experiment", "part", "intervention")
    assert keys.n_unique() == keys.height
    assert listed["chosen_by"].null_count() == 0


def test_noised_layers_without_the_role_are_those_that_zeroing_hurts() -> None:
    _, listed = choose(["k24_noising"], planted())
    own = ids(listed, "k24_noising")
    assert own[:5] == [f"zero:attn_out:L{layer}:S2" for layer in range(5)]
    for variant in ("ABC", "and_with"):
        part = listed.filter(part=f"L1+L3: {variant}")
        assert part["intervention"].to_list() == [
            f"noise:attn_out:L1:S2:{variant}:vs-zero",
            f"noise:attn_out:L3:S2:{variant}:vs-zero",
            f"set:noise:attn_out:L1+L3:S2:{variant}:vs-zero",
            f"set:noise:attn_out:L1+L3:S2:{variant}:vs-zero_all",
        ]
    assert listed.height == 5 + 2 * 4
    assert "L1 -2.000, L3 -1.000" in str(listed["chosen_by"][-1])


def test_noised_layers_with_the_role_are_those_that_its_values_read() -> None:
    context = planted(with_role={"s_inhibition": [(3, 1), (2, 0)]}, effects={0: -1.0, 2: -3.0})
    _, listed = choose(["k24_noising"], context)
    measured = [one for one in ids(listed, "k24_noising") if "path" in one]
    # Layer 3 and later are not read by any of the two, layer 2 by the later one alone.
    assert len(measured) == 3
    assert measured[2].startswith("noise:path:L2H0+L2H1+L2H2+L2H3:S2>v:L3H1:S2")
    assert "L0+L2: and_with" in set(listed["part"])
    # Heads that share values have such paths too: all of a query group read them.
    grouped = planted(replace(SMALL, n_kv_heads=2), with_role={"s_inhibition": [(3, 1)]})
    shared = choose_published(["k24_noising"], grouped)
    assert [row for row in shared.rows if row["decision"] == "changed"] == [
        {
            "task": "ioi",
            "asked_by": "interventions.published.k24_noising",
            "intervention": one,
            "decision": "changed",
            "reason": "grouped-query attention: 2 heads share each key and value, so that L3H0 see "
            "the edit too",
        }
        for one in ids(shared.experiments, "k24_noising")
        if "path" in one
    ]


def test_published_layers_serve_the_published_shape_alone() -> None:
    assert all(given["citation"] for given in published_sets().values())
    assert published_layers("k24-noised-layers", GPT2) == ((5, 6),)
    assert published_layers("k24-noised-layers", SMALL) == ()
    _, listed = choose(["k24_noising", "k24_cross_section"], planted(GPT2))
    assert {"L5+L6: and_with", "L1+L3: and_with"} <= set(listed["part"])
    groups = listed.filter(experiment="k24_cross_section")["part"].to_list()
    assert groups == ["L0+L3", "L2+L4", "L5+L6", "L7+L8", "L9+L10+L11"]
    # The same layers by data too: one experiment, with both reasons.
    both = planted(GPT2, effects={5: -1.0, 6: -2.0})
    reasons = choose(["k24_noising"], both)[1].filter(part="L5+L6: ABC")["chosen_by"]
    assert reasons.n_unique() == 1
    assert str(reasons[0]).startswith("published for a model of this shape; largest falls")


def test_groups_of_layers_to_splice() -> None:
    assert pairs_in_order([0, 1, 2, 3]) == [(0, 1), (2, 3)]
    assert pairs_in_order([0, 1, 2, 5, 6]) == [(0, 1), (2, 5, 6)]
    assert pairs_in_order([0]) == []
    _, listed = choose(K24[1:3], planted())
    assert ids(listed, "k24_splicing")[0] == "splice:sae:L0:all:vs-mean_counterfactual"
    assert ids(listed, "k24_cross_section")[1] == "set:splice:L2+L3+L4:all:vs-mean_counterfactual"
    _, without = choose(["k24_splicing"], planted(variants=["base", "swap"]))
    assert ids(without, "k24_splicing")[0] == "splice:sae:L0:all:vs-zero"


def test_features_at_s2_and_their_paths() -> None:
    context = planted(
        attribution=[(0, 7, 0.2), (0, 3, -0.9), (0, 1, 0.1), (3, 2, 0.3), (4, 5, 0.0)],
        scores=[(2, 1, "ioi_attention_s2", 0.3), (4, 0, "ioi_attention_s2", 0.2)],
    )
    _, listed = choose(["k24_features_at_s2"], context)
    assert ids(listed, "k24_features_at_s2") == [
        "splice:sae:L0:S2",
        "ablate:path:L0error:S2>v:L2H1+L4H0:S2",
        "ablate:path:L0error:S2>v:L2H1+L4H0:S2:mlp",
        "ablate:sae:L0F3:S2",
        "ablate:path:L0F3:S2>v:L2H1+L4H0:S2",
        "ablate:path:L0F3:S2>v:L2H1+L4H0:S2:mlp",
        "ablate:sae:L0F7:S2",
        "ablate:path:L0F7:S2>v:L2H1+L4H0:S2",
        "ablate:path:L0F7:S2>v:L2H1+L4H0:S2:mlp",
        "splice:sae:L3:S2",
        "ablate:path:L3error:S2>v:L4H0:S2",
        "ablate:path:L3error:S2>v:L4H0:S2:mlp",
        "ablate:sae:L3F2:S2",
        "ablate:path:L3F2:S2>v:L4H0:S2",
        "ablate:path:L3F2:S2>v:L4H0:S2:mlp",
    ]
    reasons = dict(zip(listed["intervention"], listed["chosen_by"], strict=True))
    assert reasons["ablate:sae:L0F3:S2"] == (
        "among the 2 of 3 active features of L0 with the largest attribution at S2 (-0.900 in ABBA "
        "prompts)"
    )
    path = reasons["ablate:path:L0F3:S2>v:L2H1+L4H0:S2"]
    assert path.endswith("the 2 heads with the largest ioi_attention_s2")
    grouped = replace(context, shape=replace(SMALL, n_kv_heads=1))
    assert len(choose(["k24_features_at_s2"], grouped)[0]) == 15


def _attributions(
    *rows: tuple[int, int, str, float],
) -> pl.DataFrame:
    return pl.DataFrame(
        [(layer, feature, order, 16, 9, 0.5, value) for layer, feature, order, value in rows],
        schema=FEATURE_ATTRIBUTION_SCHEMA,
        orient="row",
    )


OPPOSED = _attributions(
    # 20 prompts of one order, 12 of the other: -.001 where they are pooled.
    (1, 8, "ABBA", -0.024),
    (1, 8, "BABA", 0.042),
    *((1, feature, order, 0.01) for feature in (2, 3, 4) for order in ("ABBA", "BABA")),
    *((0, feature, "ABBA", 0.02) for feature in range(5)),
)


def test_opposite_signs_in_the_two_orders_do_not_cancel() -> None:
    """A feature that helps one order of names and harms the other is the first, not the last."""
    assert top_features(OPPOSED, 1) == {1: [8], 0: [0]}
    chosen = features_to_ablate(OPPOSED, per_layer=1, at_most=0)
    assert chosen[1].features == (8,)
    assert chosen[1].strongest[8] == ("BABA", 0.042)
    assert not chosen[1].whole


def test_all_active_features_but_where_their_number_forbids() -> None:
    everything = features_to_ablate(OPPOSED, per_layer=1, at_most=9)
    assert {layer: set(own.features) for layer, own in everything.items()} == {
        1: {8, 2, 3, 4},
        0: {0, 1, 2, 3, 4},
    }
    assert all(own.whole for own in everything.values())
    # The layer with the largest attribution comes first; the other has its largest alone.
    bounded = features_to_ablate(OPPOSED, per_layer=2, at_most=8)
    assert [bounded[1].whole, bounded[0].whole] == [True, False]
    assert bounded[0].features == (0, 1)


# ---- runs ----------------------------------------------------------------------------------------


def ask(name: str, **tables: pl.DataFrame) -> pl.DataFrame:
    """A query over tables that are given as frames without the column study."""
    with duckdb.connect() as con:
        for table, frame in tables.items():
            con.execute(plain_table(table_spec(table)))
            con.register("given", frame.with_columns(study=pl.lit("organism")).to_arrow())
            con.execute(f"INSERT INTO {table} BY NAME FROM given")
        answer: pl.DataFrame = con.sql(find_query(name).sql).pl()
    return answer


def test_query_of_noising_gives_planted_fractions() -> None:
    """Clean 4, zero at S2 0, zero everywhere -4: what is kept follows from what is patched."""
    planned, listed = choose(["k24_noising"], planted())
    patched = {"ABC": 0.0, "and_with": 3.0, None: 0.0}
    specs = spec_frame(planned, SMALL)
    rows = pl.concat(
        specs.with_columns(
            task=pl.lit("ioi"),
            prompt=pl.lit(prompt, pl.Int64),
            metric=pl.lit("logit_diff"),
            clean=pl.lit(4.0 + shift),
            corrupt=pl.lit(0.0),
            ablated=pl.when(pl.col("intervention").str.ends_with("vs-zero_all"))
            .then(-4.0 + shift)
            .otherwise(0.0 + shift),
            patched=pl.col("source_variant").replace_strict(patched, return_dtype=pl.Float64)
            + shift,
            n_slices=pl.lit(None, pl.Int32),
            cosine=pl.lit(1.0),
            norm_ratio=pl.lit(1.0),
        )
        for prompt, shift in enumerate((-1.0, 1.0))
    )
    summary = intervention_summary(rows, n_bootstrap=50)
    frame = ask(
        "45_noising_at_s2", intervention_experiments=listed, intervention_summary=summary
    ).filter(layers="L1+L3")
    kept = {row["exchanged_with"]: row for row in frame.to_dicts()}
    assert kept["ABC"]["kept"] == 0.0
    assert kept["ABC"]["kept_as_in_published_code"] == 0.5
    assert kept["and_with"]["kept"] == 0.75
    assert kept["and_with"]["kept_as_in_published_code"] == 0.875
    assert kept["and_with"]["kept_ci_low"] == kept["and_with"]["kept_ci_high"] == 0.75


def perfect_sae(model: LanguageModel) -> SparseAutoencoder:
    """z as it is: one feature for each sign of each coordinate."""
    eye = torch.eye(model.config.d_z)
    W = torch.cat([eye, -eye], dim=1)
    zeros = torch.zeros(model.config.d_z)
    return StandardSAE(W, torch.zeros(2 * model.config.d_z), W.T.contiguous(), zeros)


def test_on_a_model_identities_hold(busy: LanguageModel, organism: LanguageModel) -> None:
    """A variant that is the prompt itself keeps all, and so does an SAE without error."""
    prompts = ioi_prompts(organism.encode, 4, 0, organism.bos_token_id, ("base", "ABC", "and_with"))
    base = prompts.filter(variant="base")
    same = base.with_columns(variant=pl.lit("and_plus"), prompt=pl.col("prompt") + 100)
    prompts = pl.concat([prompts, same])
    saes = {layer: perfect_sae(busy) for layer in (0, 3, 4)}
    context = experiment_context(
        request(busy, prompts, (), limit=4, saes=saes),
        with_role={"s_inhibition": [(3, 1), (4, 2)]},
        scores=pl.DataFrame(schema=SCORES),
        trace_edges=pl.DataFrame(schema={"prompt": pl.Int64}),
        trace_graph=pl.DataFrame(),
        settings=InterventionSettings(published_features=1, published_active_features=0),
    )
    planned, listed = choose(K24, context)
    results = run(busy, prompts, planned, limit=4, saes=saes)
    summary = intervention_summary(results, n_bootstrap=20).join(listed, on="intervention")
    noised = summary.filter(
        metric="logit_diff", experiment="k24_noising", source_variant="and_plus"
    )
    moved = summary.filter(metric="logit_diff", experiment="k24_noising", source_variant="and_with")
    spliced = summary.filter(metric="logit_diff").filter(
        pl.col("experiment").is_in(["k24_splicing", "k24_cross_section"])
    )
    assert noised.height >= 3
    assert spliced.height == 4
    for kept in (*noised["recovered_from_ablated"], *spliced["recovered_from_ablated"]):
        assert kept == pytest.approx(1.0, abs=1e-3)
    assert (moved["mean_effect"].abs() > 1e-3).any()

    tables = {
        "intervention_experiments": listed,
        "intervention_summary": intervention_summary(results, n_bootstrap=20),
        "intervention_results": results,
        "ioi_prompts": prompts,
    }
    features = ask("48_features_at_s2", **tables)
    assert features["n"].sum() == 4 * listed.filter(experiment=K24[3])["part"].n_unique()
    layer0 = features.filter(pl.col("feature").str.starts_with("L0F"))
    assert layer0["path_into_values"].null_count() == 0
    assert layer0["heads"].to_list()[0] == "L3H1+L4H2"
    for name, n in (("46_splicing_each_layer", 3), ("47_splicing_groups_of_layers", 1)):
        answer = ask(name, **tables)
        assert answer.height == n
        assert answer["spliced_kl"].to_list() == pytest.approx([0.0] * n, abs=1e-3)
        assert answer["kept_by_kl"].to_list() == pytest.approx([1.0] * n, abs=1e-3)
