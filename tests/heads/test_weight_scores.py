"""Copy suppression and successor scores: planted heads, slow references, untrained models."""

from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from mechinterp_assets.corpora.words import DAYS, LETTERS, MONTHS
from mechinterp_assets.heads.datasets import ordinary_token_ids, random_tokens
from mechinterp_assets.heads.embeddings import effective_embedding
from mechinterp_assets.heads.head_scores import head_scores
from mechinterp_assets.heads.score_kinds import ScoreDatasets
from mechinterp_assets.heads.score_values import ScoreValues, score_frame
from mechinterp_assets.heads.scores.copy_suppression import (
    suppression_explained,
    suppression_ov,
    suppression_qk,
)
from mechinterp_assets.heads.scores.successor import ORDINAL_CLASSES, successor, token_classes
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.head_roles import head_roles

WORDS = ("<bos>", "<unk>", *DAYS, *MONTHS, *LETTERS)
V, CONTEXT = len(WORDS), 24
TOKEN, COPY = slice(0, V), slice(V, 2 * V)
POSITION = slice(2 * V, 2 * V + CONTEXT)
SMALL = HeadSettings(
    sequences=80, repeat_length=10, sink_length=12, batch_size=40, cspa_sequences=80, cspa_length=12
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Two layers of three heads; MLP0 writes every token once more, into COPY.

    Layer 0's heads do nothing. L1H0 attends to tokens that the stream predicts and writes minus
    the token: copy suppression. L1H1 reads COPY and writes the next day, month or letter. L1H2
    attends and writes as L1H0, but for one fixed other token each: suppresses, but not copies.
    """
    heads, d_head = 3, V + 1
    d_model = heads * d_head
    assert d_model >= POSITION.stop
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=V,
            n_positions=CONTEXT,
            n_embd=d_model,
            n_layer=2,
            n_head=heads,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    for name, parameter in model.named_parameters():
        parameter.data.fill_(float("ln_" in name and name.endswith("weight")))
    eye = torch.eye(V)
    trunk = model.transformer
    trunk.wte.weight.data[:, TOKEN] = eye
    trunk.wpe.weight.data[:, POSITION] = torch.eye(CONTEXT)
    mlp = trunk.h[0].mlp
    mlp.c_fc.weight.data[TOKEN, :V] = 10 * eye
    mlp.c_proj.weight.data[:V, COPY] = 0.01 * eye

    def matrices(head: int) -> tuple[torch.Tensor, ...]:
        attention = trunk.h[1].attn
        fused = attention.c_attn.weight.data.view(d_model, 3, heads, d_head)
        out = attention.c_proj.weight.data.view(heads, d_head, d_model)
        return fused[:, 0, head], fused[:, 1, head], fused[:, 2, head], out[head]

    for head in (0, 2):
        q, k, v, o = matrices(head)
        q[TOKEN, :V], k[TOKEN, :V], v[TOKEN, :V] = 20 * eye, eye, eye
        o[:V, TOKEN] = -eye if head == 0 else -eye.roll(1, dims=1)
    q, k, v, o = matrices(1)
    v[COPY, :V] = eye
    place = {word: number for number, word in enumerate(WORDS)}
    for one in ORDINAL_CLASSES:
        for word, following in one.pairs:
            if word in place and following in place and one.name != "abbreviations":
                o[place[word], place[following]] = 1.0
    return _saved(model, tmp_path_factory.mktemp("planted_words"))


def _untrained(folder: Path, seed: int) -> LanguageModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=V,
        n_positions=CONTEXT,
        n_embd=48,
        n_layer=3,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _saved(GPT2LMHeadModel(config).eval(), folder)


def _saved(model: GPT2LMHeadModel, folder: Path) -> LanguageModel:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", eos_token="<bos>", unk_token="<unk>"
    ).save_pretrained(folder)
    model.save_pretrained(folder)
    return LanguageModel.load(folder)


@pytest.fixture(scope="module")
def planted_scores(planted: LanguageModel) -> pl.DataFrame:
    return head_scores(planted, SMALL)


def value(frame: pl.DataFrame, layer: int, head: int, score: str) -> float:
    return float(frame.filter(layer=layer, head=head, score=score)["value"].item())


def test_planted_suppression_and_successor_heads_are_found(planted_scores: pl.DataFrame) -> None:
    assert value(planted_scores, 1, 0, "copy_suppression_ov") == 1.0
    assert value(planted_scores, 1, 0, "copy_suppression_qk") == 1.0
    assert value(planted_scores, 1, 0, "copy_suppression_explained") > 0.9
    assert value(planted_scores, 1, 1, "successor") == 1.0
    assert value(planted_scores, 1, 2, "copy_suppression_qk") == 1.0
    # Lowering another token is not copy suppression: none of it is kept by the ablation.
    assert abs(value(planted_scores, 1, 2, "copy_suppression_explained")) < 0.1
    # All tokens but the lowered one tie up to rounding: about 10 in V by chance.
    assert value(planted_scores, 1, 2, "copy_suppression_ov") < 0.4
    roles = head_roles(planted_scores).filter(
        pl.col("role").is_in(
            ["copy_suppression", "successor", "copying", "copying_effective", "induction"]
        )
    )
    found = roles.select("layer", "head", "role").rows()
    assert found == [(1, 0, "copy_suppression"), (1, 1, "successor")]


def test_heads_that_write_nothing_score_nothing(planted_scores: pl.DataFrame) -> None:
    """All effects tie at 0: a tie must not count as a hit."""
    for head in range(3):
        for score in ("copy_suppression_ov", "copy_suppression_qk", "successor"):
            assert value(planted_scores, 0, head, score) == 0.0
        assert value(planted_scores, 0, head, "copy_suppression_explained") == 0.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_untrained_models_have_no_roles(tmp_path: Path, seed: int) -> None:
    assert head_roles(head_scores(_untrained(tmp_path, seed), SMALL)).is_empty()


# ---- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["organism", "stories"])
def test_suppression_against_full_matrices(name: str, request: pytest.FixtureRequest) -> None:
    """Grouped-query and rotary models too; MLP0 and its norm by the model's own modules."""
    model: LanguageModel = request.getfixturevalue(name)
    settings = HeadSettings(suppression_tokens=40)
    text = random_tokens(model, n_sequences=1, length=8, seed=0)
    ov, qk = (
        suppression_ov(model, settings, ScoreDatasets(text, text)),
        suppression_qk(model, settings, ScoreDatasets(text, text)),
    )
    known = ordinary_token_ids(model)
    drawn = (
        torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:40].sort().values
    )
    W_E, weights = model.weights.W_E[known], model.weights
    block = model.processed.blocks[0]
    with torch.no_grad():
        W_EE = (W_E + block.mlp(block.ln2(W_E[None]))[0]).double()
    torch.testing.assert_close(effective_embedding(model, known).double(), W_EE)
    if model.config.normalization == "LN":
        W_EE = W_EE - W_EE.mean(dim=1, keepdim=True)
    keys = W_EE / (W_EE.square().mean(dim=1, keepdim=True) + model.config.eps).sqrt()
    W_U = weights.W_U[:, known].double()
    for layer, head in ((1, 0), (3, 5), (4, 7)):
        W_Q, W_K, W_V, W_O = (
            getattr(weights, part)[layer, head].double() for part in ("W_Q", "W_K", "W_V", "W_O")
        )
        full_ov = W_EE @ W_V @ W_O @ W_U
        full_qk = W_U.T @ W_Q @ (keys @ W_K).T
        among_ten = [t in full_ov[t].argsort()[:10].tolist() for t in drawn.tolist()]
        largest = [t == int(full_qk[t].argmax()) for t in drawn.tolist()]
        assert float(ov.value[layer, head]) == pytest.approx(sum(among_ten) / 40)
        assert float(qk.value[layer, head]) == pytest.approx(sum(largest) / 40)
    assert float(ov.null_mean[0, 0]) == pytest.approx(10 / len(known))
    assert float(qk.null_mean[0, 0]) == pytest.approx(1 / len(known))


