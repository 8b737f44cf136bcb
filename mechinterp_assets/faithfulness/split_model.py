"""A transformer as plain functions of its processed weights, with every node's output apart.

Belongs here: projections, attention, MLPs and norms for any number of leading dimensions, the plain
forward pass that keeps what writes and reads the residual stream. Does not belong here: what is
patched (edge_patching.py, edge_sets.py, head_sets.py, subspace.py).

Why not the bridge's hooks: patching edges needs an input of its own for every head's query, key and
value, in runs of thousands of rows that differ in one input. Written as functions, only what an
edge changes is computed. `SplitModel.check` compares logits with the bridge.

Weights: the processed view (LayerNorm folded), so that a norm here has neither weight nor bias.
Positions are absolute, rotary or absent, layer by layer, keys may be those of a window, and keys
and values shared by groups of heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mechinterp_assets.faithfulness.edge_graph import (
    HEAD_INPUTS,
    EdgeGraph,
    FaithfulnessError,
    HeadInput,
)
from mechinterp_assets.model.agreement import disagreement
from mechinterp_assets.model.capabilities import capabilities_of
from mechinterp_assets.model.identities import identities_of
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.mlp_weights import MlpWeights, activation_of
from mechinterp_assets.model.precision import same_sum
from mechinterp_assets.model.query_key import unseen
from mechinterp_assets.model.weights import LayerWeight

LOGIT_TOLERANCE = 1e-4
MEMORY_MIB = 2048  # for the activations of one batch


@dataclass(frozen=True)
class Activations:
    """A plain run of prompts [b] of T positions.

    pre, mid [layer][b, T, d_model]: residual stream before attention and before the MLP; final
    [b, T, d_model]; q [layer][b, T, head, d_head], k, v [layer][b, T, group, d_head], rotated where
    the model rotates; z [layer][b, T, head, d_head]; mlp_in [layer][b, T, d_model], the normed mid;
    hidden [layer][b, T, d_mlp], what W_out reads.
    nodes [node, b, T, d_model]: the output of every node of the edge graph, without biases of the
    attention output, or None where it was not asked for.
    """

    pre: list[Tensor]
    mid: list[Tensor]
    final: Tensor
    q: list[Tensor]
    k: list[Tensor]
    v: list[Tensor]
    z: list[Tensor]
    mlp_in: list[Tensor]
    hidden: list[Tensor]
    nodes: Tensor | None


@dataclass(frozen=True)
class Tail:
    """The last w positions of prompts [b], and keys and values of a run that is theirs before.

    What is changed from one position on changes nothing before it, so that a run on from there
    needs these positions alone. at [b, w]: positions up to END, the first one repeated where a
    prompt has fewer; k, v [layer][b, T, group, d_head].
    """

    at: Tensor
    k: list[Tensor]
    v: list[Tensor]

    @classmethod
    def of(cls, run: Activations, first: Tensor, end: Tensor) -> "Tail":
        """From `first` [b] to `end` [b], as long as the longest, of a run of the prompts."""
        width = int((end - first).max()) + 1
        back = torch.arange(1 - width, 1, device=end.device)
        return cls((end[:, None] + back).clamp(min=0), run.k, run.v)

    def __len__(self) -> int:
        """Rows."""
        return len(self.at)

    @property
    def rows(self) -> Tensor:
        """Number of each row [b, 1], for indices beside `at`."""
        return torch.arange(len(self), device=self.at.device)[:, None]

    def take(self, values: Tensor) -> Tensor:
        """values [b, T, ...] at these positions [b, w, ...]."""
        return values[self.rows, self.at]

    def put(self, values: Tensor, new: Tensor, groups: Tensor | None = None) -> Tensor:
        """values [b, T, group, ...] with `new` [b, w, group, ...] at these positions, all groups or
        those named [n]; a copy."""
        values = values.clone()
        if groups is None:
            values[self.rows, self.at] = new
        else:
            values[self.rows[..., None], self.at[..., None], groups] = new
        return values

    def repeated(self, n: int) -> "Tail":
        """For n runs of the same prompts, [n * b] rows."""
        k, v = ([one.repeat(n, 1, 1, 1) for one in of] for of in (self.k, self.v))
        return Tail(self.at.repeat(n, 1), k, v)


class SplitModel:
    """Functions of one model's processed weights, at least float32.

    Raises FaithfulnessError for architectures that it does not compute (capability `edges`) and,
    through `check`, blocks of another form.
    """

    def __init__(self, model: LanguageModel) -> None:
        shape = model.config
        found = capabilities_of(model).of("edges")
        if not found.holds:
            raise FaithfulnessError(
                f"edges of {model.source} ({shape.architecture}) cannot be patched: {found.reason}"
            )
        dtype = torch.promote_types(model.dtype, torch.float32)

        def of(weight: Tensor) -> Tensor:
            return weight.detach().to(dtype)

        def once(weight: LayerWeight) -> Tensor:  # keys and values of a group are the same
            return torch.stack([of_layer[::group] for of_layer in weight])

        weights = model.weights
        group = shape.n_heads // shape.n_kv_heads
        self.source, self.shape, self.graph = model.source, shape, EdgeGraph.of(shape)
        self.dtype, self.device = dtype, model.device
        self.W_Q, self.b_Q = weights.W_Q.stacked(), weights.b_Q.stacked()
        self.W_K, self.b_K = once(weights.W_K), once(weights.b_K)
        self.W_V, self.b_V = once(weights.W_V), once(weights.b_V)
        self.W_O, self.b_O = weights.W_O.stacked(), weights.b_O.stacked()
        self.W_E, self.W_U, self.b_U = of(weights.W_E), of(weights.W_U), of(weights.b_U)
        self.W_pos = None if weights.W_pos is None else of(weights.W_pos)
        self._mlps = [MlpWeights.of(model, layer, dtype) for layer in range(shape.n_layers)]
        self.W_out = torch.stack([mlp.W_out for mlp in self._mlps])
        self.b_out = torch.stack([mlp.b_out for mlp in self._mlps])
        self._activation = activation_of(model)
        self._attention = identities_of(model).attention
        self._turned: dict[int, Tensor] = {}

    def _turns(self, layer: int, length: int) -> Tensor | None:
        """Rotation at positions below `length` [position, d_head, d_head] of row vectors in a
        layer, None where it rotates nothing. Made for the longest prompts that were seen.
        """
        if not self._attention[layer].rotary:
            return None
        known = self._turned.get(layer)
        if known is None or len(known) < length:
            turns = self._attention[layer].rotations(length, self.shape.d_head)
            known = self._turned[layer] = turns.to(self.device, self.dtype)
        return known[:length]

    @torch.no_grad()
    def check(self, model: LanguageModel, ids: Tensor) -> float:
        """rms difference to the bridge's logits at the last position, relative to their rms.

        Raises FaithfulnessError above LOGIT_TOLERANCE (processed weights of a model whose blocks
        are of another form: norms behind the sublayers, attention and MLP side by side, ...).
        """
        expected = model.processed(ids)[:, -1].to(self.dtype)
        found = self.normalise(self.run(ids).final[:, -1]) @ self.W_U + self.b_U
        error = disagreement(found, expected)
        tolerance = LOGIT_TOLERANCE if model.dtype == self.dtype else same_sum(model.dtype)
        if not error <= tolerance:
            raise FaithfulnessError(
                f"{model.source}: logits computed from its weights differ from the model's by "
                f"{error:.2g} of their rms; its blocks ({self.shape.architecture}) are not "
                "attention, then MLP, each behind one norm and added to the residual stream"
            )
        return error

    def prompts_that_fit(self, length: int, limit: int) -> int:
        """Prompts of `length` tokens, at most `limit`, whose nodes fit MEMORY_MIB: two copies of
        all outputs and the inputs of one layer's heads."""
        streams = 2 * self.graph.n_nodes + 3 * (self.shape.n_heads + 2 * self.shape.n_kv_heads)
        return self._fitting(streams * self.shape.d_model * length, limit)

    def rows_that_fit(self, length: int, limit: int) -> int:
        """Rows of `length` tokens, at most `limit`, that run on from a layer in MEMORY_MIB."""
        shape = self.shape
        per_token = 8 * shape.d_model + 3 * shape.d_mlp + 6 * shape.d_z
        return self._fitting((per_token + 3 * shape.n_heads * length) * length, limit)

    def _fitting(self, numbers: int, limit: int) -> int:
        return max(1, min(limit, MEMORY_MIB * 2**20 // (numbers * self.dtype.itemsize)))

    # ---- parts -----------------------------------------------------------------------------------

    def embed(self, ids: Tensor) -> Tensor:
        """Input embedding, positions included [b, T, d_model]."""
        tokens = self.W_E[ids]
        return tokens if self.W_pos is None else tokens + self.W_pos[: ids.shape[1]]

    def normalise(self, x: Tensor) -> Tensor:
        """Norm without weight and bias, over the last dimension."""
        if self.shape.normalization == "LN":
            x = x - x.mean(-1, keepdim=True)
        return x / self.scale(x)

    def scale(self, x: Tensor) -> Tensor:
        """What a norm divides by, for x that LayerNorm has centred already [..., 1]."""
        return (x.square().mean(-1, keepdim=True) + self.shape.eps).sqrt()

    def norm_gradient(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Gradient with respect to a norm's input x, from that of its output; shapes broadcast."""
        centred = x - x.mean(-1, keepdim=True) if self.shape.normalization == "LN" else x
        scale = self.scale(centred)
        y = centred / scale
        result = gradient - y * (gradient * y).mean(-1, keepdim=True)
        if self.shape.normalization == "LN":
            result = result - gradient.mean(-1, keepdim=True)
        return result / scale

    def project(
        self,
        kind: HeadInput,
        layer: int,
        y: Tensor,
        *,
        heads: list[int] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Queries, keys or values [b, T, head or group, d_head] of normalised inputs.

        y [b, T, d_model], the same for all heads, or [head, b, T, d_model], one for each of
        `heads`. positions [b, T]: where the rows stand, default 0 .. T - 1; for rotation.
        """
        W, b = {
            "q": (self.W_Q, self.b_Q),
            "k": (self.W_K, self.b_K),
            "v": (self.W_V, self.b_V),
        }[kind]
        weight, bias = W[layer], b[layer]
        if heads is not None:
            weight, bias = weight[heads], bias[heads]
        if y.dim() == 3:
            d_model = self.shape.d_model
            flat = weight.permute(1, 0, 2).reshape(d_model, -1)
            out = (y @ flat).view(*y.shape[:2], len(weight), -1) + bias
        else:
            out = torch.einsum("hbtd,hdk->bthk", y, weight) + bias
        length = out.shape[1] if positions is None else int(positions.max()) + 1
        turns = None if kind == "v" else self._turns(layer, length)
        if turns is None:
            return out
        if positions is None:
            turned: Tensor = torch.einsum("bthk,tkl->bthl", out, turns)
        else:
            turned = torch.einsum("bthk,btkl->bthl", out, turns[positions])
        return turned

    def unturned(self, kind: HeadInput, layer: int, gradient: Tensor) -> Tensor:
        """Gradient before rotation, of that with respect to q, k or v [b, T, head, d_head]."""
        turns = None if kind == "v" else self._turns(layer, gradient.shape[1])
        if turns is None:
            return gradient
        return torch.einsum("bthl,tkl->bthk", gradient, turns)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """Values weighted by the attention of a layer [b, queries, head, d_head].

        q [b, queries, head, d_head] at `positions` [b, queries] (default: all); k, v of the same
        heads or of their groups [b, T, group, d_head].
        """
        n_heads, length = q.shape[2], k.shape[1]
        if k.shape[2] != n_heads:
            k = k.repeat_interleave(n_heads // k.shape[2], dim=2)
        if v.shape[2] != n_heads:
            v = v.repeat_interleave(n_heads // v.shape[2], dim=2)
        form = self._attention[layer]
        scores = q.permute(0, 2, 1, 3) @ k.permute(0, 2, 3, 1) * form.scale
        at = torch.arange(length, device=q.device)[None] if positions is None else positions
        hidden = unseen(at, length, form.window)[:, None]
        pattern = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return (pattern @ v.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)

    def head_outputs(self, layer: int, z: Tensor, heads: list[int] | None = None) -> Tensor:
        """z W_O by head [head, b, T, d_model] of z [b, T, head, d_head]."""
        W_O = self.W_O[layer] if heads is None else self.W_O[layer][heads]
        return torch.einsum("bthk,hkd->hbtd", z, W_O)

    def attention_output(self, layer: int, z: Tensor) -> Tensor:
        """Sum of all heads' outputs and the bias [b, T, d_model]."""
        return z.flatten(-2) @ self.W_O[layer].flatten(0, 1) + self.b_O[layer]

    def hidden(self, layer: int, y: Tensor) -> Tensor:
        """What W_out reads [..., d_mlp], of normalised inputs."""
        return self._mlps[layer].hidden(y, self._activation)

    def mlp(self, layer: int, y: Tensor) -> Tensor:
        """MLP output [..., d_model] of normalised inputs."""
        return self.hidden(layer, y) @ self.W_out[layer] + self.b_out[layer]

    # ---- runs ------------------------------------------------------------------------------------

    def run(self, ids: Tensor, *, nodes: bool = False) -> Activations:
        """Plain run of ids [b, T], everything kept; `nodes`: with every node's output."""
        return self.run_embedded(self.embed(ids), nodes=nodes)

    def run_embedded(self, x: Tensor, *, nodes: bool = False) -> Activations:
        """Plain run from input embeddings [b, T, d_model]."""
        kept: dict[str, list[Tensor]] = {
            name: [] for name in ("pre", "mid", "q", "k", "v", "z", "mlp_in", "hidden")
        }
        outputs = [x[None]]
        for layer in range(self.shape.n_layers):
            y = self.normalise(x)
            q, k, v = (self.project(kind, layer, y) for kind in HEAD_INPUTS)
            z = self.attend(layer, q, k, v)
            mid = x + self.attention_output(layer, z)
            mlp_in = self.normalise(mid)
            hidden = self.hidden(layer, mlp_in)
            out = hidden @ self.W_out[layer] + self.b_out[layer]
            for name, value in zip(kept, (x, mid, q, k, v, z, mlp_in, hidden), strict=True):
                kept[name].append(value)
            if nodes:
                outputs += [self.head_outputs(layer, z), out[None]]
            x = mid + out
        return Activations(**kept, final=x, nodes=torch.cat(outputs) if nodes else None)

    def finish(self, layer: int, mid: Tensor, tail: Tail) -> Tensor:
        """Residual stream at END [b, d_model] from that before the MLP of `layer` [b, w, d_model],
        at the positions of `tail`; in the last layer [b, 1, d_model], END alone, will do."""
        last = layer == self.shape.n_layers - 1
        if last:
            mid = mid[:, -1:]
        x = mid + self.mlp(layer, self.normalise(mid))
        return x[:, 0] if last else self.finish_from(layer + 1, x, tail)

    def finish_from(self, layer: int, x: Tensor, tail: Tail) -> Tensor:
        """Residual stream at END from that before the attention of `layer` [b, w, d_model].

        Of the last layer nothing but END is computed, its keys and values apart.
        """
        at = tail.at
        for here in range(layer, self.shape.n_layers):
            y = self.normalise(x)
            k = tail.put(tail.k[here], self.project("k", here, y, positions=tail.at))
            v = tail.put(tail.v[here], self.project("v", here, y, positions=tail.at))
            if here == self.shape.n_layers - 1:
                x, y, at = x[:, -1:], y[:, -1:], at[:, -1:]
            q = self.project("q", here, y, positions=at)
            x = x + self.attention_output(here, self.attend(here, q, k, v, at))
            x = x + self.mlp(here, self.normalise(x))
        return x[:, -1]
