"""Singular value decomposition of the query-key matrix Omega of every attention head.

Belongs here: Omega = [W_Q; b_Q][W_K; b_K]^T [d_model + 1, d_model + 1], its factored SVD, the
rotation of rotary position embeddings, and table attention_svd. Does not belong here: anything that
needs prompts (slices.py, trace.py).

Conventions: weights are processed (LayerNorm folded). x~ = [x / s; 1] is the normalised input with
a 1 appended, i the destination (query), j the source (key), and x~_i Omega x~_j = q_i . k_j before
the division by sqrt(d_head). With rotary embeddings Omega depends on the offset i - j:
Omega_offset = [W_Q; b_Q] M_offset [W_K; b_K]^T with M_offset = R_i^T R_j. One SVD serves all
offsets: with Omega_0 = U S V^T, sigma_k and v_k of an offset are the norm and the direction of
Omega_offset^T u_k, so that k means the same u_k at every offset, as in ACC++ (M_p at the key).

Source: Franco & Crovella 2024 (arXiv 2410.00340), section 3. The SVD goes through QR factors
(thin_qr.py) of rank d_head, so its cost is that of a d_head x d_head matrix.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.thin_qr import ThinFactors
from mechinterp_assets.model.capabilities import capabilities_of
from mechinterp_assets.model.identities import identities_of
from mechinterp_assets.model.language_model import LanguageModel

# Heads that one thread of omega_svd works on at a time.
_HEADS_AT_ONCE = 6
# Up to this condition the squared matrix gives singular vectors to 2e-16 * (1e3)^2 = 2e-10.
SQUARED_CONDITION = 1e3


@dataclass(frozen=True)
class OmegaSVD:
    """Omega = U diag(S) V^T per head, singular values descending.

    U, V [head, d_model + 1, rank] with orthonormal columns, S [head, rank], rank = min(d_head,
    d_model + 1). The sign of a pair (u_k, v_k) is a gauge: nothing computed from them in this
    package depends on it.
    """

    U: Tensor
    S: Tensor
    V: Tensor


@dataclass(frozen=True)
class OmegaFactors:
    """QR factors of the heads of one layer, float64; everything an SVD at any offset needs.

    Q_query, Q_key [head, d_model + 1, rank], orthonormal columns; R_query, R_key [head, rank,
    d_head].
    """

    Q_query: Tensor
    R_query: Tensor
    Q_key: Tensor
    R_key: Tensor

    @classmethod
    def of(cls, W_Q: Tensor, b_Q: Tensor, W_K: Tensor, b_K: Tensor) -> "OmegaFactors":
        """Factor W_Q [head, d_model, d_head], b_Q [head, d_head], W_K and b_K.

        W_K, b_K may have fewer heads (grouped-query attention): key head g serves the query heads
        g * n to (g + 1) * n - 1 and is factored once. Raises CircuitError for shapes that differ.
        """
        repeat = _queries_per_key(W_Q, b_Q, W_K, b_K)
        query = ThinFactors.of(_stacked(W_Q, b_Q))
        key = ThinFactors.of(_stacked(W_K, b_K))
        return cls(
            query.Q,
            query.R,
            key.Q.repeat_interleave(repeat, 0),
            key.R.repeat_interleave(repeat, 0),
        )

    def inner_svd(self, rotation: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """SVD of R_query M R_key^T: u [..., head, rank, rank], S [..., head, rank], v.

        rotation: M [offset, d_head, d_head] or None for the identity. U = Q_query u, V = Q_key v.
        """
        if rotation is None:
            core = self.R_query @ self.R_key.mT
        else:
            core = self.R_query @ rotation.to(self.R_query)[:, None] @ self.R_key.mT
        u, S, vt = _small_svd(core)
        return u, S, vt.mT


def omega_svd(
    W_Q: Tensor,
    b_Q: Tensor,
    W_K: Tensor,
    b_K: Tensor,
    *,
    rotation: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> OmegaSVD:
    """SVD of Omega for all heads at once; shapes, grouped keys and errors as OmegaFactors.of.

    rotation: M_offset [d_head, d_head] of one offset (rotary embeddings), or None. dtype: of the
    result, float64 or float32. Factors and the SVD are float64 either way; in float32 the last
    product alone is single precision. U and V are transposed views of row-wise storage.
    """
    if dtype not in (torch.float64, torch.float32):
        raise CircuitError(f"dtype is {dtype}; singular vectors come in float64 or float32")
    repeat = _queries_per_key(W_Q, b_Q, W_K, b_K)
    heads, d_model, d_head = W_Q.shape
    rank, device = min(d_head, d_model + 1), W_Q.device
    # Rows of U^T: numpy asks for huge pages, which a fresh array of this size is much quicker on.
    shape = (heads, rank, d_model + 1)
    name = "float64" if dtype == torch.float64 else "float32"
    rows = [torch.from_numpy(np.empty(shape, name)).to(device) for _ in range(2)]
    S = torch.empty(heads, rank, dtype=dtype, device=device)

    # A few heads at a time stay in the processor's cache, and threads share them out.
    step = max(1, _HEADS_AT_ONCE // repeat) if device.type == "cpu" else len(W_K)
    spans = [(start, min(start + step, len(W_K))) for start in range(0, len(W_K), step)]

    def work(spans: Sequence[tuple[int, int]]) -> None:
        sizes = (step * repeat, d_model + 1, d_head), (step, d_model + 1, d_head)
        room = [torch.empty(size, dtype=torch.float64, device=device) for size in sizes]
        for first, last in spans:
            queries, keys = slice(first * repeat, last * repeat), slice(first, last)
            query = ThinFactors.of(_stacked(W_Q[queries], b_Q[queries], room[0]))
            key = ThinFactors.of(_stacked(W_K[keys], b_K[keys], room[1]))
            turned = query.R if rotation is None else query.R @ rotation.to(query.R)
            u, S[queries], vt = _small_svd(turned @ key.R.repeat_interleave(repeat, 0).mT)
            left = (query.inverse @ u).mT.to(dtype)
            right = (vt @ key.inverse.repeat_interleave(repeat, 0).mT).to(dtype)
            for at in range((last - first) * repeat):
                of_query, of_key = query.basis[at].to(dtype), key.basis[at // repeat].to(dtype)
                torch.mm(left[at], of_query.mT, out=rows[0][queries][at])
                torch.mm(right[at], of_key.mT, out=rows[1][queries][at])

    workers = min(torch.get_num_threads(), len(spans)) if device.type == "cpu" else 1
    _on_threads(work, [spans[worker::workers] for worker in range(workers)])
    return OmegaSVD(rows[0].mT, S, rows[1].mT)


def _small_svd(core: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of core [..., rank, rank], float64: u, S descending and v^T.

    By eigenvectors of core^T core, in about half the time; they lose orthogonality by
    eps * condition^2, so matrices beyond SQUARED_CONDITION are left to the SVD itself.
    """
    _, v = torch.linalg.eigh(core.mT @ core)
    v = v.flip(-1)
    turned = core @ v
    S = turned.norm(dim=-2)
    S, order = S.sort(dim=-1, descending=True)
    columns = order[..., None, :].expand_as(v)
    v, turned = v.gather(-1, columns), turned.gather(-1, columns)
    u, vt = turned / S[..., None, :], v.mT.clone()
    ill = ~(S[..., -1] > S[..., 0] / SQUARED_CONDITION)
    if bool(ill.any()):
        u[ill], S[ill], vt[ill] = torch.linalg.svd(core[ill])
    return u, S, vt


