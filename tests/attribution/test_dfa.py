"""Direct feature attribution: identities on real models (GPT-2 shape; RoPE with grouped queries),
planted heads and sources, a loop reference."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.dfa import (
    DfaRequest,
    LayerAttention,
    direct_feature_attribution,
    feature_dfa,
    layer_attention,
    stream_feature_dfa,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.storage.declarations import polars_schema, table_spec

SEQUENCES = np.array([4, 9, 12, 30, 31])
LENGTH = 24


@pytest.fixture(params=["organism", "stories260K"])
def model(request: pytest.FixtureRequest, organism: LanguageModel) -> LanguageModel:
    if request.param == "organism":
        return organism
    stories: LanguageModel = request.getfixturevalue("stories")
    return stories


def corpus(model: LanguageModel) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.d_vocab, (len(SEQUENCES), LENGTH), generator=generator)
    ids[:, 0] = model.bos_token_id
    return dict(zip(SEQUENCES.tolist(), ids, strict=True))


def lookup(ids: dict[int, Tensor]) -> Callable[[NDArray[np.int64]], Tensor]:
    return lambda sequences: torch.stack([ids[s] for s in sequences.tolist()])


def random_sae(model: LanguageModel, d_sae: int = 20) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(1)
    d = model.config.d_z
    return StandardSAE(
        torch.randn(d, d_sae, generator=generator),
        torch.randn(d_sae, generator=generator),
        torch.randn(d_sae, d, generator=generator),
        torch.randn(d, generator=generator),
    )


def some_examples(n: int = 40, d_sae: int = 20) -> pl.DataFrame:
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "feature": np.arange(n, dtype=np.int32) % d_sae,
            "rank": np.arange(n, dtype=np.int32) // d_sae,
            "sequence": random.choice(SEQUENCES, n),
            "position": random.integers(1, LENGTH, n).astype(np.int32),
        }
    )


def test_heads_and_sources_sum_to_the_pre_activation(model: LanguageModel) -> None:
    """z of the Hugging Face forward pass (another implementation of attention) gives f_pre."""
    layer = model.config.n_layers - 1
    ids, sae, examples = corpus(model), random_sae(model), some_examples()
    frame = feature_dfa(model, sae, layer, examples, lookup(ids), batch_size=2)
    seen: list[Tensor] = []
    hook = model.output_projection(layer).register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    with torch.no_grad():
        model.hf(torch.stack(list(ids.values())))
    hook.remove()
    z = dict(zip(SEQUENCES.tolist(), seen[0], strict=True))
    assert len(frame) == len(examples)
    assert frame.select("feature", "rank").rows() == sorted(
        examples.select("feature", "rank").rows()
    )
    for row in frame.iter_rows(named=True):
        x = z[row["sequence"]][row["position"]][None]
        f_pre = float(sae.pre_activations(x)[0, row["feature"]])
        scale = 1 + abs(f_pre)
        assert row["pre_activation"] == pytest.approx(f_pre, abs=2e-4 * scale)
        assert sum(row["dfa_by_head"]) + row["constant"] == pytest.approx(f_pre, abs=2e-4 * scale)
        assert sum(row["dfa_by_source"]) + row["constant"] == pytest.approx(f_pre, abs=2e-4 * scale)
        assert row["identity_error"] < 1e-4 * scale
        assert len(row["dfa_by_head"]) == model.config.n_heads
        assert len(row["dfa_by_source"]) == row["position"] + 1
        w = sae.W_enc[:, row["feature"]].double()
        constant = float(sae.b_enc[row["feature"]].double() - w @ sae.b_dec.double())
        assert row["constant"] == pytest.approx(constant, abs=1e-4)
        by_head = w.view(model.config.n_heads, -1) * x.double().view(model.config.n_heads, -1)
        assert row["dfa_by_head"] == pytest.approx(by_head.sum(1).tolist(), abs=2e-4)


def matrices_of(
    model: LanguageModel, sae: SparseAutoencoder, layer: int, ids: dict[int, Tensor], ranks: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    kept: list[pl.DataFrame] = []
    frame = feature_dfa(
        model,
        sae,
        layer,
        some_examples(),
        lookup(ids),
        batch_size=2,
        matrix_ranks=ranks,
        on_matrix=kept.append,
    )
    return frame, pl.concat(kept).sort("feature", "rank", "head")


def test_the_matrix_sums_to_heads_sources_and_the_pre_activation(model: LanguageModel) -> None:
    layer = model.config.n_layers - 1
    frame, rows = matrices_of(model, random_sae(model), layer, corpus(model), ranks=1)
    wanted = frame.filter(pl.col("rank") == 0)
    assert len(rows) == len(wanted) * model.config.n_heads
    assert set(rows["rank"]) == {0}
    for example in wanted.iter_rows(named=True):
        found = rows.filter(pl.col("feature") == example["feature"])
        assert found["head"].to_list() == list(range(model.config.n_heads))
        assert set(found["sequence"]) == {example["sequence"]}
        assert set(found["position"]) == {example["position"]}
        matrix = np.array(found["dfa_by_source"].to_list(), dtype=np.float64)
        assert matrix.shape == (model.config.n_heads, example["position"] + 1)
        scale = 1 + np.abs(matrix).sum()
        np.testing.assert_allclose(matrix.sum(axis=1), example["dfa_by_head"], atol=1e-6 * scale)
        np.testing.assert_allclose(matrix.sum(axis=0), example["dfa_by_source"], atol=1e-6 * scale)
        total = matrix.sum() + example["constant"]
        assert total == pytest.approx(example["pre_activation"], abs=1e-5 * scale)


def test_the_matrix_equals_pattern_times_value(organism: LanguageModel) -> None:
    """Each entry from the bridge's pattern and values by hand, float64."""
    layer, ids, sae = 1, corpus(organism), random_sae(organism)
    _, rows = matrices_of(organism, sae, layer, ids, ranks=2)
    attention = layer_attention(organism, ids[12][None], layer)
    pattern, v = attention.pattern[0].double(), attention.v[0].double()
    checked = rows.filter(pl.col("sequence") == 12)
    assert len(checked) > 0
    for row in checked.iter_rows(named=True):
        w = sae.W_enc[:, row["feature"]].double().view(organism.config.n_heads, -1)[row["head"]]
        for source, value in enumerate(row["dfa_by_source"]):
            expected = pattern[row["head"], row["position"], source] * (v[source, row["head"]] @ w)
            assert value == pytest.approx(float(expected), abs=2e-5)


