"""What each method costs on a real model, in forward passes over the same tokens.

    MECHINTERP_SMOLLM2=<folder> python benchmarks/real_model.py [--rows harvest trace ...]

The unit of a row is the bare forward pass over the tokens that the row's method reads: the Hugging
Face trunk (SDPA, no hooks, no logits), in batches of the method's own size. Beside it stands
TransformerLens as one would write it, where it has a way of its own: whole passes with hooks
through the bridge. Where that is one pass per head or per layer, it is timed on a sample evenly
spaced over layers and scaled, because such a pass costs the same whatever it edits.

Ours, peer and unit are timed in turn, round by round; each prints its least CPU seconds of all
threads (wall seconds on a GPU). Columns: seconds of the unit and of ours, ours in units, the peer's
seconds and the peer's over ours. What can be compared is: a row fails where numbers differ.

`--small` takes a few prompts and short texts, for a look at whether it runs. Without
MECHINTERP_SMOLLM2 or `--model` the embedded model is measured.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.activations.cache import Batch, valid_positions
from mechinterp_assets.activations.harvest import harvest
from mechinterp_assets.attribution.dfa import feature_dfa
from mechinterp_assets.attribution.feature_pass import feature_pass
from mechinterp_assets.circuits.acc_seeds import seeds_of_roots
from mechinterp_assets.circuits.acc_trace import acc_batches
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.score_model import ScoreModel
from mechinterp_assets.circuits.trace import Root, TraceSettings, trace_batches
from mechinterp_assets.faithfulness.edge_attribution import attribute_edges, eap_ig
from mechinterp_assets.faithfulness.edge_sets import FRACTIONS, circuit_curves
from mechinterp_assets.faithfulness.head_sets import HeadSetRuns, knockout_scores
from mechinterp_assets.faithfulness.prompt_pairs import prompt_pairs
from mechinterp_assets.faithfulness.rankings import random_ranking
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.heads.head_scores import head_scores, score_datasets
from mechinterp_assets.heads.ioi_head_scores import name_pool
from mechinterp_assets.heads.pattern_pass import accumulate_patterns
from mechinterp_assets.heads.score_kinds import (
    MoverPrompts,
    MoverScore,
    PatternScore,
    ScoreDatasets,
)
from mechinterp_assets.heads.score_registry import scores_of
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.interventions.api import run as run_interventions
from mechinterp_assets.interventions.kinds.activation_patching import patching_sweep
from mechinterp_assets.interventions.kinds.head_ablation import head_ablations
from mechinterp_assets.interventions.kinds.path_patching import path_sweep
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.model.hooks import Hook, NamedHook
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.prompts.common import from_ioi, single_token_words
from mechinterp_assets.prompts.ioi import (
    CONSONANT_OBJECTS,
    PLACES,
    SegmentEncoder,
    equal_length_groups,
    ioi_prompts,
)
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.evaluation import evaluate_layers
from mechinterp_assets.tasks.ablation import sweep_heads

Work = Callable[[], object]
NamedHooks = list[NamedHook]
D_SAE, K = 2048, 16


@dataclass(frozen=True)
class Row:
    """One method: what is timed.

    batches: token ids [row, position] of the unit's passes. peer: its work and what it is, None
    where TransformerLens has no way of its own; scale: the peer's whole work over what is timed.
    agree: raises where the results of ours and the peer differ.
    """

    name: str
    batches: Sequence[Tensor]
    ours: Work
    peer: Work | None = None
    scale: float = 1.0
    agree: Callable[[Any, Any], None] | None = None


class RealModel:
    """The model, its prompts and texts."""

    def __init__(self, model: LanguageModel, a: argparse.Namespace) -> None:
        self.model, self.a = model, a
        self.prompts = ioi_prompts(
            model.encode, a.prompts, 0, model.bos_token_id, ("base", "ABC"), **_words(model)
        )
        self.base = self.prompts.filter(variant="base")
        generator = torch.Generator().manual_seed(0)
        vocabulary = min(len(model.tokenizer), model.config.d_vocab)
        self.texts = torch.randint(1, vocabulary, (a.sequences, a.context), generator=generator)
        self.texts[:, 0] = model.bos_token_id
        _ = model.weights, model.raw_weights

    @cached_property
    def layers(self) -> list[int]:
        """A few layers, evenly spaced."""
        n = self.model.config.n_layers
        return sorted({n // 6, n // 2, n - 1 - n // 6})

    @cached_property
    def groups(self) -> list[tuple[pl.DataFrame, Tensor]]:
        """Base prompts by length, as every method runs them."""
        return [(frame, ids.to(self.model.device)) for frame, ids in equal_length_groups(self.base)]

    @property
    def prompt_ids(self) -> list[Tensor]:
        return [ids for _, ids in self.groups]

    def sae(self, layer: int) -> TopKSAE:
        """A TopK SAE with random directions."""
        generator = torch.Generator().manual_seed(layer)
        decoder = torch.randn(D_SAE, self.model.config.d_z, generator=generator)
        decoder /= decoder.norm(dim=1, keepdim=True)
        zeros = torch.zeros(D_SAE), torch.zeros(self.model.config.d_z)
        sae = TopKSAE(decoder.T.contiguous(), zeros[0], decoder, zeros[1], k=K)
        return sae.to(self.model.device)

    def sampled(self, everything: Sequence[Any]) -> tuple[list[Any], float]:
        """A sample, evenly spaced, and how often it fits into the whole."""
        step = max(1, len(everything) // self.a.sample)
        chosen = list(everything[step // 2 :: step])
        return chosen, len(everything) / len(chosen)


# ---- rows ----------------------------------------------------------------------------------------


def harvested(m: RealModel) -> Row:
    """z of all layers; peer: run_with_cache with a filter on hook_z."""
    batches = [ids.to(m.model.device) for ids in m.texts.split(m.a.batch)]

    def ours() -> Tensor:
        last = torch.empty(0)
        for batch in harvest(m.model, m.texts, batch_size=m.a.batch):
            last = batch.z[m.model.config.n_layers - 1]
        return last

    def peer() -> Tensor:
        for ids in batches:
            _, cache = m.model.raw.run_with_cache(
                ids, names_filter=lambda name: name.endswith("hook_z")
            )
        last: Tensor = cache[f"blocks.{m.model.config.n_layers - 1}.attn.hook_z"]
        return last.flatten(-2)

    def agree(mine: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)

    return Row("harvest, z of all layers", batches, ours, peer, agree=agree)


def _head_data(m: RealModel) -> tuple[HeadSettings, ScoreDatasets]:
    settings = HeadSettings(
        sequences=m.a.sequences,
        batch_size=m.a.batch,
        repeat_length=m.a.context // 2 - 1,
        sink_length=m.a.context,
        suppression_tokens=64,
        cspa_sequences=3 if m.a.small else 4,
        cspa_length=8 if m.a.small else 16,
    )
    return settings, score_datasets(m.model, settings, m.texts, "text")


def patterns(m: RealModel) -> Row:
    """Every score of attention patterns on repeated tokens; peer: three of them off the cache."""
    _, data = _head_data(m)
    ids, shape = data.repeated.token_ids, m.model.config
    batches = [part.to(m.model.device) for part in ids.split(m.a.batch)]
    period = (ids.shape[1] - 1) // 2

    def ours() -> list[Tensor]:
        scores = [score for score in scores_of(PatternScore) if score.dataset == "repeated"]
        found = [s.statistic(shape.n_layers, shape.n_heads, data.repeated) for s in scores]
        accumulate_patterns(m.model, ids, found, batch_size=m.a.batch)
        names = [score.name for score in scores]
        return [found[names.index("induction")].result().value]

    def peer() -> list[Tensor]:
        induction = torch.zeros(shape.n_layers, shape.n_heads, dtype=torch.float64)
        for part in batches:
            _, cache = m.model.raw.run_with_cache(
                part, names_filter=lambda name: name.endswith("hook_pattern")
            )
            for layer in range(shape.n_layers):
                pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
                for offset in (1, period, period - 1):
                    strip = pattern.diagonal(-offset, dim1=-2, dim2=-1)
                    mean = strip[..., 1 if offset == period - 1 else 0 :].mean(-1)
                induction[layer] += mean.double().sum(0).cpu()
        return [induction / len(ids)]

    return Row("pattern scores, repeated tokens", batches, ours, peer)


def all_scores(m: RealModel) -> Row:
    """The whole table head_scores, its weight scores and ablations too."""
    settings, data = _head_data(m)
    ids = [data.repeated.token_ids, data.plain.token_ids]
    batches = [part.to(m.model.device) for one in ids for part in one.split(m.a.batch)]
    return Row(
        "head scores, the whole table",
        batches,
        lambda: head_scores(m.model, settings, text=m.texts),
    )


def movers(m: RealModel) -> Row:
    """Scores relative to the movers; peer: a hooked pass per sender, patched at the queries."""
    shape = m.model.config
    chosen = [(shape.n_layers - 2, 0), (shape.n_layers - 3, 1)]
    senders = [(la, h) for la in range(shape.n_layers - 2) for h in range(shape.n_heads)]

    def patch(q: Tensor, hook: Any) -> Tensor:
        q[:, -1, 0] = q[:, -1, 0] * 0.5
        return q

    some, scale = m.sampled(senders)

    def peer() -> None:
        for _ in some:
            for ids in m.prompt_ids:
                hooks = [(f"blocks.{layer}.attn.hook_q", patch) for layer, _ in chosen]
                m.model.processed.run_with_hooks(ids, fwd_hooks=hooks)

    prompts = MoverPrompts(
        base=m.base,
        abc=m.prompts.filter(variant="ABC"),
        movers=tuple(chosen),
        pool=name_pool(m.model, m.base),
        patched_prompts=m.a.prompts,
        max_prompts=64,
        max_rows=512,
        dataset="IOI prompts",
    )

    def ours() -> None:
        for score in scores_of(MoverScore):
            score.compute(m.model, prompts)

    return Row("mover scores", m.prompt_ids, ours, peer, scale)


def _naive(m: RealModel, passes: Sequence[NamedHooks]) -> tuple[Work, float]:
    """A whole pass per hook list and length: loss of the answers [pass, prompt], and the scale."""
    some, scale = m.sampled(passes)
    answers = [torch.tensor(frame["io_token_id"].to_list()) for frame, _ in m.groups]

    def work() -> np.ndarray:
        rows = []
        for hooks in some:
            losses = []
            for ids, answer in zip(m.prompt_ids, answers, strict=True):
                logits = m.model.processed.run_with_hooks(ids, fwd_hooks=hooks)
                log_probs = logits[:, -1].float().log_softmax(-1).cpu()
                losses.append(-log_probs[torch.arange(len(answer)), answer])
            rows.append(torch.cat(losses).double().numpy())
        return np.stack(rows)

    return work, scale


def _zeroing(m: RealModel, positions: slice) -> list[NamedHooks]:
    """Hooks that zero z of each head."""

    def zero(head: int) -> Hook:
        def hook(z: Tensor, hook: Any) -> Tensor:
            z[:, positions, head] = 0.0
            return z

        return hook

    shape = m.model.config
    return [
        [(f"blocks.{layer}.attn.hook_z", zero(head))]
        for layer in range(shape.n_layers)
        for head in range(shape.n_heads)
    ]


def _in_groups(m: RealModel, values: np.ndarray) -> np.ndarray:
    """Values [pass, prompt] with prompts in order of the groups, of the passes that are sampled."""
    order = {prompt: row for row, prompt in enumerate(m.base["prompt"])}
    places = [order[prompt] for frame, _ in m.groups for prompt in frame["prompt"]]
    chosen, _ = m.sampled(range(len(values)))
    return values[chosen][:, places]


def _close(m: RealModel) -> Callable[[np.ndarray, np.ndarray], None]:
    def agree(mine: np.ndarray, theirs: np.ndarray) -> None:
        np.testing.assert_allclose(_in_groups(m, mine), theirs, atol=2e-3, rtol=2e-3)

    return agree


def _swept(m: RealModel, name: str, positions: slice, **arguments: Any) -> Row:
    work, scale = _naive(m, _zeroing(m, positions))
    task = from_ioi(m.base)

    def ours() -> np.ndarray:
        sweep = sweep_heads(m.model, task, modes=("zero",), **arguments)
        ablated = sweep.ablated["loss"][0]
        return ablated.reshape(-1, ablated.shape[-1])

    return Row(name, m.prompt_ids, ours, work, scale, _close(m))


def ablation(m: RealModel) -> Row:
    """Every head ablated at every position but BOS; peer: a hooked pass per head."""
    return _swept(m, "ablation of all heads, all positions", slice(1, None))


def _intervened(
    m: RealModel, name: str, planned: Sequence[Planned], passes: Sequence[NamedHooks]
) -> Row:
    work, scale = _naive(m, passes)

    def ours() -> np.ndarray:
        frame = run_interventions(m.model, m.prompts, planned)
        losses = frame.filter(metric="loss")["patched"].to_numpy()
        return losses.reshape(len(planned), -1)

    return Row(name, m.prompt_ids, ours, work, scale, _close(m))


def ablation_at_end(m: RealModel) -> Row:
    """Every head ablated at END through the runner; peer: a hooked pass per head."""
    shape = m.model.config
    planned = head_ablations(
        shape.n_layers, shape.n_heads, modes=("zero",), position_roles=("END",)
    )
    hooks = _zeroing(m, slice(-1, None))
    return _intervened(m, "ablation of all heads at END", planned, hooks)


def one_intervention(m: RealModel) -> Row:
    """One head of the middle layer ablated at all positions; peer: a clean and a hooked pass."""
    layer = m.model.config.n_layers // 2
    planned = [p for p in head_ablations(layer + 1, 1, modes=("zero",)) if p.layer == layer]

    def zero(z: Tensor, hook: Any) -> Tensor:
        z[:, :, 0] = 0.0
        return z

    def peer() -> None:
        for ids in m.prompt_ids:
            m.model.processed(ids)
            m.model.processed.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)])

    return Row(
        "one intervention",
        m.prompt_ids,
        lambda: run_interventions(m.model, m.prompts, planned),
        peer,
    )


def patching_at_end(m: RealModel) -> Row:
    """attn_out, mlp_out, resid_pre of every layer at END; peer: a hooked pass each."""
    shape = m.model.config
    planned = patching_sweep(
        shape.n_layers,
        shape.n_heads,
        mode="noise",
        source_variant="ABC",
        position_roles=("END",),
    )
    with torch.no_grad():
        pairs = m.prompts.filter(variant="ABC")
        other = [
            m.model.processed.run_with_cache(ids.to(m.model.device))[1]
            for _, ids in equal_length_groups(pairs)
        ]

    def patch(name: str) -> Hook:
        def hook(value: Tensor, hook: Any) -> Tensor:
            own = [cache[name] for cache in other if cache[name].shape == value.shape]
            value[:, -1] = own[0][:, -1]
            return value

        return hook

    names = [
        f"blocks.{layer}.hook_{site}"
        for layer in range(shape.n_layers)
        for site in ("attn_out", "mlp_out", "resid_pre")
    ]
    hooks: list[NamedHooks] = [[(name, patch(name))] for name in names]
    return _intervened(m, "activation patching of all layers at END", planned, hooks)


def paths(m: RealModel) -> Row:
    """Every head's path to two movers' queries at END; peer: a hooked pass each."""
    shape = m.model.config
    receivers = [(shape.n_layers - 2, 0), (shape.n_layers - 3, 1)]
    planned = path_sweep(
        shape.n_layers,
        shape.n_heads,
        receiver="q",
        receivers=receivers,
        receiver_role="END",
        position_roles=("END",),
    )

    def patch(q: Tensor, hook: Any) -> Tensor:
        q[:, -1, 0] = q[:, -1, 0] * 0.5
        return q

    hooks: NamedHooks = [(f"blocks.{layer}.attn.hook_q", patch) for layer, _ in receivers]
    work, scale = _naive(m, [hooks] * len(planned))
    return Row(
        "paths of all heads into two heads' queries at END",
        m.prompt_ids,
        lambda: run_interventions(m.model, m.prompts, planned),
        work,
        scale,
    )


def traced(m: RealModel) -> Row:
    """Tracing from two late heads."""
    shape = m.model.config
    omega = ModelOmega(m.model)
    roots = [(shape.n_layers - 2, 0), (shape.n_layers - 3, 0)]
    rules = [TraceSettings()]

    def ours() -> None:
        for _ in trace_batches(m.model, m.base, roots, rules, omega=omega):
            pass

    ours()  # singular vectors are computed once
    return Row("trace, two roots", m.prompt_ids, ours)


def acc_traced(m: RealModel) -> Row:
    """ACC and ACC++ from the same heads' pairs with the indirect object."""
    shape = m.model.config
    roots = [Root(shape.n_layers - 2, 0, "IO"), Root(shape.n_layers - 3, 0, "IO")]
    seeds = seeds_of_roots(m.base, roots)
    scores = ScoreModel(m.model)

    def ours() -> None:
        for _ in acc_batches(m.model, m.base, seeds, score_model=scores):
            pass

    ours()  # weights are folded once
    return Row("ACC and ACC++, two roots", m.prompt_ids, ours)


