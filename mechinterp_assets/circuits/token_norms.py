"""How much of each token lies in the subspace that a traced node's key reads: names against others.

Belongs here: table attention_token_norms. Does not belong here: the subspace, and signals with a
sign and scale (consensus.py).

For a node (head and pair of roles) with consensus slices C, a token at position p has the norm
|V_C^T x~_p|, x~_p its normalised input with a 1 appended, V_C the right singular vectors of Omega
in C, which are orthonormal: the length of x~_p's projection on their span. For rotary models V is
that of offset 0, so that one subspace serves all positions.

Source: Franco & Crovella 2024 (arXiv 2410.00340), Figure 9, whose published code drops the last
coordinate of the projection and takes the slices selected in at least 100 prompts as C.
"""

import numpy as np
import polars as pl
import torch

from mechinterp_assets.circuits.consensus import NODE, normalised_inputs
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.roles import position_roles

NORMS_SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "destination_role": pl.String(),
    "source_role": pl.String(),
    "token_id": pl.Int32(),
    "n_dimensions": pl.Int32(),
    "at_source": pl.Boolean(),
    "n": pl.Int64(),
    "mean_projection": pl.Float64(),
    "sd_projection": pl.Float64(),
}


def token_norms(
    model: LanguageModel,
    prompts: pl.DataFrame,
    consensus: pl.DataFrame,
    *,
    omega: ModelOmega | None = None,
) -> pl.DataFrame:
    """Table attention_token_norms: every token of the prompts, for the nodes of `consensus`.

    consensus: attention_consensus of these prompts; nodes without a slice in it have no rows.
    """
    omega = omega or ModelOmega(model)
    agreed = consensus.filter("in_consensus").group_by(*NODE, maintain_order=True)
    nodes = {tuple(row[:-1]): row[-1] for row in agreed.agg("slice").iter_rows()}
    if not nodes:
        return pl.DataFrame(schema=NORMS_SCHEMA)
    # [token, (n, sum, sum of squares)] per node, and which tokens stand at its source role.
    size = 1 + max(max(ids) for ids in prompts["token_ids"].to_list())
    sums = {node: np.zeros((size, 3)) for node in nodes}
    sources = {node: np.zeros(size, dtype=bool) for node in nodes}
    layers = sorted({int(node[0]) for node in nodes})
    for group, inputs in normalised_inputs(model, prompts, layers, omega):
        ids = np.array(group["token_ids"].to_list())
        names = np.array(position_roles(group, after_bos=model.bos.prepended))
        for node, slices in nodes.items():
            V = omega.vectors(int(node[0]), int(node[1]))[2]
            columns = V[:, torch.tensor(slices, device=V.device)]
            values = (inputs[int(node[0])] @ columns[:-1] + columns[-1]).norm(dim=-1)
            norms = values.cpu().numpy().ravel()
            for at, weights in enumerate((np.ones_like(norms), norms, np.square(norms))):
                sums[node][:, at] += np.bincount(ids.ravel(), weights, minlength=size)
            sources[node][ids[names == node[3]]] = True
    return pl.concat(_frame(node, len(nodes[node]), sums[node], sources[node]) for node in nodes)


def _frame(
    node: tuple[object, ...], n_dimensions: int, sums: np.ndarray, at_source: np.ndarray
) -> pl.DataFrame:
    """Rows of a node, tokens with the largest mean norm first."""
    (tokens,) = sums[:, 0].nonzero()
    n, total, squares = sums[tokens].T
    mean = total / n
    columns = {
        **dict(zip(NODE, node, strict=True)),
        "token_id": tokens,
        "n_dimensions": n_dimensions,
        "at_source": at_source[tokens],
        "n": n,
        "mean_projection": mean,
        "sd_projection": np.sqrt(np.maximum(squares / n - mean**2, 0.0)),
    }
    frame = pl.DataFrame(columns).cast(pl.Schema(NORMS_SCHEMA))
    return frame.sort("mean_projection", "token_id", descending=[True, False])