def test_no_ranks_give_no_matrix(organism: LanguageModel) -> None:
    kept: list[pl.DataFrame] = []
    feature_dfa(
        organism,
        random_sae(organism),
        0,
        some_examples(),
        lookup(corpus(organism)),
        on_matrix=kept.append,
    )
    assert kept == []


def test_the_matrix_has_the_declared_columns(organism: LanguageModel) -> None:
    _, rows = matrices_of(organism, random_sae(organism), 0, corpus(organism), ranks=1)
    declared = dict(polars_schema(table_spec("feature_dfa_matrix")))
    del declared["layer"]
    assert dict(rows.schema) == declared


def test_each_source_has_what_vanishes_with_its_value(model: LanguageModel) -> None:
    """Setting the value of one source to zero, patterns kept, lowers f_pre by its DFA."""
    layer = 1
    ids, sae = corpus(model), random_sae(model)
    examples = some_examples(6)
    frame = feature_dfa(model, sae, layer, examples, lookup(ids))
    for row in frame.iter_rows(named=True):
        source = row["position"] // 2
        z: list[Tensor] = []

        def silence(v: Tensor, hook: object, source: int = source) -> Tensor:
            v = v.clone()
            v[:, source] = 0
            return v

        def keep(value: Tensor, hook: object, z: list[Tensor] = z) -> None:
            z.append(value)

        with torch.no_grad():
            model.raw.run_with_hooks(
                ids[row["sequence"]][None],
                fwd_hooks=[
                    (f"blocks.{layer}.attn.hook_v", silence),
                    (f"blocks.{layer}.attn.hook_z", keep),
                ],
                stop_at_layer=layer + 1,
            )
        x = z[0][0, row["position"]].reshape(1, -1)
        without = float(sae.pre_activations(x)[0, row["feature"]])
        lost = row["pre_activation"] - without
        assert lost == pytest.approx(row["dfa_by_source"][source], abs=1e-3)