def _on_threads(
    work: Callable[[Sequence[tuple[int, int]]], None], shares: Sequence[Sequence[tuple[int, int]]]
) -> None:
    """Call `work` on every share, each on a thread of its own that uses no further threads."""
    if len(shares) <= 1:
        for share in shares:
            work(share)
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(shares), initializer=lambda: torch.set_num_threads(1)) as pool:
            list(pool.map(work, shares))
    finally:
        # The initializer's setting reaches libraries that all threads share.
        torch.set_num_threads(before)


def _queries_per_key(W_Q: Tensor, b_Q: Tensor, W_K: Tensor, b_K: Tensor) -> int:
    """Query heads per key head; CircuitError for shapes that do not fit."""
    heads, key_heads = W_Q.shape[0], W_K.shape[0]
    fits = W_Q.ndim == 3 and W_K.shape[1:] == W_Q.shape[1:] and heads % max(key_heads, 1) == 0
    biases = b_Q.shape == (heads, W_Q.shape[-1]) and b_K.shape == (key_heads, W_Q.shape[-1])
    if not (fits and biases):
        raise CircuitError(
            f"W_Q {tuple(W_Q.shape)}, b_Q {tuple(b_Q.shape)}, W_K {tuple(W_K.shape)}, b_K "
            f"{tuple(b_K.shape)} do not fit; expected [head, d_model, d_head] "
            "and [head, d_head]"
        )
    return int(heads // max(key_heads, 1))


def _stacked(W: Tensor, b: Tensor, room: Tensor | None = None) -> Tensor:
    """[W; b] [head, d_model + 1, d_head], float64, written to `room` where that is given."""
    heads, d_model, d_head = W.shape
    if room is None:
        room = torch.empty(heads, d_model + 1, d_head, dtype=torch.float64, device=W.device)
    X = room[:heads]
    X[:, :-1], X[:, -1] = W, b
    return X


# ---- rotary position embeddings ------------------------------------------------------------------


def rotation_matrices(model: LanguageModel, layer: int, offsets: Sequence[int]) -> Tensor:
    """M_offset = R_i^T R_j of a layer, offset = i - j >= 0 [offset, d_head, d_head], float64.

    The angles are those that the layer's own attention uses; a layer without rotation has the
    identity. Embeddings that rotate only some dimensions of a head leave the rest alone. Raises
    CircuitError for offsets beyond the context.
    """
    if bad := [offset for offset in offsets if not 0 <= offset < model.config.n_ctx]:
        raise CircuitError(f"offsets {bad} are outside 0..{model.config.n_ctx - 1}")
    form = identities_of(model).attention[layer]
    # Row a of `rotated[p]` is basis vector a after rotation to position p, that is R_p^T.
    rotated = form.rotations(max(offsets) + 1, model.config.d_head)
    return rotated[list(offsets)] @ rotated[0].T


# ---- all heads of a model ------------------------------------------------------------------------


def omega_gap(model: LanguageModel) -> str | None:
    """Why a model's attention scores are not those of one Omega per head, None where they are."""
    reason = capabilities_of(model).of("query_key").reason
    return None if reason is None else f"{model.source} ({model.config.architecture}): {reason}"


class ModelOmega:
    """Factors and SVDs of a model's heads (processed weights, float64), computed once each.

    They live on the model's device, or on the CPU where the device has no float64 (MPS). What is
    kept of rotary models' offsets fits into `cache_bytes`, the rest is computed again.
    Raises CircuitError where scores are not those of one Omega per head (ALiBi, query-key norms,
    caps).
    """

    def __init__(self, model: LanguageModel, *, cache_bytes: int = 2**31) -> None:
        if (gap := omega_gap(model)) is not None:
            raise CircuitError(gap)
        self.model = model
        self.rotary = any(form.rotary for form in identities_of(model).attention)
        self.centred = model.config.normalization == "LN"
        self.device = torch.device("cpu") if model.device.type == "mps" else model.device
        self._cache_bytes = cache_bytes
        self._factors: dict[int, OmegaFactors] = {}
        self._inner: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def factors(self, layer: int) -> OmegaFactors:
        """QR factors of a layer's heads; key heads of a group are factored once."""
        if layer not in self._factors:
            weights, config = self.model.weights, self.model.config
            group = config.n_heads // config.n_kv_heads
            self._factors[layer] = OmegaFactors.of(
                weights.W_Q[layer].to(self.device),
                weights.b_Q[layer].to(self.device),
                weights.W_K[layer][::group].to(self.device),
                weights.b_K[layer][::group].to(self.device),
            )
        return self._factors[layer]

    def inner(self, layer: int, n_offsets: int) -> tuple[Tensor, Tensor, Tensor]:
        """u, S, v [offset, head, ...] of the inner SVD for offsets 0..n_offsets - 1.

        Without rotary embeddings there is one for all offsets: the first dimension is 1. With them
        u is that of offset 0, repeated, and u S v^T is the matrix of each offset; columns of v have
        length 1, are orthogonal at offset 0 alone, and S descends at offset 0 alone.
        """
        wanted = n_offsets if self.rotary else 1
        cached = self._inner.get(layer)
        if cached is not None and len(cached[1]) >= wanted:
            return cached
        self._inner.pop(layer, None)
        factors = self.factors(layer)
        u, S, v = (part[None] for part in factors.inner_svd())
        if self.rotary:
            turns = rotation_matrices(self.model, layer, range(wanted)).to(factors.R_query)
            turned = factors.R_key @ turns[:, None].mT @ (factors.R_query.mT @ u)
            S = turned.norm(dim=-2)
            v = turned / S.clamp(min=torch.finfo(torch.float64).tiny)[..., None, :]
            u = u.expand(wanted, *u.shape[1:])
        inner = (u, S, v)
        held = sum(3 * tensors[0].nbytes for tensors in self._inner.values())
        if held + 3 * u.nbytes <= self._cache_bytes:
            self._inner[layer] = inner
        return inner

    def vectors(self, layer: int, head: int, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """U [d_model + 1, rank], S [rank], V of one head, signs as the inner SVD gives them.

        Indices k are those of `slices` in tables attention_slices and trace_edges.
        `offset` = destination - source matters for rotary models alone: S and V are then as
        `inner` says.
        """
        u, S, v = self.inner(layer, offset + 1)
        at = offset if self.rotary else 0
        factors = self.factors(layer)
        return factors.Q_query[head] @ u[at, head], S[at, head], factors.Q_key[head] @ v[at, head]


def attention_svd(
    model: LanguageModel, offsets: Sequence[int] = (0, 1, 2, 4, 8, 16)
) -> pl.DataFrame:
    """Table attention_svd: singular values of Omega per layer, head and k (processed weights).

    offsets: for rotary models; other models have one Omega per head and rope_offset NULL.
    """
    omega = ModelOmega(model)
    frames: list[pl.DataFrame] = []
    for layer in range(model.config.n_layers):
        rotation = rotation_matrices(model, layer, offsets) if omega.rotary else None
        S = omega.factors(layer).inner_svd(rotation)[1].cpu().numpy()
        S = S if omega.rotary else S[None]
        at, head, k = np.indices(S.shape).reshape(3, -1)
        energy = S**2
        total = np.maximum(energy.sum(-1, keepdims=True), np.finfo(float).tiny)
        frames.append(
            pl.DataFrame(
                {
                    "layer": np.full(S.size, layer),
                    "head": head,
                    "slice": k,
                    "rope_offset": np.asarray(list(offsets))[at]
                    if omega.rotary
                    else [None] * S.size,
                    "singular_value": S.ravel(),
                    "energy_share": (energy / total).ravel(),
                    "cumulative_energy": (energy.cumsum(-1) / total).ravel(),
                },
                schema_overrides={
                    "layer": pl.Int32(),
                    "head": pl.Int32(),
                    "slice": pl.Int32(),
                    "rope_offset": pl.Int32(),
                },
            )
        )
    return pl.concat(frames)