def circuits(m: RealModel) -> Row:
    """Faithfulness of ten circuits of edges; peer: ten hooked passes, which one circuit takes."""
    split = SplitModel(m.model)
    pairs = prompt_pairs(split, from_ioi(m.prompts), counterfactual="ABC")
    ranking = random_ranking(split.graph, 0)
    work, scale = _naive(m, _zeroing(m, slice(1, None))[: len(FRACTIONS)])
    return Row(
        "ten circuits of edges",
        m.prompt_ids,
        lambda: circuit_curves(split, pairs, [ranking]),
        work,
        scale,
    )


def knockouts(m: RealModel) -> Row:
    """Mean ablation of every head alone as sets of heads that stay; peer: a pass each."""
    split = SplitModel(m.model)
    prompts = from_ioi(m.prompts)
    pairs = prompt_pairs(split, prompts, counterfactual="ABC")
    work, scale = _naive(m, _zeroing(m, slice(1, None)))

    def ours() -> None:
        runs = HeadSetRuns(split, pairs, prompts, prompts.filter(variant="ABC"))
        knockout_scores(runs)

    return Row("sets of all heads but one, mean ablation", m.prompt_ids, ours, work, scale)


def edges(m: RealModel) -> Row:
    """EAP-IG with 5 steps, all edges; peer: the forward and backward passes of 5 steps alone."""
    split = SplitModel(m.model)
    pairs = prompt_pairs(split, from_ioi(m.prompts), counterfactual="ABC")
    bridge = m.model.processed

    def peer() -> None:
        with torch.enable_grad():
            for ids in m.prompt_ids:
                for _ in range(5):
                    embedded = bridge.embed(ids).detach().requires_grad_()
                    logits = bridge(embedded)
                    torch.autograd.grad(logits[:, -1, 0].sum(), embedded)

    batches = [*m.prompt_ids, *m.prompt_ids]  # clean and corrupt prompts
    return Row("EAP-IG, 5 steps", batches, lambda: attribute_edges(split, pairs, [eap_ig()]), peer)