def test_cspa_against_a_slow_reference(stories: LanguageModel) -> None:
    """One head, sources and destinations one by one, raw tensors of every source's output."""
    model, layer, head = stories, 3, 5
    data = random_tokens(model, n_sequences=4, length=14, seed=3)
    settings = HeadSettings(cspa_sequences=4, cspa_length=12)
    found = suppression_explained(model, settings, ScoreDatasets(data, data))
    assert found is not None
    assert found.n == 4 * 11
    ids = data.token_ids[:, :12]
    with torch.no_grad():
        logits, cache = model.processed.run_with_cache(ids)
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][:, head]
        v = cache[f"blocks.{layer}.attn.hook_v"][:, :, head // 2]
        written = torch.einsum("bds,bsk,km->bdsm", pattern, v, model.weights.W_O[layer, head])
        mean = written.mean(dim=0)
        resid = cache[f"blocks.{layer}.hook_resid_pre"]
        lens = model.processed.unembed(model.processed.ln_final(resid))
        mean_out = mean.sum(dim=1).expand(4, -1, -1)
        cspa_out = mean_out.clone()
        for b in range(4):
            for d in range(12):
                ranked = sorted(range(d + 1), key=lambda s: -float(lens[b, d, ids[b, s]]))
                for s in ranked[: -(-(d + 1) // 20)]:
                    u = model.weights.W_U[:, ids[b, s]]
                    u = u / u.norm()
                    part = (written[b, d, s] - mean[d, s]) @ u
                    cspa_out[b, d] += min(0.0, float(part)) * u

        def divergence(out: torch.Tensor) -> float:
            def hook(value: torch.Tensor, hook: object) -> torch.Tensor:
                return value - written.sum(dim=2) + out

            name = f"blocks.{layer}.hook_attn_out"
            patched = model.processed.run_with_hooks(ids, fwd_hooks=[(name, hook)])
            p, q = logits.double().log_softmax(-1), patched.double().log_softmax(-1)
            return float((p.exp() * (p - q)).sum(-1)[:, 1:].sum())

        expected = 1 - divergence(cspa_out) / divergence(mean_out)
    assert float(found.value[layer, head]) == pytest.approx(expected, abs=2e-3)


def test_successor_against_one_token_at_a_time(organism: LanguageModel) -> None:
    text = random_tokens(organism, n_sequences=1, length=8, seed=0)
    found = successor(organism, HeadSettings(), ScoreDatasets(text, text))
    assert found is not None
    classes = token_classes(organism.encode)
    model, weights = organism, organism.weights
    layer, head = 2, 3
    shares = []
    for one in classes:
        hits = []
        for source, following in zip(one.source.tolist(), one.following.tolist(), strict=True):
            x = weights.W_E[one.ids[source]]
            block = model.processed.blocks[0]
            with torch.no_grad():
                after = block.mlp(block.ln2(x[None, None]))[0, 0]
            logits = after @ weights.W_V[layer, head] @ weights.W_O[layer, head] @ weights.W_U
            hits.append(int(logits[one.ids].argmax()) == following)
        shares.append(sum(hits) / len(hits))
    assert float(found.value[layer, head]) == pytest.approx(sum(shares) / len(shares))
    assert float(found.null_mean[0, 0]) == pytest.approx(
        sum(1 / len(one.ids) for one in classes) / len(classes)
    )


def test_classes_are_single_tokens_in_order(planted: LanguageModel) -> None:
    classes = {one.name: one for one in token_classes(planted.encode, special=[0, 1])}
    # "May" and "<unk>" alone make no class of abbreviations; numbers are not in the vocabulary.
    assert set(classes) == {"days", "months", "letters"}
    days = classes["days"]
    following = dict(zip(days.source.tolist(), days.following.tolist(), strict=True))
    sunday, monday = (days.ids.tolist().index(WORDS.index(d)) for d in ("Sunday", "Monday"))
    assert following[sunday] == monday
    assert len(classes["letters"].source) == 25  # Z has no successor


def test_a_tokenizer_without_classes_gives_no_rows(stories: LanguageModel) -> None:
    settings = HeadSettings(
        sequences=2, repeat_length=8, sink_length=16, suppression_tokens=8, cspa_sequences=0
    )
    scores = set(head_scores(stories, settings)["score"])
    assert "copy_suppression_ov" in scores
    assert not scores & {"successor", "copy_suppression_explained"}


def test_too_few_sequences_for_cspa_are_refused() -> None:
    with pytest.raises(ValueError, match="need at least 3, or 0 to leave the score out"):
        HeadSettings(cspa_sequences=2)


def test_a_score_that_is_not_finite_is_no_head_without_a_row() -> None:
    """One NaN would leave heads out, as if the score were not of them."""
    value = torch.zeros(2, 3, dtype=torch.float64)
    applies = torch.ones(2, 3, dtype=torch.bool)
    applies[0, 1] = False
    value[0, 1] = torch.nan
    rows = score_frame(
        "copying", ScoreValues(value, 1, value.nan_to_num(), value.nan_to_num(), applies=applies), 0
    )
    assert rows.select("layer", "head").rows() == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    value[1, 2] = torch.inf
    with pytest.raises(ValueError, match=r"copying is not finite for 1 of 5 heads \(L1H2\)"):
        score_frame("copying", ScoreValues(value, 1, value, value, applies=applies), 0)
