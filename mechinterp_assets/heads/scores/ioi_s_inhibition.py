"""Heads that steer what the movers attend to: path patching into the movers' queries.

Source: Wang et al. 2022 (arXiv 2211.00593), section 3.2. Processed weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads.mover_runs import answer_ids, logit_difference, z_names
from mechinterp_assets.heads.score_kinds import Head, MoverPrompts, MoverScore
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.kept_keys import KeptKeys, before
from mechinterp_assets.model.kept_run import run_and_keep, run_and_keep_keys
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import mlp_output, run_from
from mechinterp_assets.prompts.ioi import PromptError, equal_length_groups


@torch.no_grad()
def s_inhibition(model: LanguageModel, prompts: MoverPrompts) -> ScoreValues | None:
    """Fall of the logit difference when a head's END output into movers' queries is ABC's.

    Path patching: the sender's z W_O at END is exchanged for that of the pair's ABC prompt; all
    other heads are frozen, MLPs at END are recomputed; what arrives at the movers' queries at END
    is written there, and everything after that runs freely. Null: the sign of each prompt's change
    drawn at random; exact. None where no head comes before a mover.
    """
    base, abc = prompts.base.head(prompts.patched_prompts), prompts.abc
    movers = prompts.movers
    senders = max(layer for layer, _ in movers)
    if senders == 0:
        return None
    shape = (model.config.n_layers, model.config.n_heads)
    total = torch.zeros(shape, dtype=torch.float64)
    squares = torch.zeros(shape, dtype=torch.float64)
    applies = torch.zeros(shape, dtype=torch.bool)
    applies[:senders] = True
    counterpart = dict(abc.select("pair_id", "token_ids").iter_rows())
    for group, ids in equal_length_groups(base, prompts.max_prompts):
        other = _counterparts(group, counterpart, ids.shape[1])
        patching = _QueryPatching.of(model, group, ids, other, movers)
        for layer in range(senders):
            change = patching.changes(layer, prompts.max_rows)
            total[layer] -= change.sum(dim=1)
            squares[layer] += change.square().sum(dim=1)
    n, null_mean = base.height, torch.zeros(shape, dtype=torch.float64)
    dataset = (
        f"{prompts.dataset} ({n}), END output from ABC into the queries of {prompts.named_movers}"
    )
    spread = squares.sqrt() / n
    return ScoreValues(total / n, n, null_mean, spread, dataset, "counterfactual_pair", applies)


# ---- private -------------------------------------------------------------------------------------


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
    keys: KeptKeys | None
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
        z = z_names(model)
        resid = [f"blocks.{i}.hook_resid_{where}" for i in layers for where in ("pre", "mid")]
        logits, clean, keys = run_and_keep_keys(model.processed, ids.to(model.device), [*z, *resid])
        _, changed = run_and_keep(model.processed, other.to(model.device), z, last_logits_only=True)
        answers = answer_ids(group, model.device)
        return cls(
            model,
            answers,
            clean,
            keys,
            [changed[name][:, -1] for name in z],
            logit_difference(logits, *answers),
            tuple(sorted(movers)),
        )

    def changes(self, sender_layer: int, max_rows: int) -> Tensor:
        """Patched minus clean logit difference [sender head, prompt] of one layer's heads."""
        n = len(self.difference)
        queries = self._queries(sender_layer)
        start = min(layer for layer, _ in queries)
        heads = self.model.config.n_heads
        # Queries at END are what changes: nothing before END does.
        residual = self.clean[f"blocks.{start}.hook_resid_pre"]
        first = 0 if self.keys is None else residual.shape[1] - 1
        found = []
        for chosen in torch.split(torch.arange(heads), max(1, max_rows // n)):
            hooks = [
                _set_query(head_of, query[chosen].flatten(0, 1))
                for head_of, query in queries.items()
            ]
            rows = torch.arange(n, device=residual.device).repeat(len(chosen))
            logits = run_from(
                self.model.processed,
                residual[rows, first:],
                start,
                hooks,
                behind=before(self.keys, first, rows),
            )
            io, s = (ids.repeat(len(chosen)) for ids in self.answers)
            found.append(logit_difference(logits, io, s).view(-1, n))
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
            bridge = self.model.processed
            read = bridge.through(bridge.blocks[layer].ln1, arrived)
            for mover_layer, head in self.movers:
                if mover_layer == layer:
                    found[layer, head] = read @ weights.W_Q[layer, head] + weights.b_Q[layer, head]
        return found

    def _arriving(self, sender_layer: int, delta: Tensor) -> Iterator[tuple[int, Tensor]]:
        """END residual before each later layer, heads frozen and MLPs recomputed."""
        for layer in range(sender_layer, self.model.config.n_layers - 1):
            middle = self.clean[f"blocks.{layer}.hook_resid_mid"][:, -1] + delta
            read = middle.flatten(0, -2)
            after = middle + mlp_output(self.model.processed, layer, read).view_as(middle)
            clean_after = self.clean[f"blocks.{layer + 1}.hook_resid_pre"][:, -1]
            delta = after - clean_after
            yield layer + 1, after


def _set_query(mover: Head, query: Tensor) -> NamedHook:
    layer, head = mover

    def hook(q: Tensor, hook: Any) -> Tensor:
        q[:, -1, head] = query
        return q

    return f"blocks.{layer}.attn.hook_q", hook


SCORES = (
    MoverScore(
        needs=("path_patching",),
        name="ioi_s_inhibition",
        definition="Fall of logit IO - logit S when the head's output at END comes from the pair's "
        "ABC prompt on its paths into the movers' queries at END alone (path patching: all other "
        "heads frozen, MLPs at END recomputed, movers and everything after them run freely); only "
        "heads in layers before the last mover have a row. Movers, and absent, as in "
        "ioi_backup_effect",
        value_range="logits",
        terms="prompts",
        null_distribution="The sign of every prompt's change drawn at random; exact, 0",
        source="Wang et al. 2022, arXiv 2211.00593, section 3.2",
        threshold_share=0.02,
        compute=s_inhibition,
    ),
)
