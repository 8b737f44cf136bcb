"""Co-activation of two layers against dense float64 correlations."""

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from mechinterp_assets.attribution.coactivation import COACTIVATION_SCHEMA, feature_coactivation
from mechinterp_assets.storage.declarations import polars_schema, table_spec

LENGTH, N_TOKENS = 9, 180
D_SAE = {0: 12, 2: 30, 3: 7}
DEAD, ALWAYS = 4, 5


def layers(seed: int) -> dict[int, NDArray[np.bool_]]:
    """[feature, token] of every layer: topics shared between layers, a dead feature, a constant."""
    rng = np.random.default_rng(seed)
    topics = rng.random((3, N_TOKENS)) < 0.3
    found = {}
    for layer, d_sae in D_SAE.items():
        noise = rng.random((d_sae, N_TOKENS)) < np.linspace(0, 0.4, d_sae)[:, None]
        on = topics[np.arange(d_sae) % 3] ^ noise
        on[DEAD], on[ALWAYS] = False, True
        found[layer] = on
    return found


def frame(on: NDArray[np.bool_]) -> pl.DataFrame:
    """Rows of feature_activations; position 0 of each sequence is never read."""
    feature, token = on.nonzero()
    return pl.DataFrame(
        {
            "feature": feature.astype(np.int32),
            "sequence": token // (LENGTH - 1) + 50,
            "position": (token % (LENGTH - 1) + 1).astype(np.int32),
        }
    )


@pytest.mark.parametrize("workspace", [1, 700, 2**20])
@pytest.mark.parametrize("top", [1, 3, 100])
def test_coactivation_equals_the_dense_reference(top: int, workspace: int) -> None:
    on = layers(top)
    found = feature_coactivation(
        list(on),
        lambda layer: frame(on[layer]).iter_slices(37),
        D_SAE,
        N_TOKENS,
        LENGTH,
        top=top,
        workspace_bytes=workspace,
        held_bytes=workspace,
    )
    assert dict(found.schema) == dict(polars_schema(table_spec("feature_coactivation")))
    assert found.equals(found.sort("layer", "feature", "other_layer", "rank"))
    n_rows = 0
    for layer, own in on.items():
        for other, theirs in on.items():
            if layer == other:
                continue
            with np.errstate(invalid="ignore", divide="ignore"):
                both = np.corrcoef(own.astype(np.float64), theirs.astype(np.float64))
            phi = both[: len(own), len(own) :]
            for feature in range(len(own)):
                expected = sorted(
                    (-round(value, 12), j) for j, value in enumerate(phi[feature]) if value > 1e-12
                )[:top]
                here = found.filter(layer=layer, feature=feature, other_layer=other)
                assert here["rank"].to_list() == list(range(len(expected)))
                assert here["other_feature"].to_list() == [j for _, j in expected]
                assert here["phi"].to_list() == pytest.approx([-v for v, _ in expected], abs=1e-11)
                assert here["n_coactive"].to_list() == [
                    int((own[feature] & theirs[j]).sum()) for _, j in expected
                ]
                n_rows += len(here)
    assert n_rows == len(found) > 0


def test_layers_out_of_reach_are_left_out_and_the_others_are_the_same() -> None:
    on = layers(1)

    def found(reach: int | None) -> pl.DataFrame:
        return feature_coactivation(
            list(on), lambda layer: [frame(on[layer])], D_SAE, N_TOKENS, LENGTH, reach=reach
        )

    near = found(1)
    pairs = set(near.select("layer", "other_layer").unique().iter_rows())
    assert pairs == {(0, 2), (2, 0), (2, 3), (3, 2)}  # neighbours among layers with an SAE
    apart = pl.col("layer").is_in([0, 3]) & pl.col("other_layer").is_in([0, 3])
    assert near.equals(found(None).filter(~apart))
    assert found(2).equals(found(None))


def test_nothing_to_find_gives_an_empty_frame_and_bad_input_an_error() -> None:
    on = layers(0)
    alone = feature_coactivation([2], lambda _: [frame(on[2])], D_SAE, N_TOKENS, LENGTH)
    assert alone.is_empty()
    assert alone.schema == COACTIVATION_SCHEMA
    silent = feature_coactivation([0, 2], lambda _: [], D_SAE, N_TOKENS, LENGTH)
    assert silent.is_empty()
    with pytest.raises(ValueError, match="top is 0"):
        feature_coactivation([0, 2], lambda _: [], D_SAE, N_TOKENS, LENGTH, top=0)
