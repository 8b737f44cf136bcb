"""How a layer's attention makes scores of queries and keys: rotation, scale, window.

Belongs here: finding that form by comparing it with the patterns of the model itself, and the
rotation matrices of a rotary layer. Does not belong here: what is made of scores.

Names of families say nothing here: among the forms that architectures have (no rotation or the
angles of the model's own rotary module, in halves or in adjacent pairs; a few constants as scale),
a layer has the one whose softmax is its attention pattern. So a layer without positions in a model
with rotation, and a layer with angles of its own, are found as such.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mechinterp_assets.model.agreement import disagreement
from mechinterp_assets.model.precision import float64
from mechinterp_assets.model.shape import ModelError

Pairs = Literal["halves", "adjacent"]
_PROBED = 8  # positions on which two tables of angles are compared
_GOOD_FIT = 1e-6  # a form with this error is the layer's; the rest need not be tried


class Angles:
    """Cosines and sines of a rotary embedding: table(length) -> two [position, frequency], float64.

    They may depend on the length of the sequence (`dynamic`, `longrope`), so it is always given.
    """

    def __init__(self, hf: Any, attention: nn.Module, kind: str | None) -> None:
        self._hf, self._attention, self._kind = hf, attention, kind

    @torch.no_grad()
    def table(self, length: int) -> tuple[Tensor, Tensor]:
        """Of a sequence of `length` positions. Raises ModelError."""
        fixed = getattr(self._attention, "embed_positions", None)
        if isinstance(fixed, Tensor):
            sin, cos = float64(fixed[:length]).chunk(2, -1)
            return cos, sin
        rotary = self._hf.base_model.rotary_emb
        device = next(self._hf.parameters()).device
        like = torch.zeros(1, 1, 1, device=device, dtype=torch.float32)
        positions = torch.arange(length, device=device)[None]
        cos, sin = rotary(like, positions, *(() if self._kind is None else (self._kind,)))
        return _frequencies(float64(cos[0])), _frequencies(float64(sin[0]))

    def depend_on_length(self, n_ctx: int) -> bool:
        """Whether the first positions of a short and of the longest sequence turn differently."""
        short, long = (self.table(length) for length in (_PROBED, n_ctx))
        return any(not torch.equal(a, b[: len(a)]) for a, b in zip(short, long, strict=True))


@dataclass(frozen=True)
class ScoreForm:
    """The form of one layer's attention scores: scale * (R_i q_i) . (R_j k_j).

    angles: of R, None where nothing is rotated; pairs: which dimensions of a head turn together;
    scale; window: keys that a query sees, itself included, None for all before it; error: relative
    rms of softmax(scores) - pattern on the tokens that were looked at.
    """

    angles: Angles | None
    pairs: Pairs
    scale: float
    window: int | None
    error: float

    @property
    def rotary(self) -> bool:
        """Whether queries and keys are rotated."""
        return self.angles is not None

    def rotations(self, length: int, d_head: int) -> Tensor:
        """R_p^T of every position of a sequence [position, d_head, d_head], float64; row vectors
        are turned by x @ R_p^T. The identity where nothing is rotated.
        """
        if self.angles is None:
            return torch.eye(d_head, dtype=torch.float64).expand(length, -1, -1)
        return _rotations(*self.angles.table(length), self.pairs, d_head)

    def turned(self, x: Tensor) -> Tensor:
        """Queries or keys x [batch, position, head, d_head] as attention multiplies them."""
        if self.angles is None:
            return x
        turns = self.rotations(x.shape[1], x.shape[-1]).to(x)
        return torch.einsum("bthk,tkl->bthl", x, turns)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores [batch, head, destination, source], unmasked, of queries [batch, position, head,
        d_head] and keys of the same heads or of their groups."""
        k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
        return _scores(q, k, self.angles, self.pairs, self.scale)


def found_form(
    hf: Any,
    attention: nn.Module,
    layer: int,
    q: Tensor,
    k: Tensor,
    pattern: Tensor,
    *,
    capped: Callable[[Tensor], Tensor] | None = None,
    known: ScoreForm | None = None,
) -> ScoreForm:
    """The form of a layer's scores whose softmax is nearest to its attention pattern.

    attention: the module of the model that computes them. q, k [batch, position, head, d_head],
    before rotation, of as many heads as the pattern [batch, head, destination, source]. capped:
    what becomes of scores before the softmax. known: measured again, no other form is tried.
    """
    window = window_of(hf, attention, layer)
    length = pattern.shape[-1]
    hidden = unseen(torch.arange(length, device=pattern.device), length, window)
    forms = (
        _forms(hf, attention, q.shape[-1], layer)
        if known is None
        else [(known.angles, known.pairs, known.scale)]
    )
    best: ScoreForm | None = None
    for angles, pairs, scale in forms:
        scores = _scores(q, k, angles, pairs, scale)
        scores = scores if capped is None else capped(scores)
        found = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        error = disagreement(found, pattern)
        if best is None or error < best.error:
            best = ScoreForm(angles, pairs, scale, window, error)
        if error <= _GOOD_FIT:
            break
    assert best is not None
    return best


