"""Edge attribution patching (EAP) and EAP with integrated gradients (EAP-IG-inputs).

Belongs here: scores of all edges from cached outputs and gradients, and the summation rules. Does
not belong here: exact patching (edge_patching.py), rankings and circuits.

    e(u -> v) = sum_pos (x_u^corrupt - x_u^clean) . sum_k w_k dL/d in_v (alpha_k),   L = -m

where m is the logit difference, in_v the input of receiver v, and the gradient is taken in a plain
run from the input embedding corrupt + alpha_k (clean - corrupt). A positive score says that the
edge raises the logit difference: to first order e = m(clean) - m(edge corrupted), the sign and unit
of exact patching.

EAP (Syed et al. 2023, arXiv 2310.10348): one gradient, of the clean run. EAP-IG-inputs (Hanna et
al. 2024, arXiv 2403.17806): the mean over M points between corrupt and clean, by rule
    library   alpha = k / M, k = 0 .. M - 1 (what the authors' code sums)
    paper     alpha = k / M, k = 1 .. M     (what the papers print)
    midpoint  alpha = (k + 1/2) / M         (error O(1/M^2) instead of O(1/M))

Scores are means over prompts: every prompt's gradient is that of its own logit difference, sums are
divided by the number of prompts once, so batches of unequal size change nothing.

Cost: one forward and one backward pass per point for all edges and all rules together. A head's
query, key and value inputs hold the same residual stream, so only their gradients are apart: they
come from the gradients of q, k and v through the projection and the norm, without copies of the
stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError, HeadInput
from mechinterp_assets.faithfulness.prompt_pairs import PromptBatch, logit_difference
from mechinterp_assets.faithfulness.split_model import Activations, SplitModel
from mechinterp_assets.model.precision import float64

RULES = ("library", "paper", "midpoint")


@dataclass(frozen=True)
class Attribution:
    """How edges are scored: method eap or eap_ig, the summation rule and the number of points."""

    method: str
    rule: str
    steps: int

    @property
    def name(self) -> str:
        """eap, or eap_ig_<rule>."""
        return self.method if self.method == "eap" else f"{self.method}_{self.rule}"

    @property
    def alphas(self) -> list[float]:
        """Points between corrupt (0) and clean (1), each of weight 1 / steps."""
        first = {"clean": 1.0, "library": 0.0, "paper": 1.0, "midpoint": 0.5}[self.rule]
        return [(k + first) / self.steps for k in range(self.steps)]


EAP = Attribution("eap", "clean", 1)


def eap_ig(rule: str = "library", steps: int = 5) -> Attribution:
    """EAP-IG-inputs by a summation rule. Raises FaithfulnessError for unknown ones and no steps."""
    if rule not in RULES:
        raise FaithfulnessError(f"summation rule {rule!r} is unknown; one of {', '.join(RULES)}")
    if steps < 1:
        raise FaithfulnessError(f"{steps} steps; integrated gradients need at least one")
    return Attribution("eap_ig", rule, steps)


def attribute_edges(
    model: SplitModel,
    pairs: PromptBatch,
    attributions: Sequence[Attribution],
    *,
    batch_rows: int = 32,
) -> dict[str, np.ndarray]:
    """Scores of all edges by attribution name [edge] float64, mean over prompts.

    batch_rows: prompts that run together, fewer where their nodes' outputs do not fit.
    """
    if not attributions or len({a.name for a in attributions}) < len(attributions):
        raise FaithfulnessError("name at least one attribution, each once")
    weights = _point_weights(attributions)
    totals = {a.name: np.zeros(model.graph.n_edges) for a in attributions}
    for batch in pairs.split(model.prompts_that_fit(pairs.clean.shape[1], batch_rows)):
        with torch.no_grad():
            clean, corrupt = (
                model.run(batch.clean, nodes=True),
                model.run(batch.corrupt, nodes=True),
            )
            assert clean.nodes is not None
            assert corrupt.nodes is not None
            change = corrupt.nodes - clean.nodes
        for alpha, shares in weights.items():
            start = torch.lerp(corrupt.pre[0], clean.pre[0], alpha)
            scores = _scores(model, batch, start, change)
            for name, weight in shares.items():
                totals[name] += weight * scores
    return {name: total / len(pairs) for name, total in totals.items()}


# ---- private -------------------------------------------------------------------------------------


def _point_weights(attributions: Sequence[Attribution]) -> Mapping[float, dict[str, float]]:
    """alpha -> attribution -> weight; rules that share points share their passes."""
    weights: dict[float, dict[str, float]] = {}
    for attribution in attributions:
        for alpha in attribution.alphas:
            weights.setdefault(alpha, {})[attribution.name] = 1 / attribution.steps
    return weights


def _scores(model: SplitModel, batch: PromptBatch, start: Tensor, change: Tensor) -> np.ndarray:
    """Sum over the batch's prompts of change_u . dL/d in_v [edge], gradients at one point."""
    with torch.enable_grad():
        run = model.run_embedded(start.detach().requires_grad_())
        rows = torch.arange(len(batch), device=start.device)
        loss = -logit_difference(model, batch, run.final[rows, batch.end]).sum()
        wanted = [*run.q, *run.k, *run.v, *run.mlp_in, run.final]
        gradients = torch.autograd.grad(loss, wanted)
    with torch.no_grad():
        return _edge_products(model, run, gradients, change)


def _edge_products(
    model: SplitModel, run: Activations, gradients: Sequence[Tensor], change: Tensor
) -> np.ndarray:
    n_layers = model.shape.n_layers
    flat = change.flatten(1)
    products: list[np.ndarray] = []
    q, k, v, mlp_in = (gradients[i * n_layers : (i + 1) * n_layers] for i in range(4))

    def add(gradient: Tensor, n_sources: int) -> None:
        """gradient [receiver, b, T, d_model] with respect to receivers of the same sources."""
        table = gradient.flatten(1) @ flat[:n_sources].T
        products.append(float64(table).cpu().numpy().ravel())

    for layer in range(n_layers):
        kinds: tuple[tuple[HeadInput, Tensor, Tensor], ...] = (
            ("q", q[layer], model.W_Q),
            ("k", k[layer], model.W_K),
            ("v", v[layer], model.W_V),
        )
        inputs = [
            torch.einsum("bthk,hdk->hbtd", model.unturned(kind, layer, gradient), weight[layer])
            for kind, gradient, weight in kinds
        ]
        before = model.graph.nodes_before(layer)
        add(model.norm_gradient(run.pre[layer], torch.cat(inputs)), before)
        through = model.norm_gradient(run.mid[layer], mlp_in[layer])
        add(through[None], model.graph.mlp_node(layer))
    add(gradients[-1][None], model.graph.n_nodes)
    return np.concatenate(products)