def spliced(m: RealModel) -> Row:
    """CE and KL with z of three layers spliced, zeroed and at its mean; peer: whole passes."""
    model, ids = m.model, m.texts.to(m.model.device)
    saes = {layer: m.sae(layer) for layer in m.layers}
    means = {layer: torch.zeros(model.config.d_z) for layer in m.layers}
    valid = valid_positions(ids, model.bos_token_id)
    batches = list(ids.split(m.a.batch))

    def ours() -> dict[int, float]:
        frame = evaluate_layers(model, saes, m.texts, means, batch_size=m.a.batch)
        return dict(frame.select("layer", "ce_spliced").iter_rows())

    def peer() -> dict[int, float]:
        loss = dict.fromkeys(m.layers, 0.0)
        for here, where in zip(batches, valid.split(m.a.batch), strict=True):
            model.raw(here).log_softmax(-1)
            for layer, sae in saes.items():
                for number, target in enumerate((sae, torch.zeros_like, torch.zeros_like)):

                    def splice(
                        z: Tensor, hook: Any, target: Any = target, where: Tensor = where
                    ) -> Tensor:
                        flat = z.flatten(-2)
                        flat[where] = target(flat[where])
                        return flat.view(z.shape)

                    logits = model.raw.run_with_hooks(
                        here, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", splice)]
                    )
                    log_probs = logits.log_softmax(-1)[:, :-1]
                    chosen = log_probs.gather(-1, here[:, 1:, None])[..., 0]
                    if number == 0:
                        loss[layer] -= float(chosen[where[:, :-1]].double().sum())
        n = int(valid[:, :-1].sum())
        return {layer: total / n for layer, total in loss.items()}

    def agree(mine: dict[int, float], theirs: dict[int, float]) -> None:
        for layer, value in mine.items():
            np.testing.assert_allclose(value, theirs[layer], rtol=1e-3)

    return Row("splice evaluation, three SAEs", batches, ours, peer, agree=agree)


