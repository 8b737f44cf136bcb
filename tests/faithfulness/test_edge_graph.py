"""Nodes, receivers and edges follow from a model's sizes."""

import numpy as np
import pytest

from mechinterp_assets.faithfulness.edge_graph import EdgeGraph, FaithfulnessError


def test_gpt2_small_has_the_published_number_of_edges() -> None:
    assert EdgeGraph(12, 12, 12).n_edges == 32_491


def test_edges_lead_from_earlier_to_later() -> None:
    graph = EdgeGraph(2, 3, 3)
    order = {"q": 0, "k": 0, "v": 0, "mlp": 1}
    for receiver, reader in enumerate(graph.receivers):
        for node, writer in enumerate(graph.nodes):
            if writer.kind == "embedding" or reader.kind == "logits":
                expected = True
            else:
                assert writer.layer is not None
                assert reader.layer is not None
                when = (writer.layer, 0 if writer.kind == "head" else 1)
                expected = when < (reader.layer, order[reader.kind])
            assert graph.exists[receiver, node] == expected, (reader, writer)
    numbers = [graph.edge_number(r, n) for r, n in graph.edges.tolist()]
    assert numbers == list(range(graph.n_edges))


def test_shared_keys_and_values_are_one_receiver() -> None:
    graph = EdgeGraph(2, 4, 2)
    k = graph.head_inputs(1, "k")
    assert k.stop - k.start == 2
    assert graph.feeds(k.start + 1) == [graph.head_node(1, 2), graph.head_node(1, 3)]


def test_names_and_indices_agree() -> None:
    graph = EdgeGraph(3, 4, 2)
    assert graph.nodes[graph.head_node(2, 1)].head == 1
    assert graph.nodes[graph.mlp_node(1)].kind == "mlp"
    assert graph.receivers[graph.mlp_input(2)].kind == "mlp"
    assert graph.receivers[graph.logits].kind == "logits"
    assert len(graph.nodes) == graph.n_nodes
    assert len(graph.receivers) == graph.n_receivers


def test_edges_on_no_path_are_pruned() -> None:
    graph = EdgeGraph(2, 2, 2)
    mask = np.zeros_like(graph.exists)
    q = graph.head_inputs(0, "q").start
    v1 = graph.head_inputs(1, "v").start
    mask[q, 0] = True  # embedding -> head 0.0
    mask[v1, graph.head_node(0, 0)] = True  # head 0.0 -> head 1.0
    mask[graph.logits, graph.head_node(0, 1)] = True  # head 0.1 never changes
    assert not graph.connected(mask).any()
    mask[graph.logits, graph.head_node(1, 0)] = True
    connected = graph.connected(mask)
    assert connected.sum() == 3
    assert not connected[graph.logits, graph.head_node(0, 1)]


def test_missing_edges_are_named() -> None:
    graph = EdgeGraph(2, 2, 2)
    with pytest.raises(FaithfulnessError, match="no edge from node 5 to receiver 0"):
        graph.edge_number(0, 5)