def test_the_formula_equals_loops() -> None:
    generator = torch.Generator().manual_seed(3)
    B, H, T, dh = 2, 3, 5, 4
    scores = torch.randn(B, H, T, T, generator=generator)
    scores.masked_fill_(~torch.ones(T, T).tril().bool(), -torch.inf)
    v = torch.randn(B, T, H, dh, generator=generator)
    attention = LayerAttention(scores.softmax(-1), v, torch.zeros(B, T, H, dh))
    batch, destination = torch.tensor([0, 1, 1]), torch.tensor([4, 2, 0])
    w = torch.randn(3, H, dh, generator=generator)
    found = direct_feature_attribution(attention, batch, destination, w)
    for e in range(3):
        b, D = int(batch[e]), int(destination[e])
        for h in range(H):
            for s in range(T):
                expected = attention.pattern[b, h, D, s] * sum(
                    v[b, s, h, i] * w[e, h, i] for i in range(dh)
                )
                assert float(found[e, h, s]) == pytest.approx(float(expected), abs=1e-5)


def test_an_encoder_that_reads_one_head_gives_everything_to_it(organism: LanguageModel) -> None:
    """Planted: w is the value that head 1 finds at one source; negative when the sign is turned."""
    layer, head = 1, organism.config.n_heads - 1
    ids = corpus(organism)
    attention = layer_attention(organism, ids[9][None], layer)
    destination = 17
    source = int(attention.pattern[0, head, destination].argmax())
    w = torch.zeros(organism.config.n_heads, organism.config.d_head)
    w[head] = attention.v[0, source, head]
    sae = StandardSAE(
        torch.stack([w.flatten(), -w.flatten()], dim=1),
        torch.zeros(2),
        torch.zeros(2, organism.config.d_z),
        torch.zeros(organism.config.d_z),
    )
    examples = pl.DataFrame(
        {"feature": [0, 1], "rank": [0, 0], "sequence": [9, 9], "position": [destination] * 2}
    )
    positive, negative = feature_dfa(organism, sae, layer, examples, lookup(ids)).iter_rows(
        named=True
    )
    by_head = np.array(positive["dfa_by_head"])
    assert by_head[head] > 0
    assert np.abs(np.delete(by_head, head)).max() == 0
    expected = float(attention.pattern[0, head, destination, source] * w[head].norm() ** 2)
    assert positive["dfa_by_source"][source] == pytest.approx(expected, rel=1e-4)
    assert negative["dfa_by_source"] == [-x for x in positive["dfa_by_source"]]
    assert positive["constant"] == 0