def features(m: RealModel) -> Row:
    """Feature pass of one layer with its harvest, and DFA of its examples; peer: off the cache."""
    layer, model = m.model.config.n_layers // 2, m.model
    sae, heads = m.sae(layer), model.config.n_heads
    valid = valid_positions(m.texts, model.bos_token_id)
    batches = [ids.to(model.device) for ids in m.texts.split(m.a.batch)]

    def read() -> Iterator[Batch]:
        for batch in harvest(model, m.texts, [layer], batch_size=m.a.batch):
            rows = torch.arange(batch.first, batch.first + len(batch.token_ids))
            yield Batch(rows, batch.token_ids, batch.z[layer].float(), valid[rows])

    strings = [str(token) for token in range(model.config.d_vocab)]

    def ours() -> Tensor:
        found = feature_pass(read(), sae, top_k=5)
        examples = found.top_examples(strings)
        feature_dfa(model, sae, layer, examples, lambda rows: m.texts[torch.from_numpy(rows)])
        return found.max_activation

    def peer() -> Tensor:
        kept, patterns_, values = [], [], []
        names = [f"blocks.{layer}.attn.hook_{part}" for part in ("z", "pattern", "v")]
        for ids in batches:
            _, cache = model.raw.run_with_cache(ids, names_filter=lambda name: name in names)
            z, pattern, v = (cache[name] for name in names)
            kept.append(sae.encode(z.flatten(-2).flatten(0, 1)).view(*ids.shape, -1))
            patterns_.append(pattern)
            values.append(v.repeat_interleave(heads // v.shape[2], dim=2))
        f = torch.cat(kept)
        f[~valid.to(f.device)] = 0
        pattern, v = torch.cat(patterns_), torch.cat(values)
        most, where = f.amax(1).topk(min(5, len(f)), dim=0)
        at = f.argmax(1)
        for feature in most[0].nonzero()[:, 0].tolist():
            w = sae.W_enc[:, feature].view(heads, -1)
            for rank in range(len(where)):
                sequence = int(where[rank, feature])
                reads = torch.einsum("shd,hd->hs", v[sequence], w)
                _ = pattern[sequence, :, int(at[sequence, feature])] * reads
        return most[0]

    def agree(mine: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(mine, theirs.cpu(), rtol=1e-2, atol=1e-3)

    return Row("feature pass and DFA, one layer", batches, ours, peer, agree=agree)


ROWS: dict[str, Callable[[RealModel], Row]] = {
    "harvest": harvested,
    "patterns": patterns,
    "head_scores": all_scores,
    "movers": movers,
    "ablation": ablation,
    "ablation_at_end": ablation_at_end,
    "one": one_intervention,
    "patching_at_end": patching_at_end,
    "paths": paths,
    "trace": traced,
    "acc": acc_traced,
    "circuits": circuits,
    "knockouts": knockouts,
    "eap_ig": edges,
    "splice": spliced,
    "features": features,
}


# ---- measuring -----------------------------------------------------------------------------------


def _words(model: LanguageModel) -> dict[str, Any]:
    """Places and objects that this tokenizer has as one token each, so that few lengths differ."""
    encoder = SegmentEncoder(model.encode)
    return {
        what: single_token_words(model.encode, encoder, words, what=what, minimum=1)
        for what, words in (("places", PLACES), ("objects", CONSONANT_OBJECTS))
    }


@torch.no_grad()
def measure(row: Row, m: RealModel) -> str:
    """Time one row and give its line."""

    def clock() -> float:
        if m.model.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def timed(work: Work) -> tuple[float, object]:
        start = clock()
        result = work()
        return clock() - start, result

    def unit() -> None:
        for ids in row.batches:
            m.model.trunk(input_ids=ids, use_cache=False)

    works: dict[str, Work] = {"unit": unit, "ours": row.ours}
    if row.peer is not None:
        works["peer"] = row.peer
    best = dict.fromkeys(works, float("inf"))
    results: dict[str, object] = {}
    for _ in range(m.a.repeats):
        for name, work in works.items():
            seconds, results[name] = timed(work)
            best[name] = min(best[name], seconds)
    if row.agree is not None:
        row.agree(results["ours"], results["peer"])
    line = (
        f"{row.name:50s} {best['unit']:8.3f} {best['ours']:9.2f} {best['ours'] / best['unit']:9.2f}"
    )
    if row.peer is None:
        return line
    theirs = best["peer"] * row.scale
    sampled = "" if row.scale == 1 else f"  (1 in {row.scale:.0f} timed)"
    return f"{line} {theirs:9.2f} {theirs / best['ours']:7.2f}{sampled}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=os.environ.get("MECHINTERP_SMOLLM2") or ORGANISM_FOLDER)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sample", type=int, default=4, help="passes of a sweep that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true")
    a = parser.parse_args()
    if a.small:
        a.prompts, a.sequences, a.context, a.batch, a.sample, a.repeats = 4, 4, 24, 2, 2, 1
    torch.set_num_threads(a.threads)
    model = LanguageModel.load(a.model, device=a.device)
    m = RealModel(model, a)
    on_gpu = model.device.type == "cuda"
    shape = model.config
    print(
        f"{shape.n_layers} layers x {shape.n_heads} heads, d_model {shape.d_model}, vocabulary "
        f"{shape.d_vocab}; {m.base.height} IOI prompts in {len(m.groups)} lengths, {a.sequences} "
        f"texts of {a.context} tokens; least of {a.repeats}, "
        + (f"{torch.cuda.get_device_name()}, wall" if on_gpu else f"{a.threads} threads, CPU")
        + " seconds"
    )
    print(f"{'':50s}     unit      ours  in units      peer   ratio", flush=True)
    for name in a.rows:
        print(measure(ROWS[name](m), m), flush=True)


if __name__ == "__main__":
    main()
