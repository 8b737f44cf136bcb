"""Triton kernels behind sparse_ops.py and the optimiser, for CUDA devices.

Belongs here: kernels and their launches, as functions of tensors. Does not belong here: when they
are used (sparse_ops.py, steps.py). Imported only where triton is installed.

One program works on one row, or on one feature; each sum runs in one program in a fixed order, so
that there are no atomic adds and the same inputs give the same bits. Tensors are contiguous.
With TRITON_INTERPRET=1 the kernels run on CPU tensors, slowly: that is how tests without a GPU
check them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# A row of a top-k lies in registers: wider ones are left to torch.
WIDEST_ROW = 65536
# Table rows read at a time by one program, so that several loads are under way at once.
GATHERED = 8


@triton.jit
def _ordered(x):
    """int32 in the order of float32 x, NaN of either sign above all."""
    bits = x.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, 0x7FFFFFFF, key)


@triton.jit
def _pre_activations(pre, bias, row, column, width, HAS_BIAS: tl.constexpr):
    inside = column < width
    x = tl.load(pre + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        x += tl.load(bias + column, mask=inside, other=0.0)
    return x


@triton.jit
def _topk_kernel(
    pre,
    bias,
    values,
    features,
    width,
    k,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    key = _ordered(_pre_activations(pre, bias, row, column, width, HAS_BIAS))
    key = tl.where(inside, key, -0x80000000)
    # bisection for a bar that exactly k keys reach, or the k-th largest key where ties forbid that
    high = tl.max(key, axis=0)
    low = tl.min(tl.where(inside, key, 0x7FFFFFFF), axis=0)
    while low < high:
        # the mean rounded up, which cannot overflow
        middle = (low | high) - ((low ^ high) >> 1)
        count = tl.sum((key >= middle).to(tl.int32), axis=0)
        if count >= k:
            low = middle
        else:
            high = middle - 1
        if count == k:
            high = middle
    # write what lies above the bar, and of those on it the first; the row is read once more, chunk
    # by chunk, because the scans would not fit in registers beside all of it
    room = k - tl.sum((key > low).to(tl.int32), axis=0)
    n_taken = 0
    n_equal = 0
    for start in range(0, width, CHUNK):
        here = start + tl.arange(0, CHUNK)
        x = _pre_activations(pre, bias, row, here, width, HAS_BIAS)
        part = _ordered(x)
        equal = ((part == low) & (here < width)).to(tl.int32)
        first = tl.cumsum(equal, axis=0) + n_equal <= room
        taken = ((part > low) & (here < width)) | ((equal > 0) & first)
        place = tl.cumsum(taken.to(tl.int32), axis=0) - 1 + n_taken
        tl.store(values + row * k + place, x, mask=taken)
        tl.store(features + row * k + place, here.to(tl.int64), mask=taken)
        n_taken += tl.sum(taken.to(tl.int32), axis=0)
        n_equal += tl.sum(equal, axis=0)


def topk_rows(pre: Tensor, k: int, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre [n, width] (+ bias [width]), ascending by feature.

    Values [n, k] float32, features [n, k] int64. Of equal values those of lower index are kept.
    """
    n, width = pre.shape
    values = torch.empty(n, k, dtype=torch.float32, device=pre.device)
    features = torch.empty(n, k, dtype=torch.int64, device=pre.device)
    block = triton.next_power_of_2(width)
    _topk_kernel[(n,)](
        pre,
        pre if bias is None else bias,
        values,
        features,
        width,
        k,
        HAS_BIAS=bias is not None,
        BLOCK=block,
        CHUNK=min(block, 4096),
        num_warps=min(32, max(4, block // 1024)),
    )
    return values, features


@triton.jit
def _reconstruct_kernel(
    features,
    values,
    decoder,
    b_dec,
    x,
    residual,
    dots,
    k,
    d,
    SUBTRACT: tl.constexpr,
    DOT: tl.constexpr,
    GATHERED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d
    offset = tl.arange(0, GATHERED)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, k, GATHERED):
        entry = start + offset
        used = entry < k
        feature = tl.load(features + row * k + entry, mask=used, other=0)
        value = tl.load(values + row * k + entry, mask=used, other=0.0)
        both = used[:, None] & inside[None, :]
        direction = tl.load(decoder + feature[:, None] * d + column[None, :], mask=both, other=0.0)
        total += tl.sum(value[:, None] * direction.to(tl.float32), axis=0)
    if SUBTRACT:
        total += tl.load(b_dec + column, mask=inside, other=0.0)
        total -= tl.load(x + row * d + column, mask=inside, other=0.0)
    tl.store(residual + row * d + column, total, mask=inside)
    if DOT:
        for start in range(0, k, GATHERED):
            entry = start + offset
            used = entry < k
            feature = tl.load(features + row * k + entry, mask=used, other=0)
            both = used[:, None] & inside[None, :]
            direction = tl.load(
                decoder + feature[:, None] * d + column[None, :], mask=both, other=0.0
            )
            dot = tl.sum(total[None, :] * direction.to(tl.float32), axis=1)
            tl.store(dots + row * k + entry, dot, mask=used)


def decode(features: Tensor, values: Tensor, decoder: Tensor) -> Tensor:
    """sum_j values[n, j] decoder[features[n, j]]: [n, d] float32."""
    residual = torch.empty(
        len(features), decoder.shape[1], dtype=torch.float32, device=decoder.device
    )
    _launch_reconstruct(features, values, decoder, values, values, residual, values, False, False)
    return residual


def reconstruct(
    features: Tensor, values: Tensor, decoder: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """decode + b_dec - x [n, d], and its product with each entry's decoder row [n, k]."""
    residual, dots = torch.empty_like(x), torch.empty_like(values)
    _launch_reconstruct(features, values, decoder, b_dec, x, residual, dots, True, True)
    return residual, dots


def _launch_reconstruct(
    features: Tensor,
    values: Tensor,
    decoder: Tensor,
    b_dec: Tensor,
    x: Tensor,
    residual: Tensor,
    dots: Tensor,
    subtract: bool,
    dot: bool,
) -> None:
    n, k = features.shape
    d = decoder.shape[1]
    _reconstruct_kernel[(n,)](
        features,
        values,
        decoder,
        b_dec,
        x,
        residual,
        dots,
        k,
        d,
        SUBTRACT=subtract,
        DOT=dot,
        GATHERED=GATHERED,
        BLOCK=triton.next_power_of_2(d),
        num_warps=4,
    )


@triton.jit
def _weighted_rows_kernel(
    order,
    starts,
    entry_rows,
    weights,
    rows,
    out,
    scale,
    d,
    GATHERED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    feature = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d
    offset = tl.arange(0, GATHERED)
    begin = tl.load(starts + feature)
    end = tl.load(starts + feature + 1)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(begin, end, GATHERED):
        place = start + offset
        used = place < end
        entry = tl.load(order + place, mask=used, other=0)
        row = tl.load(entry_rows + entry, mask=used, other=0)
        weight = tl.load(weights + entry, mask=used, other=0.0)
        both = used[:, None] & inside[None, :]
        here = tl.load(rows + row[:, None] * d + column[None, :], mask=both, other=0.0)
        total += tl.sum(weight[:, None] * here.to(tl.float32), axis=0)
    tl.store(out + feature * d + column, scale * total, mask=inside)


def weighted_rows(
    order: Tensor,
    starts: Tensor,
    entry_rows: Tensor,
    weights: Tensor,
    rows: Tensor,
    scale: float,
    out: Tensor,
) -> None:
    """out[feature] = scale * sum over its entries of weights times rows[row of the entry].

    order [m]: entries by feature; starts [d_sae + 1]: where each feature's begin in it.
    """
    d = rows.shape[1]
    _weighted_rows_kernel[(len(starts) - 1,)](
        order,
        starts,
        entry_rows,
        weights,
        rows,
        out,
        scale,
        d,
        GATHERED=GATHERED,
        BLOCK=triton.next_power_of_2(d),
        num_warps=4,
    )


@triton.jit
def _adam_kernel(
    parameter,
    gradient,
    mean,
    square,
    d,
    lr,
    beta1,
    beta2,
    correction1,
    correction2,
    eps,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d
    at = row * d + column
    p = tl.load(parameter + at, mask=inside, other=0.0)
    g = tl.load(gradient + at, mask=inside, other=0.0)
    if UNIT:
        g -= tl.sum(g * p, axis=0) * p
        tl.store(gradient + at, g, mask=inside)
    m = tl.load(mean + at, mask=inside, other=0.0)
    v = tl.load(square + at, mask=inside, other=0.0)
    m += (1 - beta1) * (g - m)
    v = beta2 * v + (1 - beta2) * g * g
    p -= (lr / correction1) * m / (tl.sqrt(v) / correction2 + eps)
    if UNIT:
        p /= tl.sqrt(tl.sum(p * p, axis=0))
    tl.store(parameter + at, p, mask=inside)
    tl.store(mean + at, m, mask=inside)
    tl.store(square + at, v, mask=inside)


def adam_rows(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    unit: bool,
) -> None:
    """One Adam step (the step-th, from 1) on parameter [rows, d], with its moments, in one pass.

    unit: the gradient loses its part along each (unit) row first, and rows are unit again after.
    """
    rows, d = parameter.shape
    _adam_kernel[(rows,)](
        parameter,
        gradient,
        mean,
        square,
        d,
        lr,
        betas[0],
        betas[1],
        1 - betas[0] ** step,
        (1 - betas[1] ** step) ** 0.5,
        eps,
        UNIT=unit,
        BLOCK=triton.next_power_of_2(d),
        num_warps=4,
    )
