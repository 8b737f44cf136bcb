"""Attention sinks and massive activations against loops and against a planted uniform head."""

from pathlib import Path

import pytest
import torch

from mechinterp_assets.heads.datasets import TokenDataset, random_tokens
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.heads.sinks import sink_datasets, sinks
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from tests.attribution.random_models import random_neox


def test_frames_are_those_of_the_tables(organism: LanguageModel) -> None:
    text = random_tokens(organism, n_sequences=2, length=16, seed=5).token_ids
    settings = HeadSettings(sequences=2, repeat_length=8, sink_length=16)
    found = sinks(organism, sink_datasets(organism, settings, text, "text"), batch_size=1)
    for table in ("attention_sinks", "massive_activations"):
        frame = getattr(found, table)
        schema = polars_schema(table_spec(table))
        assert dict(frame.schema) == {k: v for k, v in schema.items() if k != "study"}
        assert not frame.drop_nulls().is_empty()
        assert set(frame["tokens"]) == {"natural", "random", "repeated"}
    heads = organism.config.n_layers * organism.config.n_heads
    assert found.attention_sinks.height == heads * 3 * 2 * 4
    assert found.massive_activations.height == organism.config.n_layers * 3 * 2 * 3


def test_a_uniform_head_is_at_the_floor(planted: LanguageModel) -> None:
    """L1H1 of the planted model attends uniformly."""
    data = {"random": random_tokens(planted, n_sequences=3, length=12, seed=0)}
    rows = sinks(planted, data).attention_sinks.filter(layer=1, head=1)
    assert rows.height == 8
    assert rows["mean_attention"].to_list() == pytest.approx(rows["uniform_attention"].to_list())
    first = rows.filter(with_bos=True, position=0).row(0, named=True)
    assert first["uniform_attention"] == pytest.approx(sum(1 / t for t in range(1, 13)) / 12)


@pytest.mark.parametrize("name", ["organism", "stories"])
@pytest.mark.parametrize("with_bos", [True, False])
def test_against_loops(name: str, with_bos: bool, request: pytest.FixtureRequest) -> None:
    """Also with grouped queries and rotary positions (keys as they are after rotation)."""
    model: LanguageModel = request.getfixturevalue(name)
    data = random_tokens(model, n_sequences=3, length=10, seed=2)
    found = sinks(model, {"random": data}, batch_size=2)
    ids = data.token_ids if with_bos else data.token_ids[:, 1:]
    with torch.no_grad():
        _, cache = model.raw.run_with_cache(ids)
    layer, head, k = 2, 5, 1
    prefix = f"blocks.{layer}.attn.hook_"
    rotary = model.config.positional == "rotary"
    group = model.config.n_heads // model.config.n_kv_heads
    q = cache[prefix + ("rot_q" if rotary else "q")][:, :, head].double()
    key = cache[prefix + ("rot_k" if rotary else "k")][:, k, head // group].double()
    v = cache[prefix + "v"][:, k, head // group]
    pattern = cache[prefix + "pattern"][:, head].double()
    # The keys are those that attention uses: scores follow from them.
    scores = torch.einsum("bte,be->bt", q, key) / model.config.d_head**0.5
    torch.testing.assert_close(
        scores[:, k:], cache[prefix + "attn_scores"][:, head, k:, k].double(), rtol=1e-4, atol=1e-4
    )
    length = ids.shape[1]
    attention, cosine, output = [], [], []
    for b in range(3):
        written = float((v[b] @ model.raw_weights.W_O[layer, head]).norm())
        for t in range(k, length):
            attention.append(float(pattern[b, t, k]))
            cosine.append(float(torch.cosine_similarity(q[b, t], key[b], dim=0)))
            output.append(attention[-1] * written)
    row = found.attention_sinks.filter(layer=layer, head=head, position=k, with_bos=with_bos)
    expected = {
        "mean_attention": sum(attention) / len(attention),
        "query_key_cosine": sum(cosine) / len(cosine),
        "output_norm": sum(output) / len(output),
        "key_norm": float(key.norm(dim=1).mean()),
        "value_norm": float(v.double().norm(dim=1).mean()),
    }
    for column, value in expected.items():
        assert row[column].item() == pytest.approx(value, rel=1e-5), column
    assert row["n_positions"].item() == length

    resid = cache[f"blocks.{layer}.hook_resid_post"].abs()
    massive = found.massive_activations.filter(layer=layer, with_bos=with_bos).sort("rank")
    largest = torch.stack([x.flatten().sort(descending=True).values[:3] for x in resid]).mean(dim=0)
    assert massive["magnitude"].to_list() == pytest.approx(largest.tolist(), rel=1e-5)
    median = sum(float(x.flatten().median()) for x in resid) / 3
    assert massive["magnitude_ratio"].to_list() == pytest.approx(
        (largest / median).tolist(), rel=1e-5
    )


def test_the_place_of_a_massive_activation(planted: LanguageModel) -> None:
    """The same sequence three times: every rank is always at the same place."""
    ids = random_tokens(planted, n_sequences=1, length=10, seed=0).token_ids.repeat(3, 1)
    found = sinks(planted, {"random": TokenDataset("same", ids)}).massive_activations
    assert found["place_share"].to_list() == [1.0] * found.height
    with torch.no_grad():
        _, cache = planted.raw.run_with_cache(ids[:1])
    top = cache["blocks.1.hook_resid_post"][0].abs()
    row = found.filter(layer=1, with_bos=True, rank=0).row(0, named=True)
    assert float(top[row["position"], row["dimension"]]) == float(top.max())


def test_rotated_keys_of_attention_that_has_no_hook_for_them(tmp_path: Path) -> None:
    """GPT-NeoX turns a quarter of each head: the cosine is that of what its scores are made of."""
    model = random_neox(tmp_path)
    ids = torch.randint(1, 40, (2, 9), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 0
    found = sinks(model, {"random": TokenDataset("some", ids)}).attention_sinks
    with torch.no_grad():
        _, cache = model.raw.run_with_cache(ids)
    scores = cache["blocks.1.attn.hook_attn_scores"].double() * model.config.d_head**0.5
    q, key = (cache[f"blocks.1.attn.hook_{name}"].double() for name in "qk")
    size = q.norm(dim=-1)[:, :, None] * key.norm(dim=-1)[:, None]  # rotation keeps norms
    for head in range(model.config.n_heads):
        for position in range(4):
            cosine = scores[:, head, position:, position] / size[:, position:, position, head]
            row = found.filter(layer=1, head=head, position=position, with_bos=True)
            assert row["query_key_cosine"].item() == pytest.approx(float(cosine.mean()), abs=1e-5)
