"""The edge graph of a transformer: what writes the residual stream, and what reads it.

Belongs here: nodes, receivers, edges and their order, from a model's sizes alone; pruning of edges
that no path through a circuit uses. Does not belong here: activations and scores.

Nodes write: the input embedding (positions included), every attention head, every MLP. Receivers
read: the query, key and value input of the heads, the input of every MLP, the logits. An edge leads
from a node to a receiver that reads the residual stream after the node wrote (Conmy et al. 2023,
arXiv 2304.14997; Syed et al. 2023, arXiv 2310.10348). Heads that share keys and values (grouped
queries) share the receivers k and v: those are one per key-value group, and their `head` is the
group's number.

Nodes are ordered as they write, so every receiver reads a prefix of them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from mechinterp_assets.model.shape import ModelShape

NodeKind = Literal["embedding", "head", "mlp"]
HeadInput = Literal["q", "k", "v"]
ReceiverKind = Literal["q", "k", "v", "mlp", "logits"]
HEAD_INPUTS: tuple[HeadInput, ...] = ("q", "k", "v")
Mask = np.ndarray  # [receiver, node] bool


class FaithfulnessError(ValueError):
    """A request about circuit quality that cannot be met; the message names value and remedy."""


@dataclass(frozen=True)
class Node:
    """A writer of the residual stream; layer and head are None where it has none."""

    kind: NodeKind
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Receiver:
    """A reader of the residual stream; `head` is the key-value group for k and v."""

    kind: ReceiverKind
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class EdgeGraph:
    """All edges of a model of n_layers layers, n_heads heads and n_kv_heads key-value groups."""

    n_layers: int
    n_heads: int
    n_kv_heads: int

    @classmethod
    def of(cls, shape: ModelShape) -> "EdgeGraph":
        """The graph of a model's sizes."""
        return cls(shape.n_layers, shape.n_heads, shape.n_kv_heads)

    # ---- nodes -----------------------------------------------------------------------------------

    @property
    def n_nodes(self) -> int:
        """Embedding, heads and MLPs."""
        return self.nodes_before(self.n_layers)

    def nodes_before(self, layer: int) -> int:
        """Number of nodes that the attention of `layer` reads; index of its head 0."""
        return 1 + layer * (self.n_heads + 1)

    def head_node(self, layer: int, head: int) -> int:
        """Index of a head's node."""
        return self.nodes_before(layer) + head

    def mlp_node(self, layer: int) -> int:
        """Index of an MLP's node."""
        return self.nodes_before(layer) + self.n_heads

    @cached_property
    def nodes(self) -> list[Node]:
        """Nodes in the order in which they write."""
        found = [Node("embedding")]
        for layer in range(self.n_layers):
            found += [Node("head", layer, head) for head in range(self.n_heads)]
            found.append(Node("mlp", layer))
        return found

    # ---- receivers -------------------------------------------------------------------------------

    @property
    def n_receivers(self) -> int:
        """Head inputs, MLP inputs and the logits."""
        return self.n_layers * self._per_layer + 1

    @property
    def _per_layer(self) -> int:
        return self.n_heads + 2 * self.n_kv_heads + 1

    def head_inputs(self, layer: int, kind: HeadInput) -> slice:
        """Receivers of one kind of a layer's heads, by head (q) or key-value group (k, v)."""
        first = layer * self._per_layer
        heads, groups = self.n_heads, self.n_kv_heads
        start, width = {
            "q": (0, heads),
            "k": (heads, groups),
            "v": (heads + groups, groups),
        }[kind]
        return slice(first + start, first + start + width)

    def mlp_input(self, layer: int) -> int:
        """Index of an MLP's input."""
        return (layer + 1) * self._per_layer - 1

    @property
    def logits(self) -> int:
        """Index of the logits."""
        return self.n_receivers - 1

    @cached_property
    def receivers(self) -> list[Receiver]:
        """Receivers by layer: q, k, v, MLP; the logits last."""
        found: list[Receiver] = []
        for layer in range(self.n_layers):
            found += [Receiver("q", layer, head) for head in range(self.n_heads)]
            found += [Receiver("k", layer, group) for group in range(self.n_kv_heads)]
            found += [Receiver("v", layer, group) for group in range(self.n_kv_heads)]
            found.append(Receiver("mlp", layer))
        return [*found, Receiver("logits")]

    def group_heads(self, group: int) -> range:
        """Heads that read the keys and values of a group."""
        size = self.n_heads // self.n_kv_heads
        return range(group * size, (group + 1) * size)

    # ---- edges -----------------------------------------------------------------------------------

    @cached_property
    def n_sources(self) -> np.ndarray:
        """[receiver]: it reads the nodes 0 .. n_sources - 1."""
        counts = []
        for receiver in self.receivers:
            if receiver.layer is None:
                counts.append(self.n_nodes)
            elif receiver.kind == "mlp":
                counts.append(self.mlp_node(receiver.layer))
            else:
                counts.append(self.nodes_before(receiver.layer))
        return np.array(counts)

    @cached_property
    def exists(self) -> Mask:
        """[receiver, node]: whether the edge exists. Edges are numbered along this mask's rows."""
        return np.asarray(np.arange(self.n_nodes) < self.n_sources[:, None])

    @property
    def n_edges(self) -> int:
        """Number of edges: 32,491 for GPT-2 small."""
        return int(self.n_sources.sum())

    @cached_property
    def edges(self) -> np.ndarray:
        """[edge, 2]: receiver and node of every edge."""
        return np.argwhere(self.exists)

    def mask(self, edges: np.ndarray) -> Mask:
        """Mask of the edges with these numbers [n] or of this boolean choice [edge]."""
        chosen = np.zeros(self.n_edges, dtype=bool)
        chosen[edges] = True
        mask = np.zeros_like(self.exists)
        mask[self.exists] = chosen
        return mask

    def edge_number(self, receiver: int, node: int) -> int:
        """Number of an edge. Raises FaithfulnessError where there is none."""
        if not (0 <= node < self.n_nodes and self.exists[receiver, node]):
            raise FaithfulnessError(
                f"there is no edge from node {node} to receiver {receiver}: the receiver reads "
                f"nodes 0..{self.n_sources[receiver] - 1}"
            )
        return int(self.n_sources[:receiver].sum()) + node

    def feeds(self, receiver: int) -> list[int]:
        """Nodes whose output a receiver is an input of; none for the logits."""
        found = self.receivers[receiver]
        if found.layer is None:
            return []
        if found.kind == "mlp":
            return [self.mlp_node(found.layer)]
        assert found.head is not None
        heads = [found.head] if found.kind == "q" else self.group_heads(found.head)
        return [self.head_node(found.layer, head) for head in heads]

    def connected(self, mask: Mask) -> Mask:
        """The edges of `mask` that lie on a path from the embedding to the logits within it.

        The others carry nothing: their source equals its counterfactual output, or nobody in the
        circuit reads what they change.
        """
        reached = np.zeros(self.n_nodes, dtype=bool)
        reached[0] = True
        for receiver in range(self.n_receivers):
            if (mask[receiver] & reached).any():
                reached[self.feeds(receiver)] = True
        alive = mask & reached
        useful = np.zeros(self.n_nodes, dtype=bool)
        for receiver in reversed(range(self.n_receivers)):
            if receiver == self.logits or useful[self.feeds(receiver)].any():
                useful |= alive[receiver]
            else:
                alive[receiver] = False
        return alive
