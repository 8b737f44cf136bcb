"""One row of a head's attention scores, split by writer, token read, singular vector and source.

Belongs here: the terms of a row on either side, whose sums over writers, tokens read and k are the
row. Does not belong here: the forward pass (score_model.py), which terms matter (acc.py).

For a head with Omega = W_Q W_K^T = U Sigma V^T (no biases) and destination d,
  score(d, s) = sum_k scale (q_d . alpha_k) (beta_k R_d R_s^T . k_s)
with q_d alpha_k = (x_d + c_d) . u_k the coordinate of the input on singular vector u_k, and
beta_k R k_s = sigma_k v_k M_p (x_s + c_s), M_p = W_K^+T R_p W_K^T: the rotation by the offset
p = d - s stands at the key, so that one SVD serves every offset and u_k is the same at all of
them. The biases are a writer of their own, the offsets c_d = b_Q W_Q^+ and c_s = b_K W_K^+.
  destination side  term(c, t, k, s) = what writer c wrote at d of token t, on u_k, times key k at s
  source side       term(c, t, k, s) = query k at d, times what c wrote at s of token t, on v_k M_p
On the destination side terms are products, kept as their factors.

Source: ACC and ACC++ (the array score[component, token read, k, source]). Putting M_p on the key
is this project's choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.score_model import ScoreModel, ScoreRun
from mechinterp_assets.model.names import head_name

KINDS = ("embedding", "position", "bias", "head", "mlp", "offset")
_RANK = 1e-10  # singular values of W_Q below this share of the largest count as 0


@dataclass(frozen=True)
class ScoreWriters:
    """Names of the writers of a layer's input: kind (index into KINDS), layer, head; -1 where none.

    In the order in which they write; the offset, which writes nothing to the stream, last.
    """

    kind: np.ndarray
    layer: np.ndarray
    head: np.ndarray

    @classmethod
    def before(cls, run: ScoreRun, layer: int) -> "ScoreWriters":
        """Writers that the attention of `layer` reads."""
        rows = [(KINDS.index(kind), -1, -1) for kind in run.base]
        for up in range(layer):
            rows.append((KINDS.index("bias"), up, -1))
            rows += [(KINDS.index("head"), up, head) for head in range(run.values.shape[2])]
            rows.append((KINDS.index("mlp"), up, -1))
        rows.append((KINDS.index("offset"), -1, -1))
        return cls(*np.array(rows).T)

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class SideTerms:
    """Terms of one row on one side; float64.

    writer, token, position [item]: index of the writer, the token that a head read (-1: none was
    read), and where it wrote; value [item, k]. key [k, source]: on the destination side a term is
    value[item, k] * key[k, source] at every source; None on the source side, where a term is
    value[item, k] at the source `position` and 0 elsewhere.
    """

    writer: Tensor
    token: Tensor
    position: Tensor
    value: Tensor
    key: Tensor | None

    def row(self, length: int) -> Tensor:
        """Sum of all terms [source]."""
        if self.key is not None:
            return self.value.sum(0) @ self.key
        row = self.value.new_zeros(length)
        return row.index_add_(0, self.position, self.value.sum(-1))

    def weighted(self, weight: Tensor) -> Tensor:
        """Sum over sources of term * weight [source], per item and k [item, k]."""
        if self.key is not None:
            return self.value * (self.key @ weight)
        return self.value * weight[self.position][:, None]


@dataclass(frozen=True)
class RowTerms:
    """The row of scores of one (layer, head, destination): sides, and the row itself.

    row [source] are scores before a cap, of the sources 0 .. d; seen [source]: inside the window.
    """

    sides: tuple[SideTerms, SideTerms]
    row: Tensor
    seen: Tensor

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor]:
        """Sums of each side's terms [source]."""
        first, second = (side.row(len(self.row)) for side in self.sides)
        return first, second

    @cached_property
    def error(self) -> float:
        """Largest difference of the sums from the row, relative to its largest score."""
        size = float(self.row.abs().max())
        gap = max(float((own - self.row).abs().max()) for own in self.sums)
        return gap / size if size else gap


class HeadReader:
    """What one head reads of what upstream heads write, for rows of any prompt and destination."""

    def __init__(self, model: ScoreModel, layer: int, head: int) -> None:
        self.model, self.layer, self.head = model, layer, head
        weights = model.weights(layer)
        W_Q, W_K = weights.W_Q[head], weights.W_K[head]
        self.b_Q, self.b_K = weights.b_Q[head], weights.b_K[head]
        self.alpha, self.beta, self.sigma = head_vectors(W_Q, W_K)
        gap = self.b_Q - self.b_Q @ self.alpha @ self.beta.T
        if not gap.norm() <= 1e-6 * self.b_Q.norm():
            raise CircuitError(
                f"{model.model.source}: the query bias of {head_name(layer, head)} lies outside "
                "what W_Q can write, so that it is no offset of the residual stream "
                "(c_d = b_Q W_Q^+)"
            )
        self.W_query, self.W_key = W_Q @ self.alpha, W_K
        both = torch.cat([self.W_query, self.W_key], 1)
        width = self.W_query.shape[1]
        # [layer][head, d_head, k]: what is read of a unit of an upstream head's value.
        read = [model.weights(up).W_O @ both for up in range(layer)]
        self.to_query = [one[..., :width] for one in read]
        self.to_key = [one[..., width:] for one in read]

    @torch.no_grad()
    def row(
        self, run: ScoreRun, prompt: int, destination: int, *, only_source: int | None = None
    ) -> RowTerms:
        """Terms of the row of scores of one destination.

        only_source: the source side has terms of this source alone, at a fraction of the cost.
        """
        model, layer, d = self.model, self.layer, destination
        form = model.form(layer)
        turns = form.rotations(run.length, self.b_Q.shape[0]).to(self.alpha)
        beta = self.beta.T @ turns[d]  # [k, d_head]
        keys = (run.keys[layer][prompt, self.head, : d + 1, None] @ turns[: d + 1])[:, 0]
        query = run.queries[layer][prompt, self.head, d] @ self.alpha
        key = form.scale * (beta @ keys.T)
        r_q = run.r_q[layer][prompt, self.head]
        r_k = run.r_k[layer][prompt, self.head]
        r = run.r[layer][prompt]

        at = torch.tensor([d], device=query.device)
        b_query = self.b_Q @ self.alpha
        first = written_terms(
            *(model, run, layer, prompt, at, self.W_query, self.to_query, r_q[d] * b_query),
            turn=(r_q[d] * r[d])[None, None, None],
        )
        first = replace(first, key=key)

        every = torch.arange(d + 1, device=query.device)
        if only_source is not None:
            every = every[only_source, None]
        # Rotate to the position written at, then read along beta.
        turn = (turns[every] @ beta.T) * (r_k[every, None, None] * (form.scale * query))
        second = written_terms(
            *(model, run, layer, prompt, every, self.W_key, self.to_key, self.b_K @ turn),
            turn=r[every, None, None] * turn,
        )
        seen = torch.ones(d + 1, dtype=torch.bool, device=query.device)
        if form.window is not None:
            seen[: max(0, d + 1 - form.window)] = False
        return RowTerms((first, second), query @ key, seen)