def test_each_sequence_runs_once_and_blocks_change_nothing(organism: LanguageModel) -> None:
    ids, sae, examples = corpus(organism), random_sae(organism), some_examples()
    asked: list[int] = []

    def counted(sequences: NDArray[np.int64]) -> Tensor:
        asked.extend(sequences.tolist())
        return lookup(ids)(sequences)

    steps: list[tuple[int, int]] = []
    frames = list(
        stream_feature_dfa(
            organism,
            [DfaRequest(0, sae, examples)],
            counted,
            batch_size=2,
            workspace_bytes=2**17,
            progress=lambda done, total: steps.append((done, total)),
        )
    )
    n = examples["sequence"].n_unique()
    first = min(asked)
    asked.remove(first)  # its length decides how many sequences fit a batch
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == n
    assert steps[-1] == (n, n)
    whole = feature_dfa(organism, sae, 0, examples, lookup(ids), batch_size=32)
    assert {layer for layer, _ in frames} == {0}
    cut = pl.concat([frame for _, frame in frames]).sort("feature", "rank")
    keys = ["feature", "rank", "sequence", "position"]
    assert cut.select(keys).equals(whole.select(keys))
    for column in ("dfa_by_head", "dfa_by_source"):
        np.testing.assert_allclose(cut[column].explode(), whole[column].explode(), atol=1e-5)


def test_layers_share_a_forward_pass_and_get_what_each_gets_alone(organism: LanguageModel) -> None:
    ids, sae = corpus(organism), random_sae(organism)
    examples = {0: some_examples(9), 2: some_examples().filter(pl.col("sequence") != 12)}
    frames: dict[int, list[pl.DataFrame]] = {0: [], 2: []}
    matrices: dict[int, list[pl.DataFrame]] = {0: [], 2: []}
    requests = [DfaRequest(layer, sae, frame) for layer, frame in examples.items()]
    for layer, frame in stream_feature_dfa(
        organism,
        requests,
        lookup(ids),
        batch_size=2,
        matrix_ranks=1,
        on_matrix=lambda layer, frame: matrices[layer].append(frame),
    ):
        frames[layer].append(frame)
    for layer, expected in examples.items():
        kept: list[pl.DataFrame] = []
        alone = feature_dfa(
            organism, sae, layer, expected, lookup(ids), matrix_ranks=1, on_matrix=kept.append
        )
        for shared, single, keys in (
            (frames[layer], alone, ["feature", "rank"]),
            (matrices[layer], pl.concat(kept), ["feature", "rank", "head"]),
        ):
            together, apart = pl.concat(shared).sort(keys), single.sort(keys)
            assert together.select(keys).equals(apart.select(keys))
            np.testing.assert_allclose(
                together["dfa_by_source"].explode(), apart["dfa_by_source"].explode(), atol=1e-5
            )


def test_no_examples_give_an_empty_frame(organism: LanguageModel) -> None:
    empty = some_examples().clear()
    frame = feature_dfa(organism, random_sae(organism), 0, empty, lookup(corpus(organism)))
    assert len(frame) == 0
    declared = dict(polars_schema(table_spec("feature_dfa")))
    del declared["layer"]
    assert dict(frame.schema) == declared


# ---- refusals ------------------------------------------------------------------------------------


def test_an_sae_of_another_width_is_refused(organism: LanguageModel) -> None:
    d = organism.config.d_z + 1
    sae = StandardSAE(torch.ones(d, 2), torch.zeros(2), torch.ones(2, d), torch.zeros(d))
    with pytest.raises(ValueError, match="use an SAE trained on attention outputs"):
        feature_dfa(organism, sae, 0, some_examples(), lookup(corpus(organism)))


def test_a_position_outside_its_sequence_is_refused(organism: LanguageModel) -> None:
    examples = some_examples().with_columns(position=pl.lit(LENGTH, pl.Int32))
    with pytest.raises(ValueError, match="lies outside its sequence of 24 tokens"):
        feature_dfa(organism, random_sae(organism), 0, examples, lookup(corpus(organism)))


def test_an_sae_without_an_affine_pre_activation_is_refused(organism: LanguageModel) -> None:
    class Squared(StandardSAE):
        def pre_activations(self, x: Tensor) -> Tensor:
            return super().pre_activations(x) ** 2

    sae = Squared(*random_sae(organism).tensors().values())
    with pytest.raises(ValueError, match="needs an affine pre-activation"):
        feature_dfa(organism, sae, 0, some_examples(), lookup(corpus(organism)))
