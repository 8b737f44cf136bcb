"""ReLU of a batch of pre-activations and its backward: dense in one pass, or as its few entries.

Belongs here: elementwise work on [n, d_sae] that a step would otherwise do in several passes over
memory, and finding the positive entries. Does not belong here: sums over entries (sparse_ops.py).
Each function has its plain torch path; entries are ragged, as in sparse_ops.py.
"""

import torch
from torch import Tensor

from mechinterp_assets.sae.sparse_ops import compiled, rounded_products

# Share of positive entries below which sums over entries are faster than dense GEMMs (measured at
# 768 x 6144), the rows it is guessed from, and the least batch that is worth the guess.
SPARSE_DENSITY, SAMPLED_ROWS, LEAST_ROWS = 0.1, 64, 1024


def relu_sums_(pre: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU of pre [n, d_sae] in place; column sums [d_sae] and the number of positive entries."""
    if (cpu := compiled(pre)) is not None:
        sums, n_active = cpu.relu_sums(pre)
        return sums, n_active
    pre.relu_()
    return pre.sum(0), torch.count_nonzero(pre)


def relu_backward_sums_(g: Tensor, f: Tensor, scale: float, added: float) -> Tensor:
    """g [n, d_sae] becomes scale * g + added where f > 0 and 0 elsewhere; column sums [d_sae]."""
    if (cpu := compiled(g, f)) is not None:
        sums: Tensor = cpu.relu_backward_sums(g, f, scale, added)
        return sums
    g.mul_(scale).add_(added).masked_fill_(f == 0, 0)
    return g.sum(0)


def few_positive(centred: Tensor, encoder: Tensor, b_enc: Tensor) -> bool:
    """Whether so few entries of centred @ encoder.T + b_enc are positive that a CPU is faster with
    those alone than with dense GEMMs.

    Guessed from a few rows; depends on the arguments alone, so that runs repeat.
    """
    n = len(centred)
    if n < LEAST_ROWS or compiled(centred, encoder, b_enc) is None:
        return False
    sample = torch.addmm(b_enc, centred[:: n // SAMPLED_ROWS], encoder.T)
    return int((sample > 0).sum()) < SPARSE_DENSITY * sample.numel()


def positive_entries(pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, features (int64) and values of the positive entries of pre [n, d_sae], in that order.

    NaN is among them.
    """
    if (cpu := compiled(pre)) is not None:
        return _with_rows(*cpu.positive_entries(pre.contiguous()))
    rows, features = (~(pre <= 0)).nonzero(as_tuple=True)
    return rows, features, pre[rows, features]


def positive_encode(
    centred: Tensor, encoder: Tensor, b_enc: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """positive_entries(centred @ encoder.T + b_enc): from centred [n, d], encoder [d_sae, d].

    Where a bfloat16 GEMM is fast it finds what can be positive, and that alone is computed in
    float32, as in sparse_ops.topk_encode.
    """
    cpu = compiled(centred, encoder, b_enc)
    if cpu is None or (products := rounded_products(centred, encoder)) is None:
        return positive_entries(torch.addmm(b_enc, centred, encoder.T))
    return _with_rows(*cpu.positive_refined(*products, b_enc))


def _with_rows(starts: Tensor, features: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = torch.arange(len(starts) - 1, device=starts.device)
    return rows.repeat_interleave(starts.diff()), features, values
