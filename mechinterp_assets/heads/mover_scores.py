"""Scores of heads relative to the movers: who stands in for them, who steers what they attend to.

Belongs here: direct effects with the movers knocked out, path patching into the movers' queries.
Does not belong here: which heads are movers; that is the role name_mover of the view head_roles.

Source: Wang et al. 2022 (arXiv 2211.00593), sections 3.2 and 3.4. Processed weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.ablation.cells import TemplateCell, template_cells
from mechinterp_assets.ablation.references import CellMeans
from mechinterp_assets.heads.ioi_scores import EffectMoments, name_pool
from mechinterp_assets.heads.score_values import ScoreValues, all_scores, score_frame
from mechinterp_assets.model.kept_run import run_and_keep
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import NamedHook, run_from
from mechinterp_assets.model.precision import float64
from mechinterp_assets.prompts.common import IOI
from mechinterp_assets.prompts.ioi import PromptError, equal_length_groups

Head = tuple[int, int]

BACKUP_EFFECT, S_INHIBITION = "ioi_backup_effect", "ioi_s_inhibition"
MOVER_SCORES = (BACKUP_EFFECT, S_INHIBITION)
EFFECT_SHARE = 0.02


@torch.no_grad()
def mover_scores(
    model: LanguageModel,
    prompts: pl.DataFrame,
    movers: Sequence[Head],
    *,
    patched_prompts: int = 32,
    max_prompts: int = 64,
    max_rows: int = 512,
    dataset: str = "IOI prompts",
) -> pl.DataFrame:
    """Rows ioi_backup_effect and ioi_s_inhibition of the frame ioi_head_scores.

    `prompts`: rows of table ioi_prompts; variants base and ABC are used. `movers`: (layer, head).
    Thresholds are EFFECT_SHARE of the mean clean logit difference. No rows where there are no
    movers, no ABC prompts, or no logit difference to take a share of (its mean more than 3
    standard errors above 0).
    `patched_prompts`: base prompts that path patching uses; `max_prompts`, `max_rows`: rows of a
    clean and of a patched forward pass. Raises PromptError for movers that do not exist and prompts
    that do not belong together.
    """
    base, abc = (prompts.filter(pl.col("variant") == name) for name in ("base", "ABC"))
    layers, heads = model.config.n_layers, model.config.n_heads
    if odd := [one for one in movers if not (0 <= one[0] < layers and 0 <= one[1] < heads)]:
        raise PromptError(
            f"mover {odd[0][0]}.{odd[0][1]} does not exist: {model.source} has {layers} layers of "
            f"{heads} heads; correct heads.movers"
        )
    if not movers or abc.is_empty():
        return all_scores([])
    pool = name_pool(model, base)
    differences = _logit_differences(model, base, max_prompts)
    difference, error = differences.mean(), differences.std() / len(differences) ** 0.5
    if not difference > 3 * error:
        return all_scores([])
    threshold = EFFECT_SHARE * float(difference)
    named = ", ".join(f"{layer}.{head}" for layer, head in sorted(movers))
    backup = _backup_effects(model, base, abc, movers, pool, max_prompts)
    frames = [
        score_frame(
            BACKUP_EFFECT,
            backup,
            threshold,
            f"{dataset} ({base.height}), {named} mean-ablated",
        )
    ]
    used = base.head(patched_prompts)
    inhibition = _query_effects(model, used, abc, movers, max_prompts, max_rows)
    if inhibition is not None:
        frames.append(
            score_frame(
                S_INHIBITION,
                inhibition,
                threshold,
                f"{dataset} ({used.height}), END output from ABC into the queries of {named}",
            )
        )
    return all_scores(frames)


# ---- private -------------------------------------------------------------------------------------


def _answer_ids(group: pl.DataFrame, device: torch.device) -> tuple[Tensor, Tensor]:
    io, s = (torch.tensor(group[c].to_list()) for c in ("io_token_id", "s_token_id"))
    return io.to(device), s.to(device)


def _logit_difference(logits: Tensor, io: Tensor, s: Tensor) -> Tensor:
    """logit(IO) - logit(S) of logits [row, d_vocab] -> [row] float64 on the CPU."""
    picked = logits.gather(1, torch.stack([io, s], dim=1))
    return float64(picked[:, 0] - picked[:, 1]).cpu()


def _logit_differences(model: LanguageModel, base: pl.DataFrame, max_prompts: int) -> Tensor:
    """logit(IO) - logit(S) of the untouched model, prompt by prompt [prompt]."""
    found = []
    for group, ids in equal_length_groups(base, max_prompts):
        logits, _ = run_and_keep(model.processed, ids.to(model.device), [], last_logits_only=True)
        found.append(_logit_difference(logits[:, -1], *_answer_ids(group, model.device)))
    return torch.cat(found)


def _backup_effects(
    model: LanguageModel,
    base: pl.DataFrame,
    abc: pl.DataFrame,
    movers: Sequence[Head],
    pool: Tensor,
    max_prompts: int,
) -> ScoreValues:
    """Direct effects with z of the movers at END at its mean over ABC prompts of the template."""
    means = _template_means(model, abc, max_prompts)
    known = {cell.template for cell in means.n if isinstance(cell, TemplateCell)}
    if missing := sorted(set(base["template"]) - known):
        raise PromptError(
            f"templates {missing} have base prompts but no ABC prompts to take the mean of; make "
            "both variants in one call of ioi_prompts"
        )
    effects = EffectMoments(model, pool)
    wanted = _z_names(model)
    for group, ids in equal_length_groups(base, max_prompts):
        cells = template_cells(group, IOI)
        hooks = [
            _set_at_end(layer, head, means.of(cells, layer)[:, head]) for layer, head in movers
        ]
        _, kept = run_and_keep(
            model.processed,
            ids.to(model.device),
            [*wanted, "ln_final.hook_scale"],
            hooks,
            last_logits_only=True,
        )
        effects.add(group, kept)
    found = replace(effects.result(), mode="mean_counterfactual_template")
    for layer, head in movers:
        found.value[layer, head] = torch.nan
    return found


def _z_names(model: LanguageModel) -> list[str]:
    return [f"blocks.{layer}.attn.hook_z" for layer in range(model.config.n_layers)]


def _template_means(model: LanguageModel, abc: pl.DataFrame, max_prompts: int) -> CellMeans:
    """Mean z at END by template, [layer] of [head, d_head]."""
    means = CellMeans()
    for group, ids in equal_length_groups(abc, max_prompts):
        _, kept = run_and_keep(
            model.processed, ids.to(model.device), _z_names(model), last_logits_only=True
        )
        means.add(template_cells(group, IOI), [kept[name][:, -1] for name in _z_names(model)])
    return means


def _set_at_end(layer: int, head: int, target: Tensor) -> NamedHook:
    def hook(z: Tensor, hook: Any) -> Tensor:
        z[:, -1, head] = target.to(z)
        return z

    return f"blocks.{layer}.attn.hook_z", hook


def _query_effects(
    model: LanguageModel,
    base: pl.DataFrame,
    abc: pl.DataFrame,
    movers: Sequence[Head],
    max_prompts: int,
    max_rows: int,
) -> ScoreValues | None:
    """Fall of the logit difference when a head's END output into movers' queries is ABC's.

    Path patching: the sender's z W_O at END is exchanged for that of the pair's ABC prompt; all
    other heads are frozen, MLPs at END are recomputed; what arrives at the movers' queries at END
    is written there, and everything after that runs freely. Null: the sign of each prompt's change
    drawn at random; exact. None where no head comes before a mover.
    """
    senders = max(layer for layer, _ in movers)
    if senders == 0:
        return None
    shape = (model.config.n_layers, model.config.n_heads)
    total = torch.full(shape, torch.nan, dtype=torch.float64)
    squares = torch.zeros(shape, dtype=torch.float64)
    total[:senders] = 0
    counterpart = dict(abc.select("pair_id", "token_ids").iter_rows())
    for group, ids in equal_length_groups(base, max_prompts):
        other = _counterparts(group, counterpart, ids.shape[1])
        patching = _QueryPatching.of(model, group, ids, other, movers)
        for layer in range(senders):
            change = patching.changes(layer, max_rows)
            total[layer] -= change.sum(dim=1)
            squares[layer] += change.square().sum(dim=1)
    n = base.height
    zero = torch.zeros(shape, dtype=torch.float64)
    return ScoreValues(total / n, n, zero, squares.sqrt() / n, mode="counterfactual_pair")


def _counterparts(group: pl.DataFrame, counterpart: dict[int, list[int]], length: int) -> Tensor:
    pairs = group["pair_id"].to_list()
    if odd := [pair for pair in pairs if len(counterpart.get(pair, ())) != length]:
        raise PromptError(
            f"{len(odd)} base prompts have no ABC prompt of the same pair and length (pair_id "
            f"{odd[0]}); make both variants in one call of ioi_prompts"
        )
    return torch.tensor([counterpart[pair] for pair in pairs])


@dataclass(frozen=True)
class _QueryPatching:
    """One group of prompts of equal length, END last, with what path patching reads."""

    model: LanguageModel
    answers: tuple[Tensor, Tensor]
    clean: dict[str, Tensor]
    other_z: list[Tensor]  # [layer] of [prompt, head, d_head] at END of the ABC prompts
    difference: Tensor  # clean logit difference [prompt]
    movers: tuple[Head, ...]

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        group: pl.DataFrame,
        ids: Tensor,
        other: Tensor,
        movers: Sequence[Head],
    ) -> "_QueryPatching":
        layers = range(model.config.n_layers)
        z_names = _z_names(model)
        resid = [f"blocks.{i}.hook_resid_{where}" for i in layers for where in ("pre", "mid")]
        logits, clean = run_and_keep(
            model.processed, ids.to(model.device), [*z_names, *resid], last_logits_only=True
        )
        _, changed = run_and_keep(
            model.processed, other.to(model.device), z_names, last_logits_only=True
        )
        answers = _answer_ids(group, model.device)
        return cls(
            model,
            answers,
            clean,
            [changed[name][:, -1] for name in z_names],
            _logit_difference(logits[:, -1], *answers),
            tuple(sorted(movers)),
        )

    def changes(self, sender_layer: int, max_rows: int) -> Tensor:
        """Patched minus clean logit difference [sender head, prompt] of one layer's heads."""
        n = len(self.difference)
        queries = self._queries(sender_layer)
        start = min(layer for layer, _ in queries)
        heads = self.model.config.n_heads
        residual = self.clean[f"blocks.{start}.hook_resid_pre"]
        found = []
        for chosen in torch.split(torch.arange(heads), max(1, max_rows // n)):
            hooks = [
                _set_query(head_of, query[chosen].flatten(0, 1))
                for head_of, query in queries.items()
            ]
            rows = residual.repeat(len(chosen), 1, 1)
            logits = run_from(self.model.processed, rows, start, hooks)
            io, s = (ids.repeat(len(chosen)) for ids in self.answers)
            found.append(_logit_difference(logits, io, s).view(-1, n))
        return torch.cat(found) - self.difference

    def _queries(self, sender_layer: int) -> dict[Head, Tensor]:
        """Patched END queries of the movers above a layer: [sender head, prompt, d_head]."""
        weights = self.model.weights
        clean_z = self.clean[f"blocks.{sender_layer}.attn.hook_z"][:, -1]
        delta = torch.einsum(
            "bhe,hed->hbd", self.other_z[sender_layer] - clean_z, weights.W_O[sender_layer]
        )
        found: dict[Head, Tensor] = {}
        for layer, arrived in self._arriving(sender_layer, delta):
            read = self.model.processed.blocks[layer].ln1(arrived)
            for mover_layer, head in self.movers:
                if mover_layer == layer:
                    found[layer, head] = read @ weights.W_Q[layer, head] + weights.b_Q[layer, head]
        return found

    def _arriving(self, sender_layer: int, delta: Tensor) -> Iterator[tuple[int, Tensor]]:
        """END residual before each later layer, heads frozen and MLPs recomputed."""
        for layer in range(sender_layer, self.model.config.n_layers - 1):
            middle = self.clean[f"blocks.{layer}.hook_resid_mid"][:, -1] + delta
            block = self.model.processed.blocks[layer]
            after = middle + block.mlp(block.ln2(middle))
            clean_after = self.clean[f"blocks.{layer + 1}.hook_resid_pre"][:, -1]
            delta = after - clean_after
            yield layer + 1, after


def _set_query(mover: Head, query: Tensor) -> NamedHook:
    layer, head = mover

    def hook(q: Tensor, hook: Any) -> Tensor:
        q[:, -1, head] = query
        return q

    return f"blocks.{layer}.attn.hook_q", hook
