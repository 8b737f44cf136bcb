"""The pairs that ACC's traces begin with: what writes the answer.

Belongs here: seeds from roots by direct effect, seeds by the log probability of the answer. Does
not belong here: direct effects (roots.py), tracing (acc_trace.py).

By log p: with the final norm frozen, logits at END are a sum over writers, heads split by the token
they read. Writers are ordered by integrated gradients of log p(answer) along alpha * logits, 64
trapezoids, and removed in that order until 80% of log p - log(1 / d_vocab) is gone (with every
writer removed all tokens are as likely). The heads among the removed ones are seeds, at the token
that they read.

Source: ACC++ (seeds by direct effect or by log p). Measuring what is destroyed from the uniform
distribution is this project's choice.
"""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.acc import TRAPEZOIDS
from mechinterp_assets.circuits.acc_trace import SEEDS_SCHEMA, runs_per_batch
from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.score_model import NormForm, ScoreModel, ScoreRun
from mechinterp_assets.circuits.score_terms import KINDS, ScoreWriters, SideTerms, written_terms
from mechinterp_assets.circuits.soft_cap import capped, gradient_before, soft_cap
from mechinterp_assets.circuits.trace import Root
from mechinterp_assets.model.agreement import ALLOWED, disagreement
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import equal_length_groups
from mechinterp_assets.prompts.roles import END, answer_tokens, role_names, role_positions

DESTROYED = 0.8
_CHUNK = 32  # writers removed at a time; each costs d_model * d_vocab
LOG_P_SCHEMA: dict[str, pl.DataType] = {
    **SEEDS_SCHEMA,
    "integrated_gradient": pl.Float64(),
    "log_p": pl.Float64(),
    "destroyed": pl.Float64(),
}


def seeds_of_roots(prompts: pl.DataFrame, roots: Sequence[Root]) -> pl.DataFrame:
    """The pairs (END, source) of root heads in every prompt that has the source, as seeds."""
    here = set(role_names(prompts))
    if missing := sorted({root.source for root in roots} - here):
        raise CircuitError(f"prompts have no role {', '.join(missing)}; they have {sorted(here)}")
    frames = [pl.DataFrame(schema=SEEDS_SCHEMA)]
    end = role_positions(prompts, END)
    for root in roots:
        frame = pl.DataFrame(
            {
                "prompt": prompts["prompt"],
                "layer": [root.layer] * prompts.height,
                "head": [root.head] * prompts.height,
                "destination": end,
                "source": role_positions(prompts, root.source),
            },
            schema=SEEDS_SCHEMA,
        )
        frames.append(frame.filter(pl.col("source") >= 0))
    return pl.concat(frames)


@torch.no_grad()
def seeds_by_log_p(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    share: float = DESTROYED,
    memory_mib: int = 512,
    score_model: ScoreModel | None = None,
) -> pl.DataFrame:
    """Seeds of every prompt by the log probability of its first answer (LOG_P_SCHEMA).

    share: of log p - log(1 / d_vocab) that the removed writers carry. Prompts whose answer is no
    likelier than any token have none. log_p is the prompt's own; destroyed, what the prefix that
    ends with this head destroys. Raises CircuitError where the split logits are not the model's.
    """
    check_prompts_fit(prompts, model)
    if not 0 < share <= 1:
        raise CircuitError(f"share is {share}; give a share of log p in (0, 1]")
    score_model = score_model or ScoreModel(model)
    reader = _LogitReader(score_model)
    n_layers = model.config.n_layers
    rows: list[dict[str, Any]] = []
    for group, ids in equal_length_groups(prompts, runs_per_batch(model, n_layers, memory_mib)):
        run = score_model.run(ids, n_layers)
        writers = ScoreWriters.before(run, n_layers)
        ends = role_positions(group, END)
        if not rows:
            first = model.raw(ids[:1, : ends[0] + 1].to(model.device), logits_to_keep=1)
            reader.check(run, 0, ends[0], first[0, -1])
        for row, (prompt, end, (answers, _)) in enumerate(
            zip(group["prompt"], ends, answer_tokens(group), strict=True)
        ):
            for found in reader.seeds(run, row, int(end), answers[0], share, writers):
                rows.append({"prompt": prompt, **found})
    return pl.DataFrame(rows, schema=LOG_P_SCHEMA, orient="row")


