"""Sums over the few active features of each row: top-k, sparse decode, and its backward.

Belongs here: the operations every sparse architecture's step is made of, as functions of tensors,
and which of three routes runs them. Does not belong here: a loss or its gradient (the
architectures' files), the kernels themselves.

Routes: plain torch (any device and dtype), compiled kernels (cpu_kernels.py; float32 on a CPU) and
Triton kernels (gpu_kernels.py; float32 on a CUDA device). All agree up to the rounding of sums.

Entries come in two forms. Rectangular: features [n, k] and values [n, k], k entries a row (TopK).
Ragged: rows [m], features [m] and values [m] with rows ascending, any number a row (BatchTopK).
All sums run in a fixed order, so that the same inputs give the same bits in every run; on a CPU
they do not depend on the number of threads either.
"""

import functools
import importlib
import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mechinterp_assets.sae.cpu_kernels import kernels

# Decoder entries gathered at a time: within the caches of a CPU, few launches on a GPU.
GATHERED_CPU, GATHERED_GPU = 2**20, 2**26
KERNEL_DTYPES = (torch.float32, torch.bfloat16)  # of a top-k; all else wants float32


def compiled(*tensors: Tensor) -> Any | None:
    """The compiled CPU kernels, where there are any and they can take these tensors."""
    if all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors):
        return kernels()
    return None


def on_cuda(*tensors: Tensor) -> Any | None:
    """The Triton kernels, where there are any and they can take these tensors."""
    if all(t.device.type == "cuda" and t.dtype == torch.float32 for t in tensors):
        return triton_kernels()
    return None


@functools.cache
def triton_kernels() -> Any | None:
    """The module gpu_kernels, where triton is installed."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("mechinterp_assets.sae.gpu_kernels")


def topk_rows(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre [n, d_sae]: values [n, k] and features [n, k] int64.

    In no particular order; which of several equal values is kept at the edge is not specified.
    NaN counts as the largest value. Values have the dtype of pre.
    """
    cpu = kernels() if pre.device.type == "cpu" and pre.dtype in KERNEL_DTYPES else None
    if cpu is not None and len(pre):
        values, features = cpu.topk_rows(pre.contiguous(), k)
        return values.to(pre.dtype), features
    gpu = triton_kernels() if pre.device.type == "cuda" and pre.dtype in KERNEL_DTYPES else None
    if gpu is not None and len(pre) and pre.shape[1] <= gpu.WIDEST_ROW:
        values, features = gpu.topk_rows(pre.contiguous(), k)
        return values.to(pre.dtype), features
    values, features = pre.topk(k, dim=-1, sorted=False)
    return values, features


def topk_encode(
    centred: Tensor, encoder: Tensor, b_enc: Tensor, k: int, *, rounded: bool = False
) -> tuple[Tensor, Tensor] | None:
    """topk_rows(centred @ encoder.T + b_enc, k) without the float32 GEMM; None where it can't be.

    centred [n, d], encoder [d_sae, d], b_enc [d_sae], all float32. On a CPU whose bfloat16 products
    are fast, a bfloat16 GEMM finds the features that can be among the k largest, with a bound on
    its rounding error that no input exceeds; those alone are computed in float32. The choice and
    the values are those of the float32 GEMM (up to the order of its sums), at about half its cost.
    On a CUDA device, where `rounded` allows it, choice and values are those of the bfloat16 GEMM,
    with b_enc added in float32.
    """
    cpu = compiled(centred, encoder, b_enc)
    if cpu is not None and (products := rounded_products(centred, encoder)) is not None:
        values, features, _ = cpu.topk_refined(*products, b_enc, k)
        return values, features
    gpu = on_cuda(centred, encoder, b_enc) if rounded else None
    if gpu is not None and len(centred) and len(encoder) <= gpu.WIDEST_ROW:
        low = torch.mm(centred.bfloat16(), encoder.bfloat16().T)
        values, features = gpu.topk_rows(low, k, b_enc)
        return values, features
    return None


