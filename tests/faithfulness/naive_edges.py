"""An independent, slow run with patched edges: raw GPT-2 weights, one prompt, one head at a time.

Every receiver's input is summed up edge by edge. Weights are the published ones: LayerNorms with
their weights, biases where they are, nothing folded or centred.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mechinterp_assets.faithfulness.edge_graph import EdgeGraph
from mechinterp_assets.model.language_model import LanguageModel


def naive_logit_difference(
    model: LanguageModel,
    graph: EdgeGraph,
    clean: Tensor,
    corrupt: Tensor,
    answer: int,
    wrong: int,
    weights: Tensor,
) -> Tensor:
    """Logit difference at the last position; weights [receiver, node]: 1 clean, 0 counterfactual.

    Every receiver reads the sum over nodes of w * (output in this run) + (1 - w) * (output in the
    counterfactual run), and the biases of the attention outputs.
    """
    ones = torch.ones(graph.n_receivers, graph.n_nodes, dtype=torch.float64)
    theirs, _ = _run(model, graph, corrupt, ones, None)
    _, logits = _run(model, graph, clean, weights, theirs)
    return logits[answer] - logits[wrong]


def _run(
    model: LanguageModel,
    graph: EdgeGraph,
    ids: Tensor,
    weights: Tensor,
    other: list[Tensor] | None,
) -> tuple[list[Tensor], Tensor]:
    trunk, d_head = model.hf.transformer, model.config.d_head
    length = len(ids)
    outputs = [trunk.wte.weight[ids] + trunk.wpe.weight[:length]]
    biases = torch.zeros_like(outputs[0])

    def read(receiver: int) -> Tensor:
        total = biases.clone()
        for node, own in enumerate(outputs[: graph.n_sources[receiver]]):
            w = weights[receiver, node]
            total = total + w * own + (0 if other is None else (1 - w) * other[node])
        return total

    for layer, block in enumerate(trunk.h):
        attention = block.attn
        W, b = attention.c_attn.weight, attention.c_attn.bias
        d = model.config.d_model
        new = []
        for head in range(graph.n_heads):
            streams = []
            for part, kind in enumerate(("q", "k", "v")):
                x = block.ln_1(read(graph.head_inputs(layer, kind).start + head))
                columns = slice(part * d + head * d_head, part * d + (head + 1) * d_head)
                streams.append(x @ W[:, columns] + b[columns])
            q, k, v = streams
            scores = (q @ k.T / d_head**0.5).masked_fill(
                torch.triu(torch.ones(length, length, dtype=torch.bool), 1), float("-inf")
            )
            rows = slice(head * d_head, (head + 1) * d_head)
            new.append(scores.softmax(-1) @ v @ attention.c_proj.weight[rows])
        outputs += new
        biases = biases + attention.c_proj.bias
        outputs.append(block.mlp(block.ln_2(read(graph.mlp_input(layer)))))
    final = trunk.ln_f(read(graph.logits))[-1]
    return outputs, functional.linear(final, model.hf.lm_head.weight)