@torch.no_grad()
def written_terms(
    model: ScoreModel,
    run: ScoreRun,
    layer: int,
    prompt: int,
    at: Tensor,
    read: Tensor,
    of_values: Sequence[Tensor],
    offset: Tensor,
    *,
    turn: Tensor | None = None,
) -> SideTerms:
    """What every writer before `layer` wrote at positions `at`, times read [d_model, width].

    of_values [layer] of [head, d_head, width]: W_O read. turn: what a position does to that, [at,
    width, k], or [at, 1, 1] a factor, with the norm of the reader in it; offset [at, k] or [k]: of
    the last writer, whole. Items are those of other writers, those of heads by position, and last
    the offsets.
    """
    places = _items(len(run.base), layer, run.values.shape[2], tuple(at.tolist()), at.device)
    layers = [model.weights(up) for up in range(layer)]
    plain = [written[prompt, at] @ read for written in run.base.values()]
    r_post = run.r_post[:layer, prompt, at, None]
    if layers:
        b_O, post = (
            torch.stack([getattr(of, name) for of in layers]) @ read
            for name in ("b_O", "post_bias")
        )
        plain += list(r_post * b_O[:, None] + post[:, None])
        plain += list(run.mlp[:layer, prompt, at] @ read)
    written = torch.stack(plain)  # [writer, at, width]
    values = [_turned(written, turn).flatten(0, 1)]
    if layers:
        stacked = zip(run.values[:layer, prompt], of_values, strict=True)
        of_token = torch.stack([value @ of for value, of in stacked])  # [layer, head, token, width]
        pattern = run.pattern[:layer, prompt]
        for number, position in enumerate(at.tolist()):
            seen = pattern[:, :, position, : position + 1] * r_post[:, number, None]
            of = of_token[:, :, : position + 1] * seen[..., None]
            own = None if turn is None else turn[number, None]
            values.append(_turned(of.flatten(0, 1), own).flatten(0, 1))
    values.append(offset.expand(len(at), -1))
    return SideTerms(*places, torch.cat(values), None)


def _turned(values: Tensor, turn: Tensor | None) -> Tensor:
    """values [writer, n, width] times turn [n or 1, width, k], or [n or 1, 1, 1] a factor."""
    if turn is None:
        return values
    if turn.shape[1] == 1:
        return values * turn[:, 0]
    if len(turn) == 1:
        return values @ turn[0]
    return torch.einsum("wnd,ndk->wnk", values, turn)


@lru_cache(maxsize=256)
def _items(
    n_base: int, n_layers: int, n_heads: int, at: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Writer, token read and position [item] of written_terms."""
    position = torch.tensor(at)
    first = n_base + (n_heads + 2) * torch.arange(n_layers)
    plain = torch.cat([torch.arange(n_base), first, first + n_heads + 1])
    heads = (first[:, None] + torch.arange(1, n_heads + 1)).flatten()
    writers = [plain.repeat_interleave(len(at))]
    tokens = [torch.full_like(writers[0], -1)]
    positions = [position.repeat(len(plain))]
    for place in at:
        writers.append(heads.repeat_interleave(place + 1))
        tokens.append(torch.arange(place + 1).repeat(len(heads)))
        positions.append(torch.full_like(tokens[-1], place))
    writers.append(torch.full((len(at),), n_base + (n_heads + 2) * n_layers))
    tokens.append(torch.full_like(writers[-1], -1))
    positions.append(position)
    writer, token, where = (torch.cat(of).to(device) for of in (writers, tokens, positions))
    return writer, token, where


def head_vectors(W_Q: Tensor, W_K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, beta [d_head, k] and sigma [k] of a head with W_Q, W_K [d_model, d_head].

    W_Q alpha has the columns u_k of Omega = W_Q W_K^T = U Sigma V^T, W_K beta the columns
    sigma_k v_k; alpha beta^T is the identity on what queries without bias can be.
    """
    R_query, R_key = (torch.linalg.qr(W).R for W in (W_Q, W_K))
    u, sigma, _ = torch.linalg.svd(R_query @ R_key.T)
    return torch.linalg.pinv(R_query, rtol=_RANK) @ u, R_query.T @ u, sigma