def window_of(hf: Any, attention: nn.Module, layer: int) -> int | None:
    """Keys that a query of this attention sees, itself included; None: all before it.

    Said by the kinds of layers in the config: modules of some architectures name a window in
    layers without one. Else by the module where it knows, or by the config for all layers.
    """
    config: Any = hf.config
    kinds = getattr(config, "layer_types", None)
    if getattr(attention, "attention_type", None) == "local":
        window = getattr(config, "window_size", None)
    elif kinds is not None and "sliding" not in kinds[layer]:
        window = None
    elif hasattr(attention, "sliding_window"):
        window = attention.sliding_window
    else:
        window = getattr(config, "sliding_window", None)
    return None if window is None else int(window)


def unseen(at: Tensor, length: int, window: int | None) -> Tensor:
    """Keys of a sequence that queries at positions `at` [...] do not see [..., source]."""
    sources, at = torch.arange(length, device=at.device), at[..., None]
    future = sources > at
    return future if window is None else future | (sources <= at - window)


# ---- private -------------------------------------------------------------------------------------


def _forms(
    hf: Any, attention: nn.Module, d_head: int, layer: int
) -> Iterator[tuple[Angles | None, Pairs, float]]:
    """Forms that the scores of a layer may have, the likeliest first: angles, pairs, scale."""
    scales = [d_head**-0.5, 1.0, d_head**-0.5 / (layer + 1), 1 / d_head]
    scaling = getattr(attention, "scaling", None)
    if isinstance(scaling, float):
        scales.insert(0, scaling)
    rotations: list[tuple[Angles | None, Pairs]] = []
    for angles in _angles(hf, attention):
        rotations += [(angles, "halves"), (angles, "adjacent")]
    rotations.append((None, "halves"))
    for turned, pairs in rotations:
        for scale in dict.fromkeys(scales):
            yield turned, pairs, scale


def _scores(q: Tensor, k: Tensor, angles: Angles | None, pairs: Pairs, scale: float) -> Tensor:
    """Scores [batch, head, destination, source] of q, k [batch, position, head, d_head]."""
    if angles is not None:
        turns = _rotations(*angles.table(q.shape[1]), pairs, q.shape[-1]).to(q)
        q, k = (torch.einsum("bthk,tkl->bthl", x, turns) for x in (q, k))
    return torch.einsum("bthk,bshk->bhts", q, k) * scale


def _angles(hf: Any, attention: nn.Module) -> list[Angles]:
    """Every table of angles that the model has."""
    if isinstance(getattr(attention, "embed_positions", None), Tensor):
        return [Angles(hf, attention, None)]
    rotary = getattr(hf.base_model, "rotary_emb", None)
    if rotary is None:
        return []
    if "layer_type" not in inspect.signature(rotary.forward).parameters:
        return [Angles(hf, attention, None)]
    kinds = dict.fromkeys(getattr(hf.config, "layer_types", None) or ())
    return [Angles(hf, attention, kind) for kind in kinds]


def _frequencies(table: Tensor) -> Tensor:
    """One column a frequency, of a table that may hold each twice, side by side or in halves."""
    width = table.shape[-1]
    if width % 2 == 0 and torch.equal(table[:, : width // 2], table[:, width // 2 :]):
        return table[:, : width // 2]
    if width % 2 == 0 and torch.equal(table[:, ::2], table[:, 1::2]):
        return table[:, ::2]
    return table


def _rotations(cos: Tensor, sin: Tensor, pairs: Pairs, d_head: int) -> Tensor:
    """Row a of [position] is basis vector a after rotation to that position."""
    count = cos.shape[-1]
    if 2 * count > d_head:
        raise ModelError(f"{count} rotary frequencies do not fit heads of width {d_head}")
    at = torch.arange(count, device=cos.device)
    first, second = (at, at + count) if pairs == "halves" else (2 * at, 2 * at + 1)
    turns = torch.eye(d_head, dtype=cos.dtype, device=cos.device).repeat(len(cos), 1, 1)
    turns[:, first, first], turns[:, first, second] = cos, sin
    turns[:, second, first], turns[:, second, second] = -sin, cos
    return turns