def rounded_products(centred: Tensor, encoder: Tensor) -> tuple[Tensor, ...] | None:
    """What the compiled kernels need to bound centred @ encoder.T [n, d_sae]; None where slow.

    The product of bfloat16 copies; then, of centred and of encoder, the float32 tensor, the norm of
    each row and the norm of what rounding took from it.
    """
    cpu = compiled(centred, encoder)
    if cpu is None or not _fast_bfloat16() or len(centred) == 0:
        return None
    low, norms, errors = cpu.round_rows(centred)
    low_encoder, encoder_norms, encoder_errors = cpu.round_rows(encoder)
    products = torch.mm(low, low_encoder.T)
    return products, centred, norms, errors, encoder, encoder_norms, encoder_errors


def sparse_decode(features: Tensor, values: Tensor, decoder: Tensor) -> Tensor:
    """sum_j values[n, j] decoder[features[n, j]]: [n, d]; entries [n, k], decoder [d_sae, d]."""
    if (cpu := compiled(values, decoder)) is not None:
        return _tensor(cpu.decode(_every(features), features.flatten(), values.flatten(), decoder))
    if (gpu := on_cuda(values, decoder)) is not None and len(values):
        return _tensor(gpu.decode(features, values, decoder))
    return F.embedding_bag(features, decoder, per_sample_weights=values, mode="sum")


def sparse_decode_ragged(
    rows: Tensor, features: Tensor, values: Tensor, decoder: Tensor, n: int
) -> Tensor:
    """The same from ragged entries [m], rows ascending below n: [n, d]; empty rows give 0."""
    starts = _starts(rows, n)
    if (cpu := compiled(values, decoder)) is not None:
        return _tensor(cpu.decode(starts, features.contiguous(), values.contiguous(), decoder))
    return _bags(features, decoder, starts, values)


