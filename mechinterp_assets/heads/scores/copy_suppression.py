"""Copy suppression: heads that attend to a token that is predicted and lower it.

Belongs here: the OV and the QK half of the mechanism in the weights, and the ablation that leaves
only it (CSPA). Does not belong here: what such heads do on IOI prompts (name_copy.py,
ioi_direct_effect.py).

Source: McDougall et al. 2023, "Copy Suppression: Comprehensively Understanding an Attention Head"
(arXiv 2310.04625), sections 3.1, 3.2 and 3.3. Processed weights throughout.

V x V matrices are made in blocks of rows and never kept. Rows are a seeded sample of the vocabulary
where that is large (`suppression_tokens`); columns are always all ordinary tokens.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechinterp_assets.heads.datasets import ordinary_token_ids
from mechinterp_assets.heads.embeddings import effective_embedding, normalised
from mechinterp_assets.heads.score_kinds import ModelScore, ScoreDatasets
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.kept_run import run_and_keep
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import all_logits_from
from mechinterp_assets.model.precision import float64

MOST_NEGATIVE = 10
SOURCE_SHARE = 0.05
_BLOCK_ELEMENTS = 16_000_000


def suppression_ov(
    model: LanguageModel, settings: HeadSettings, datasets: ScoreDatasets
) -> ScoreValues:
    """Share of tokens that the head, attending to them, lowers among the 10 most.

    Row of W_EE W_V W_O W_U for a source token: the effect on every output token; counted is
    whether the token itself is among the 10 most negative (ties count against it). The paper calls
    this "of its column", having its matrices transposed.
    Null: another token of the vocabulary in the place of the token; exact, 10 / V.
    """
    tokens = _Vocabulary.of(model, settings)
    weights = model.weights
    read = normalised(model, effective_embedding(model, tokens.sample))
    W_U = weights.W_U[:, tokens.ids.to(model.device)]
    hits = torch.zeros(*weights.W_V.shape[:2], dtype=torch.float64)
    for layer, head in _heads(model):
        values = read @ weights.W_V[layer, head]
        write = weights.W_O[layer, head] @ W_U
        for rows in tokens.blocks():
            effect = values[rows] @ write
            own = effect.gather(1, tokens.column[rows, None].to(effect.device))
            hits[layer, head] += ((effect <= own).sum(dim=1) <= MOST_NEGATIVE).sum().item()
    return tokens.share(hits, MOST_NEGATIVE)


def suppression_qk(
    model: LanguageModel, settings: HeadSettings, datasets: ScoreDatasets
) -> ScoreValues:
    """Share of tokens whose prediction attends to the token itself more than to any other.

    Row of W_U^T W_Q W_K^T W_EE^T for a predicted token: the query is its unembedding, keys are all
    tokens' normalised effective embeddings; counted is whether the largest is the token's own.
    Without positions and biases; rotary models: offset 0.
    Null: another token of the vocabulary in the place of the token; exact, 1 / V.
    """
    tokens = _Vocabulary.of(model, settings)
    weights = model.weights
    keys_read = normalised(model, effective_embedding(model, tokens.ids))
    asked = weights.W_U[:, tokens.sample.to(model.device)].T
    hits = torch.zeros(*weights.W_Q.shape[:2], dtype=torch.float64)
    for layer, head in _heads(model):
        queries = asked @ weights.W_Q[layer, head]
        keys = (keys_read @ weights.W_K[layer, head]).T
        for rows in tokens.blocks():
            scores = queries[rows] @ keys
            own = scores.gather(1, tokens.column[rows, None].to(scores.device))
            hits[layer, head] += ((scores >= own).sum(dim=1) == 1).sum().item()
    return tokens.share(hits, 1)


@torch.no_grad()
def suppression_explained(
    model: LanguageModel, settings: HeadSettings, datasets: ScoreDatasets
) -> ScoreValues | None:
    """Share of a head's mean-ablation effect that copy suppression accounts for (CSPA).

    Mean ablation is mode mean_batch of ablation/modes.py.

    For destination d and source s, r = A[d, s] v_s W_O and mu its mean over sequences at the same
    (d, s). The ablation keeps, for the ceil(.05 (d + 1)) sources whose tokens the logit lens of d
    (residual before the layer) ranks highest, r' = mu + min(0, (r - mu) . u) u with u the unit
    unembedding of the source's token; for all others mu. Value: 1 - sum KL(clean || CSPA) / sum
    KL(clean || mean ablation) over all destinations but BOS; later layers are recomputed. 0 for a
    head whose mean ablation changes nothing. n: destinations.
    Null: u of tokens drawn from the vocabulary in the place of the sources' own; the same
    destinations. Its sd: jackknife over sequences.
    None where no sequences are asked for.
    """
    if settings.cspa_sequences < 1:
        return None
    if settings.cspa_sequences < 3:
        raise ValueError(
            f"cspa_sequences is {settings.cspa_sequences}: means over sequences and their "
            "jackknife need at least 3, or 0 to leave the score out"
        )
    text = datasets.plain
    length = min(settings.cspa_length, text.length)
    ids = text.token_ids[: settings.cspa_sequences, :length].to(model.device)
    ablation = _Cspa.of(model, ids, settings.seed)
    value, null_mean, null_sd = (
        torch.zeros(model.config.n_layers, model.config.n_heads, dtype=torch.float64)
        for _ in range(3)
    )
    for layer in range(model.config.n_layers):
        chosen = ablation.predicted_sources(layer)
        for head in range(model.config.n_heads):
            mean, own, other = ablation.divergences(layer, head, chosen)
            value[layer, head] = _explained(own.sum(), mean.sum())
            null_mean[layer, head] = _explained(other.sum(), mean.sum())
            left_out = _explained(other.sum() - other, mean.sum() - mean)
            n = len(other)
            spread = (left_out - left_out.mean()).square().sum()
            null_sd[layer, head] = ((n - 1) / n * spread).sqrt()
    name = f"{text.name}: {ids.shape[0]} sequences of {length} tokens"
    return ScoreValues(value, ids.shape[0] * (length - 1), null_mean, null_sd, name, "mean_batch")


SOURCE = "McDougall et al. 2023, arXiv 2310.04625"
TOKENS = "tokens of the vocabulary (a seeded sample where it is large, see dataset)"
SCORES = (
    ModelScore(
        needs=("token_weights",),
        name="copy_suppression_ov",
        definition="Share of tokens that are among the 10 output tokens most lowered by attending "
        "to the token itself: row of W_EE W_V W_O W_U, processed weights",
        value_range="0 to 1",
        terms=TOKENS,
        null_distribution="Another token of the vocabulary in place of the token, 10 / V; exact",
        source=f"{SOURCE}, section 3.1",
        threshold=0.8,
        compute=suppression_ov,
    ),
    ModelScore(
        needs=("token_weights",),
        name="copy_suppression_qk",
        definition="Share of tokens whose unembedding, as a query, attends to the token itself "
        "more than to any other token: row of W_U^T W_Q W_K^T W_EE^T with normalised keys, no "
        "positions and no biases (rotary models: offset 0), processed weights",
        value_range="0 to 1",
        terms=TOKENS,
        null_distribution="Another token of the vocabulary in place of the token, 1 / V; exact",
        source=f"{SOURCE}, section 3.2; the threshold is this project's",
        threshold=0.5,
        compute=suppression_qk,
    ),
    ModelScore(
        needs=("token_weights",),
        name="copy_suppression_explained",
        definition="1 - KL(CSPA) / KL(mean ablation): how much of the effect of mean-ablating the "
        "head is left unchanged by an ablation that keeps only copy suppression (later layers "
        "recomputed). Per destination, the ceil(5%) of sources that the logit lens predicts most "
        "keep the part of A v W_O that lowers their own token, the rest is at its mean over "
        "sequences",
        value_range="at most 1; negative where keeping only copy suppression is worse than mean "
        "ablation",
        terms="(sequence, destination) pairs",
        null_distribution="The unembeddings of tokens drawn from the vocabulary in place of the "
        "sources' own; sd: jackknife over sequences",
        source=f"{SOURCE}, section 3.3",
        compute=suppression_explained,
    ),
)


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Vocabulary:
    """Ordinary tokens `ids` [V], a sample of them [n] and where it stands in `ids` [n]."""

    ids: Tensor
    column: Tensor
    seed: int

    @classmethod
    def of(cls, model: LanguageModel, settings: HeadSettings) -> "_Vocabulary":
        ids = ordinary_token_ids(model)
        column = torch.arange(len(ids))
        if len(ids) > settings.suppression_tokens:
            generator = torch.Generator().manual_seed(settings.seed)
            drawn = torch.randperm(len(ids), generator=generator)[: settings.suppression_tokens]
            column = drawn.sort().values
        return cls(ids, column, settings.seed)

    @property
    def sample(self) -> Tensor:
        return self.ids[self.column]

    def blocks(self) -> Iterator[slice]:
        size = max(1, _BLOCK_ELEMENTS // len(self.ids))
        for start in range(0, len(self.column), size):
            yield slice(start, min(start + size, len(self.column)))

    def share(self, hits: Tensor, chances: int) -> ScoreValues:
        n, V = len(self.column), len(self.ids)
        chance = torch.full_like(hits, min(1.0, chances / V))
        return ScoreValues(
            value=hits / n,
            n=n,
            null_mean=chance,
            null_sd=(chance * (1 - chance) / n).sqrt(),
            dataset=f"processed weights ({n} of {V} tokens, seed {self.seed})",
        )


def _heads(model: LanguageModel) -> Iterator[tuple[int, int]]:
    for layer in range(model.config.n_layers):
        for head in range(model.config.n_heads):
            yield layer, head


def _explained(kept: Tensor, whole: Tensor) -> Tensor:
    """1 - kept / whole; 0 where ablation changes nothing beyond rounding."""
    matters = whole > 1e-9
    return torch.where(matters, 1 - kept / whole.where(matters, torch.ones_like(whole)), 0.0)


@dataclass(frozen=True)
class _Cspa:
    """Clean activations of one batch of sequences, and the ablated runs."""

    model: LanguageModel
    ids: Tensor  # [sequence, position]
    cache: dict[str, Tensor]
    clean: Tensor  # log-probabilities [sequence, position - 1, d_vocab], BOS left out
    unit: Tensor  # unit unembeddings of the tokens [sequence, position, d_model]
    other_unit: Tensor  # those of tokens drawn from the vocabulary

    @classmethod
    def of(cls, model: LanguageModel, ids: Tensor, seed: int) -> "_Cspa":
        layers = range(model.config.n_layers)
        wanted = {f"blocks.{i}.attn.hook_{what}" for i in layers for what in ("pattern", "v", "z")}
        wanted |= {f"blocks.{i}.hook_resid_pre" for i in layers}
        logits, kept = run_and_keep(model.processed, ids, wanted)
        known = ordinary_token_ids(model)
        generator = torch.Generator().manual_seed(seed)
        drawn = known[torch.randint(len(known), tuple(ids.shape), generator=generator)]
        columns = model.weights.W_U.T

        def unit(tokens: Tensor) -> Tensor:
            return torch.nn.functional.normalize(columns[tokens.to(ids.device)], dim=-1)

        clean = logits[:, 1:].log_softmax(dim=-1)
        return cls(model, ids, kept, clean, unit(ids), unit(drawn))

    def predicted_sources(self, layer: int) -> Tensor:
        """Whether s is among the sources that d's logit lens ranks highest [sequence, d, s]."""
        weights = self.model.weights
        read = normalised(self.model, self.cache[f"blocks.{layer}.hook_resid_pre"])
        lens = read @ weights.W_U.T[self.ids].transpose(1, 2) + weights.b_U[self.ids][:, None]
        length = self.ids.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=lens.device).triu(1)
        order = lens.masked_fill(future, -math.inf).argsort(dim=-1, descending=True)
        rank = order.argsort(dim=-1)
        count = torch.tensor([math.ceil(SOURCE_SHARE * (d + 1)) for d in range(length)])
        return rank < count.to(rank.device)[:, None]

    def divergences(self, layer: int, head: int, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """KL(clean || ablated) summed over destinations [sequence] float64.

        Mean ablation; CSPA; CSPA with other tokens' directions.
        """
        prefix = f"blocks.{layer}.attn.hook_"
        pattern = self.cache[prefix + "pattern"][:, head]
        group = self.model.config.n_heads // self.cache[prefix + "v"].shape[2]
        v = self.cache[prefix + "v"][:, :, head // group]
        z = self.cache[prefix + "z"][:, :, head]
        W_O = self.model.weights.W_O[layer, head]
        to_mean = (z.mean(dim=0) - z) @ W_O
        mean_read = torch.einsum("bds,bsk->dsk", pattern, v) / len(pattern)

        def kept(unit: Tensor) -> Tensor:
            reads = unit @ W_O.T
            r = pattern * (v * reads).sum(dim=-1)[:, None]
            r = r - torch.einsum("dsk,bsk->bds", mean_read, reads)
            return torch.where(chosen, r.clamp_max(0), 0.0) @ unit

        changes = [to_mean, to_mean + kept(self.unit), to_mean + kept(self.other_unit)]
        mean, own, other = (self._divergence(layer, change) for change in changes)
        return mean, own, other

    def _divergence(self, layer: int, change: Tensor) -> Tensor:
        def add(out: Tensor, hook: Any) -> Tensor:
            return out + change

        residual = self.cache[f"blocks.{layer}.hook_resid_pre"].clone()
        hooks = [(f"blocks.{layer}.hook_attn_out", add)]
        logits = all_logits_from(self.model.processed, residual, layer, hooks)
        ablated = logits[:, 1:].log_softmax(dim=-1)
        divergence = (self.clean.exp() * (self.clean - ablated)).sum(dim=-1)
        return float64(divergence).sum(dim=1).clamp_min(0).cpu()