class _LogitReader:
    """The final norm and the unembedding, folded."""

    def __init__(self, model: ScoreModel) -> None:
        self.model = model
        own, device = model.model, model.device
        raw: Any = own.raw
        self.module = raw.ln_final.original_component
        self.norm = NormForm.of(raw.ln_final, own.config.d_model, own)
        W_U = own.raw_weights.W_U.to(device, torch.float64)
        self.W_U = self.norm.into(W_U)
        self.bias = self.norm.bias @ W_U + own.raw_weights.b_U.to(device, torch.float64)
        self.cap = soft_cap(own, "output_logits_soft_cap")
        self.of_values = [model.weights(up).W_O for up in range(own.config.n_layers)]

    def log_p(self, logits: Tensor) -> Tensor:
        """Log probabilities of logits [..., d_vocab] before a cap."""
        return capped(logits, self.cap).log_softmax(-1)

    def terms(self, run: ScoreRun, row: int, end: int) -> tuple[SideTerms, Tensor]:
        """What every writer wrote at `end` [item, d_model], the final norm's scale in it; the last
        item, of the biases, has no vector. And its logits."""
        n_layers, d_model = self.model.model.config.n_layers, self.model.model.config.d_model
        x = run.stream[n_layers][row, end]
        dtype = torch.promote_types(self.model.model.dtype, torch.float32)
        y = self.module(x[None, None].to(self.model.model.device, dtype))[0, 0]
        r = self.norm.scale(x, y.to(x))
        eye = torch.eye(d_model, dtype=torch.float64, device=x.device)
        at = torch.tensor([end], device=x.device)
        wrote = written_terms(
            *(self.model, run, n_layers, row, at, eye, self.of_values), eye.new_zeros(d_model)
        )
        wrote = SideTerms(wrote.writer, wrote.token, wrote.position, wrote.value * r, None)
        return wrote, r * (x @ self.W_U) + self.bias

    def seeds(
        self, run: ScoreRun, row: int, end: int, answer: int, share: float, writers: ScoreWriters
    ) -> list[dict[str, Any]]:
        """Heads and tokens whose removal destroys log p of `answer`."""
        wrote, logits = self.terms(run, row, end)
        start = float(self.log_p(logits)[answer])
        size = start + math.log(len(logits))
        if size <= 0:
            return []
        gradient = self._gradient(logits, answer)
        score = wrote.value @ (self.W_U @ gradient)
        score[-1] = self.bias @ gradient
        order = score.argsort(descending=True, stable=True)
        found: list[dict[str, Any]] = []
        left = logits
        for first in range(0, len(order), _CHUNK):
            some = order[first : first + _CHUNK]
            removed = wrote.value[some] @ self.W_U
            removed[some == len(score) - 1] = self.bias
            rows = left - removed.cumsum(0)
            gone = (start - self.log_p(rows)[:, answer]) / size
            for at, item in enumerate(some.tolist()):
                writer = int(wrote.writer[item])
                if KINDS[writers.kind[writer]] == "head":
                    found.append(
                        {
                            "layer": int(writers.layer[writer]),
                            "head": int(writers.head[writer]),
                            "destination": end,
                            "source": int(wrote.token[item]),
                            "integrated_gradient": float(score[item]),
                            "log_p": start,
                            "destroyed": float(gone[at]),
                        }
                    )
                if float(gone[at]) >= share:
                    return found
            left = rows[-1]
        return found

    def _gradient(self, logits: Tensor, answer: int) -> Tensor:
        """Mean over alpha in [0, 1] of the gradient of log p(answer) at alpha * logits."""
        total = torch.zeros_like(logits)
        for step in range(TRAPEZOIDS + 1):
            at = logits * (step / TRAPEZOIDS)
            gradient = -self.log_p(at).exp()
            gradient[answer] += 1
            gradient = gradient_before(gradient, at, self.cap)
            total += gradient * (0.5 if step in (0, TRAPEZOIDS) else 1.0)
        return total / TRAPEZOIDS

    def check(self, run: ScoreRun, row: int, end: int, expected: Tensor) -> None:
        """Raise CircuitError unless these are the model's logits `expected` [d_vocab]."""
        _, logits = self.terms(run, row, end)
        allowed = ALLOWED[self.model.model.dtype]
        error = disagreement(self.log_p(logits), expected.to(logits).log_softmax(-1))
        if not error <= allowed:
            raise CircuitError(
                f"{self.model.model.source}: logits are not W_U on the normalised stream (relative "
                f"error {error:.2g}, allowed {allowed:g}); begin traces with roots by direct effect"
            )
