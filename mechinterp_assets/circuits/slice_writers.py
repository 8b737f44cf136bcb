"""What every upstream head contributes to single pairs, through S and through all slices.

Belongs here: table attention_slice_writers. Does not belong here: the same of all pairs, as numbers
(trace.py, table attention_slice_contrast), and what is kept of it (trace_edges).

Of each of the most frequent traced nodes (head and pair of roles) the pair with the median score is
taken. A head that wrote o at the pair's destination i, or at its source j, contributes
  destination  sum over k of e_k sqrt(sigma_k) u_k . o_i / s_i
  source       sum over k of e_k sqrt(sigma_k) v_k . o_j / s_j
with k over S, or over all slices (equation 8), s the scale of the normalisation and e_k =
sign(u_k . x_i). Under the rule relative, S is that rule's; what was written at other sources, which
it subtracts, is not in these rows.

Source: Franco & Crovella 2024 (arXiv 2410.00340), Figures 4 and 16; which pairs, is this project's.
"""

from typing import Any

import polars as pl
import torch

from mechinterp_assets.circuits.consensus import NODE
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.residual import residual_stream
from mechinterp_assets.circuits.slices import SIDES
from mechinterp_assets.model.language_model import LanguageModel

# What is read of attention_slices.
PAIR_COLUMNS = (
    *("prompt", *NODE, "destination", "source"),
    *("slices", "attention_score", "path_multiplicity"),
)
WRITERS_SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "destination_role": pl.String(),
    "source_role": pl.String(),
    "prompt": pl.Int64(),
    "destination": pl.Int32(),
    "source": pl.Int32(),
    "side": pl.String(),
    "upstream_layer": pl.Int32(),
    "upstream_head": pl.Int32(),
    "contribution": pl.Float64(),
    "contribution_all_slices": pl.Float64(),
}


def slice_writers(
    model: LanguageModel,
    prompts: pl.DataFrame,
    slices: pl.DataFrame,
    *,
    n_nodes: int = 6,
    omega: ModelOmega | None = None,
) -> pl.DataFrame:
    """Table attention_slice_writers; slices: PAIR_COLUMNS of a trace of `prompts`.

    n_nodes: how many nodes, those traced in most prompts; heads of layer 0 have no upstream heads.
    """
    omega = omega or ModelOmega(model)
    frames = [
        _pair_frame(model, prompts, pair, omega)
        for pair in _typical_pairs(slices, n_nodes).iter_rows(named=True)
    ]
    return pl.concat([pl.DataFrame(schema=WRITERS_SCHEMA), *frames])


def _typical_pairs(slices: pl.DataFrame, n_nodes: int) -> pl.DataFrame:
    """The traced pair with the median score of each of the most frequent nodes."""
    traced = slices.filter((pl.col("path_multiplicity") > 0) & (pl.col("layer") > 0))
    counts = traced.group_by(*NODE).agg(pl.col("prompt").n_unique().alias("n_prompts"))
    nodes = counts.sort("n_prompts", *NODE, descending=[True, *[False] * 4]).head(n_nodes)
    in_order = traced.sort("attention_score", "prompt", "destination", "source")
    middle = pl.int_range(pl.len()).over(*NODE) == (pl.len().over(*NODE) - 1) // 2
    return nodes.join(in_order.filter(middle), on=NODE, how="left", maintain_order="left")


@torch.no_grad()
def _pair_frame(
    model: LanguageModel, prompts: pl.DataFrame, pair: dict[str, Any], omega: ModelOmega
) -> pl.DataFrame:
    """Rows of one pair: both sides, every head of the layers before."""
    layer, head, i, j = (pair[name] for name in ("layer", "head", "destination", "source"))
    ids = torch.tensor(prompts.filter(prompt=pair["prompt"])["token_ids"].to_list())
    stream = residual_stream(model, ids, layer + 1, device=omega.device)
    U = omega.vectors(layer, head)[0]
    _, sigma, V = omega.vectors(layer, head, i - j)
    x = stream.normalised(layer)[0, i]
    sign = torch.where(x @ U[:-1] + U[-1] < 0, -1.0, 1.0).to(U)
    chosen = torch.zeros_like(sign)
    chosen[torch.tensor(pair["slices"], dtype=torch.long, device=chosen.device)] = 1
    is_head = torch.from_numpy(stream.writers.is_head(layer)).to(U.device)
    before = stream.writers.before(layer)
    parts = []
    for side, position, vectors in zip(SIDES, (i, j), (U, V), strict=True):
        outputs = stream.outputs[0, position, :before][is_head].to(U)
        outputs = outputs - outputs.mean(-1, keepdim=True) if omega.centred else outputs
        terms = (outputs @ vectors[:-1]) * (sign * sigma.sqrt()) / stream.scale(layer)[0, position]
        parts.append(
            pl.DataFrame(
                {
                    **{name: pair[name] for name in (*NODE, "prompt", "destination", "source")},
                    "side": side,
                    "upstream_layer": stream.writers.layer[:before][is_head.cpu().numpy()],
                    "upstream_head": stream.writers.head[:before][is_head.cpu().numpy()],
                    "contribution": (terms @ chosen).cpu().numpy(),
                    "contribution_all_slices": terms.sum(-1).cpu().numpy(),
                }
            ).cast(pl.Schema(WRITERS_SCHEMA))
        )
    return pl.concat(parts)