def gathered_dot(residual: Tensor, decoder: Tensor, features: Tensor) -> Tensor:
    """residual[n] . decoder[features[n, j]]: [n, k] from residual [n, d], decoder [d_sae, d]."""
    n, k = features.shape
    if (cpu := compiled(residual, decoder)) is not None:
        dots = cpu.dots(_every(features), features.flatten(), decoder, residual.contiguous())
        return _tensor(dots).view(n, k)
    d = residual.shape[1]
    chunk = max(1, _gathered(residual) // max(1, k * d))
    out = torch.empty(n, k, dtype=residual.dtype, device=residual.device)
    for start in range(0, n, chunk):
        here = slice(start, start + chunk)
        directions = decoder.index_select(0, features[here].flatten()).view(-1, k, d)
        torch.bmm(directions, residual[here].unsqueeze(-1), out=out[here].unsqueeze(-1))
    return out


def gathered_dot_ragged(
    residual: Tensor, decoder: Tensor, rows: Tensor, features: Tensor
) -> Tensor:
    """residual[rows[m]] . decoder[features[m]]: [m] from ragged entries [m], rows ascending."""
    if (cpu := compiled(residual, decoder)) is not None:
        starts = _starts(rows, len(residual))
        return _tensor(cpu.dots(starts, features.contiguous(), decoder, residual.contiguous()))
    chunk = max(1, _gathered(residual) // residual.shape[1])
    out = torch.empty(len(rows), dtype=residual.dtype, device=residual.device)
    for start in range(0, len(rows), chunk):
        here = slice(start, start + chunk)
        torch.linalg.vecdot(
            residual.index_select(0, rows[here]),
            decoder.index_select(0, features[here]),
            out=out[here],
        )
    return out


def reconstruct(
    features: Tensor, values: Tensor, decoder: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Residual x_hat - x [n, d] of entries [n, k], and its product with each entry's direction.

    x_hat = sparse_decode + b_dec; the second result is gathered_dot(residual, decoder, features).
    """
    if (cpu := compiled(values, decoder, b_dec, x)) is not None:
        residual, dots = cpu.reconstruct(
            _every(features), features.flatten(), values.flatten(), decoder, b_dec, x.contiguous()
        )
        return residual, dots.view(features.shape)
    if (gpu := on_cuda(values, decoder, b_dec, x)) is not None and len(x):
        residual, dots = gpu.reconstruct(features, values, decoder, b_dec, x)
        return residual, dots
    residual = sparse_decode(features, values, decoder).add_(b_dec).sub_(x)
    return residual, gathered_dot(residual, decoder, features)


def reconstruct_ragged(
    rows: Tensor, features: Tensor, values: Tensor, decoder: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """The same from ragged entries [m], rows ascending: residual [n, d] and products [m]."""
    if (cpu := compiled(values, decoder, b_dec, x)) is not None:
        starts = _starts(rows, len(x))
        residual, dots = cpu.reconstruct(
            starts, features.contiguous(), values.contiguous(), decoder, b_dec, x.contiguous()
        )
        return residual, dots
    residual = sparse_decode_ragged(rows, features, values, decoder, len(x)).add_(b_dec).sub_(x)
    return residual, gathered_dot_ragged(residual, decoder, rows, features)


class EntriesByFeature:
    """The entries of a batch grouped by feature, for sums over each feature's rows.

    Without kernels, embedding_bag does the sparse [d_sae, n] by dense [n, d] product: on a CPU
    several times faster than a CSR matrix, and the same in every run (no atomic adds).
    """

    def __init__(self, features: Tensor, d_sae: int, rows: Tensor | None = None) -> None:
        """features [n, k]; or ragged features [m] with their rows [m]."""
        flat = features.flatten()
        if rows is None:
            rows = torch.arange(len(flat), device=flat.device) // features.shape[1]
        self._rows = rows.contiguous()
        cpu = kernels() if flat.device.type == "cpu" else None
        if cpu is not None:
            self._order, self._starts = cpu.group_by_feature(flat, d_sae)
        else:
            # searching the sorted features for each start, unlike counting, waits for no GPU
            grouped, self._order = torch.sort(flat, stable=True)
            every = torch.arange(d_sae + 1, device=flat.device)
            self._starts = torch.searchsorted(grouped, every)

    def weighted_rows(
        self, weights: Tensor, rows: Tensor, scale: float = 1.0, out: Tensor | None = None
    ) -> Tensor:
        """scale times the sum over a feature's entries of weights times rows [n, d]: [d_sae, d].

        weights [n, k] or [m]; written to `out` where given.
        """
        if out is None:
            out = rows.new_empty(len(self._starts) - 1, rows.shape[1])
        flat, rows = weights.flatten(), rows.contiguous()
        if (cpu := compiled(flat, rows, out)) is not None:
            cpu.weighted_rows(self._order, self._starts, self._rows, flat, rows, scale, out)
            return out
        if (gpu := on_cuda(flat, rows, out)) is not None:
            gpu.weighted_rows(self._order, self._starts, self._rows, flat, rows, scale, out)
            return out
        grouped = flat[self._order] if scale == 1 else flat[self._order].mul_(scale)
        return out.copy_(_bags(self._rows[self._order], rows, self._starts, grouped))

    def sums(self, weights: Tensor) -> Tensor:
        """sum over the entries of a feature of weights [n, k] or [m]: [d_sae]."""
        flat = weights.flatten()
        if (cpu := compiled(flat)) is not None:
            return _tensor(cpu.sums(self._order, self._starts, flat))
        ones = flat.new_ones(len(flat), 1)
        everything = torch.arange(len(flat), device=flat.device)
        return _bags(everything, ones, self._starts, flat[self._order]).squeeze(1)


# ---- private -------------------------------------------------------------------------------------


@functools.cache
def _fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware."""
    try:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    except AttributeError:
        return False


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _gathered(like: Tensor) -> int:
    return GATHERED_CPU if like.device.type == "cpu" else GATHERED_GPU


def _every(features: Tensor) -> Tensor:
    """Where the entries of each row of features [n, k] start, and where the last ends: [n + 1]."""
    n, k = features.shape
    return torch.arange(n + 1, device=features.device) * k


def _starts(rows: Tensor, n: int) -> Tensor:
    """Where each row's entries start, and where the last ends: [n + 1], from rows [m] ascending."""
    return torch.searchsorted(rows.contiguous(), torch.arange(n + 1, device=rows.device))


def _bags(index: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of table rows, a bag from each start to the next; no entries give zeros."""
    if len(index) == 0:
        return table.new_zeros(len(starts) - 1, table.shape[1])
    return F.embedding_bag(
        index, table, starts, per_sample_weights=weights, mode="sum", include_last_offset=True
    )
