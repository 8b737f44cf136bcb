"""The residual stream at role positions of prompts, split into embedding, MLPs and SAE features.

Belongs here: one forward pass per prompt (frozen_forward.py), the parts at the positions of roles,
and what a linear map makes of them. Does not belong here: what the maps are for (qk_features.py).

Before layer l the stream is a sum of embedding, position (absolute positions only) and, for every
earlier layer m, its MLP and its attention output. With the SAE of layer m the latter is
  z_m W_O + b_O = sum_i f_i d_i W_O + (z_m - SAE(z_m)) W_O + b_dec W_O + b_O,
else it is one piece. An SAE on the stream itself (hook_resid_pre of layer l) may be read instead of
the writers: x = sum_i f_i d_i + (x - SAE(x)) + b_dec. Raw weights: SAEs read raw activations.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.attribution.frozen_forward import FrozenModel
from mechinterp_assets.prompts.ioi import PromptError
from mechinterp_assets.prompts.roles import role_positions
from mechinterp_assets.sae.base import SparseAutoencoder

# Kind, layer, feature; layer and feature are None where there is none.
PartName = tuple[str, int | None, int | None]


class PartNumbers:
    """Parts as numbers, so that many can be counted at once: fixed parts first, then features.

    saes: kind of their features and layer -> d_sae.
    """

    def __init__(self, n_layers: int, saes: Mapping[tuple[str, int], int]) -> None:
        self._fixed: dict[tuple[str, int | None], int] = {}
        plain = ("embedding", "position", "query_bias", "key_bias", "value_bias", "not_carried")
        for kind in plain:
            self._fixed[kind, None] = len(self._fixed)
        for layer in range(n_layers):
            for kind in ("attention", "sae_error", "sae_bias", "output_bias", "mlp"):
                self._fixed[kind, layer] = len(self._fixed)
            for kind in ("residual_error", "residual_bias"):
                self._fixed[kind, layer] = len(self._fixed)
        self._first: dict[tuple[str, int], int] = {}
        self.count = len(self._fixed)
        for key, d_sae in saes.items():
            self._first[key] = self.count
            self.count += d_sae

    def of(self, kind: str, layer: int | None = None) -> int:
        """Number of a fixed part, or of feature 0 of an SAE."""
        if layer is not None and (kind, layer) in self._first:
            return self._first[kind, layer]
        return self._fixed[kind, layer]

    def names(self, numbers: Collection[int]) -> dict[int, PartName]:
        """Names of the parts with these numbers."""
        fixed: dict[int, PartName] = {
            number: (kind, layer, None) for (kind, layer), number in self._fixed.items()
        }
        starts = sorted((first, *key) for key, first in self._first.items())
        found: dict[int, PartName] = {}
        for number in numbers:
            if number in fixed:
                found[number] = fixed[number]
            else:
                first, kind, layer = [start for start in starts if start[0] <= number][-1]
                found[number] = (kind, layer, number - first)
        return found


@dataclass(frozen=True)
class Active:
    """Active features of one SAE, float64, on the CPU.

    row, feature, value [active]; place [active]: row of `decoder` [used, d_in]; error [row, d_in] =
    x - sum_i f_i d_i - b_dec, which also takes up the rounding of values; b_dec [d_in].
    """

    row: Tensor
    feature: Tensor
    value: Tensor
    place: Tensor
    decoder: Tensor
    error: Tensor
    b_dec: Tensor

    @classmethod
    def of(cls, sae: SparseAutoencoder, x: Tensor, centre: bool = False) -> "Active":
        """Features by the SAE's own answer for x [row, d_in], or for x less its mean over d_in.

        The error makes up the whole of x either way.
        """
        seen = x - x.mean(-1, keepdim=True) if centre else x
        with torch.no_grad():
            row, feature, value = (t.cpu() for t in sae.encode_sparse(seen.to(sae.W_enc)))
        value = value.double()
        used, place = torch.unique(feature, return_inverse=True)
        decoder = sae.W_dec.detach()[used.to(sae.W_dec.device)].cpu().double()
        f = torch.zeros(len(x), len(used), dtype=torch.float64)
        f[row, place] = value
        b_dec = sae.b_dec.detach().cpu().double()
        return cls(row, feature, value, place, decoder, x - f @ decoder - b_dec, b_dec)


@dataclass(frozen=True)
class MappedParts:
    """Parts of rows after a linear map, float64: row, part [n], vector [n, width]."""

    row: Tensor
    part: Tensor
    vector: Tensor


@dataclass(frozen=True)
class RoleStreams:
    """The residual stream at role positions; a row is prompt * n_roles + role. Float64, CPU.

    position [row]; embedding, position_embedding [row, d_model], the latter None without absolute
    positions; attention, mlp [layer] of [row, d_model]; scale [layer] of [row], of the norm before
    attention; active: layer -> features of that layer's SAE; scores, attends: layer -> [prompt,
    head, role], attention score and pattern from the destination role to each role.
    """

    model: FrozenModel
    roles: tuple[str, ...]
    position: Tensor
    embedding: Tensor
    position_embedding: Tensor | None
    attention: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...]
    scale: tuple[Tensor, ...]
    active: Mapping[int, Active]
    scores: Mapping[int, Tensor]
    attends: Mapping[int, Tensor]

    def rows(self, role: str) -> Tensor:
        """Rows of one role, in the order of prompts."""
        return torch.arange(self.roles.index(role), len(self.position), len(self.roles))

    def residual(self, layer: int) -> Tensor:
        """The stream before `layer` [row, d_model]."""
        x = self.embedding.clone()
        if self.position_embedding is not None:
            x += self.position_embedding
        for attention, mlp in zip(self.attention[:layer], self.mlp[:layer], strict=True):
            x += attention + mlp
        return x

    def mapped(self, layer: int, read: Tensor, numbers: PartNumbers) -> MappedParts:
        """Every part of the stream before `layer` times read [d_model, width]; sums to x read."""
        pieces = [_dense(self.embedding @ read, numbers.of("embedding"))]
        if self.position_embedding is not None:
            pieces.append(_dense(self.position_embedding @ read, numbers.of("position")))
        for m in range(layer):
            pieces.append(_dense(self.mlp[m] @ read, numbers.of("mlp", m)))
            if m not in self.active:
                pieces.append(_dense(self.attention[m] @ read, numbers.of("attention", m)))
                continue
            weights = self.model.weights(m)
            through, own = weights.W_O @ read, self.active[m]
            pieces += active_parts(own, through, numbers, "feature", "sae_error", "sae_bias", m)
            n = len(self.position)
            output_bias = (weights.b_O @ read).expand(n, -1)
            pieces.append(_dense(output_bias, numbers.of("output_bias", m)))
        return joined(pieces)


def role_streams(
    model: FrozenModel,
    saes: Mapping[int, SparseAutoencoder],
    prompts: pl.DataFrame,
    roles: Sequence[str],
    layers: Collection[int],
) -> RoleStreams:
    """Run every prompt once, up to the last of `layers`, and keep the positions of `roles`.

    prompts: rows of ioi_prompts or of TASK_PROMPTS_SCHEMA. roles: the first is the destination of
    scores. Raises PromptError for a role that some prompt lacks or that comes after the
    destination, RdfaError as FrozenModel.run does.
    """
    positions = _positions(prompts, roles)
    last = max(layers)
    kept: dict[str, list[Tensor]] = {}

    def keep(name: str, value: Tensor) -> None:
        kept.setdefault(name, []).append(value)

    for ids, here in zip(prompts["token_ids"].to_list(), positions, strict=True):
        end = int(here[0])
        # Later tokens cannot matter to a causal model.
        run = model.run(torch.tensor(ids[: end + 1]), last + 1, scores=layers)
        keep("embedding", run.embedding[here])
        if run.position_embedding is not None:
            keep("position", run.position_embedding[here])
        for m in range(last):
            keep(f"attention{m}", run.attention[m][here])
            keep(f"mlp{m}", run.mlp[m][here])
            if m in saes:
                keep(f"z{m}", run.z[m][here])
        for layer in layers:
            keep(f"scale{layer}", run.scale[layer][here])
            keep(f"score{layer}", run.score[layer][:, end, here])
            keep(f"attends{layer}", run.pattern[layer][:, end, here])
    rows = {
        name: torch.stack(values) if name.startswith(("score", "attends")) else torch.cat(values)
        for name, values in kept.items()
    }
    return RoleStreams(
        model=model,
        roles=tuple(roles),
        position=positions.flatten(),
        embedding=rows["embedding"],
        position_embedding=rows.get("position"),
        attention=tuple(rows[f"attention{m}"] for m in range(last)),
        mlp=tuple(rows[f"mlp{m}"] for m in range(last)),
        scale=tuple(rows.get(f"scale{layer}", torch.empty(0)) for layer in range(last + 1)),
        active={m: Active.of(saes[m], rows[f"z{m}"]) for m in range(last) if m in saes},
        scores={layer: rows[f"score{layer}"] for layer in layers},
        attends={layer: rows[f"attends{layer}"] for layer in layers},
    )


def active_parts(
    active: Active,
    through: Tensor,
    numbers: PartNumbers,
    feature: str,
    error: str,
    bias: str,
    layer: int,
) -> list[MappedParts]:
    """Features, error and b_dec of one SAE times through [d_in, width]; kinds by these names."""
    vectors = active.value[:, None] * (active.decoder @ through)[active.place]
    of_features = MappedParts(active.row, numbers.of(feature, layer) + active.feature, vectors)
    constant = (active.b_dec @ through).expand(len(active.error), -1)
    return [
        of_features,
        _dense(active.error @ through, numbers.of(error, layer)),
        _dense(constant, numbers.of(bias, layer)),
    ]


def joined(pieces: Sequence[MappedParts]) -> MappedParts:
    """Parts of all pieces."""
    return MappedParts(
        torch.cat([piece.row for piece in pieces]),
        torch.cat([piece.part for piece in pieces]),
        torch.cat([piece.vector for piece in pieces]),
    )


# ---- private -------------------------------------------------------------------------------------


def _dense(vectors: Tensor, number: int) -> MappedParts:
    """A part that every row has."""
    return MappedParts(torch.arange(len(vectors)), torch.full((len(vectors),), number), vectors)


def _positions(prompts: pl.DataFrame, roles: Sequence[str]) -> Tensor:
    """Positions of roles [prompt, role]."""
    columns = [role_positions(prompts, role) for role in roles]
    for role, column in zip(roles, columns, strict=True):
        for prompt, position, end in zip(prompts["prompt"], column, columns[0], strict=True):
            if not 0 <= position <= end:
                where = f"lies behind {roles[0]}" if position > end else "is missing"
                raise PromptError(
                    f"role {role} of prompt {prompt} {where}; leave the prompt out or name other "
                    "roles"
                )
    return torch.tensor(columns).T
