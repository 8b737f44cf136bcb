"""K24's statistics of edits at S2, written down again from the paper: one prompt and one edit at a
time, whole passes from the tokens, sums and quotients in float64.

Fig. 5 (section 4.3): the attention output of some layers at S2 becomes that of another prompt. What
is left of the logit difference is (noised - zeroed) / (clean - zeroed), of means over prompts, with
the same output set to zero, at S2 or at all positions.
Fig. 16 (App. K.1): every feature that is active at S2 in any prompt is taken out there, and the
SAE's error; the change of the logit difference, its mean over the prompts of each order of names.
Fig. 16b: the same with only the values of some heads at S2 reading what is taken out, all else of
the way there as it was.
App. K: SAE reconstructions in place of z at all tokens but BOS, against mean ablation.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

Row = Mapping[str, Any]
Hook = tuple[str, Callable[[Tensor, object], Tensor]]
ORDERS = ("ABBA", "BABA")


class Passes:
    """Passes of one model with one kind of weights."""

    def __init__(self, model: LanguageModel, view: str) -> None:
        self.model = model
        self._run: Any = model.raw if view == "raw" else model.processed
        self._seen: dict[tuple[int, ...], dict[str, Tensor]] = {}

    def cache(self, row: Row) -> dict[str, Tensor]:
        key = tuple(row["token_ids"])
        if key not in self._seen:
            with torch.no_grad():
                found = self._run.run_with_cache(torch.tensor([key]))[1]
            self._seen[key] = {name: value[0] for name, value in found.items()}
        return self._seen[key]

    def logit_difference(self, row: Row, hooks: Iterable[Hook] = ()) -> float:
        ids = torch.tensor([row["token_ids"]])
        with torch.no_grad():
            end = self._run.run_with_hooks(ids, fwd_hooks=list(hooks))[0, -1].double()
        return float(end[row["io_token_id"]] - end[row["s_token_id"]])


def put(name: str, where: int | slice | tuple[int, int], value: Tensor | float) -> Hook:
    """The activation at one position or several, or of one head at one, becomes `value`."""

    def hook(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        x[0][where] = value
        return x

    return name, hook


def noised(passes: Passes, prompts: pl.DataFrame, layers: list[int], variant: str) -> list[float]:
    """Fig. 5: share of the logit difference left, against zero at S2, and at all positions."""
    clean, patched = [], []
    zeroed: dict[str, list[float]] = {"S2": [], "all": []}
    for row in prompts.filter(variant="base").iter_rows(named=True):
        other = prompts.filter(variant=variant, pair_id=row["pair_id"]).row(0, named=True)
        names = [f"blocks.{layer}.hook_attn_out" for layer in layers]
        source = passes.cache(other)
        clean.append(passes.logit_difference(row))
        patched.append(
            passes.logit_difference(
                row, [put(name, row["pos_s2"], source[name][other["pos_s2"]]) for name in names]
            )
        )
        for place, where in (("S2", row["pos_s2"]), ("all", slice(None))):
            zeroed[place].append(
                passes.logit_difference(row, [put(name, where, 0.0) for name in names])
            )
    return [
        (np.mean(patched) - np.mean(zero)) / (np.mean(clean) - np.mean(zero))
        for zero in zeroed.values()
    ]


def taken_out(
    passes: Passes, prompts: pl.DataFrame, sae: SparseAutoencoder, layer: int
) -> dict[tuple[int | None, str], float]:
    """Fig. 16: (feature, order) -> mean change of the logit difference; feature None: the error."""
    return _by_order(
        prompts,
        sae,
        passes,
        layer,
        lambda row, left: passes.logit_difference(
            row, [put(f"blocks.{layer}.attn.hook_z", row["pos_s2"], left)]
        ),
    )


def taken_out_of_values(
    passes: Passes,
    prompts: pl.DataFrame,
    sae: SparseAutoencoder,
    layer: int,
    receivers: list[tuple[int, int]],
    *,
    via_mlp: bool,
) -> dict[tuple[int | None, str], float]:
    """Fig. 16b: the same where the values of `receivers` at S2 alone read it.

    On the way there every head's z is as it was; MLPs compute anew (via_mlp) or are as they were.
    Where heads share values, all heads of a receiver's group read the change.
    """
    config = passes.model.config

    def difference(row: Row, left: Tensor) -> float:
        own, read = passes.cache(row), dict[int, Tensor]()
        hooks: list[Hook] = []
        for at in range(config.n_layers):
            z = own[f"blocks.{at}.attn.hook_z"].clone()
            if at == layer:
                z[row["pos_s2"]] = left
            hooks.append(put(f"blocks.{at}.attn.hook_z", slice(None), z))
            if not via_mlp:
                mlp = f"blocks.{at}.hook_mlp_out"
                hooks.append(put(mlp, slice(None), own[mlp]))

        def keep(x: Tensor, hook: Any) -> Tensor:
            read[hook.layer()] = x[0].clone()
            return x

        hooks += [(f"blocks.{at}.attn.hook_v", keep) for at, _ in receivers]
        passes.logit_difference(row, hooks)
        writing = []
        for at, head in receivers:
            shared = head // (config.n_heads // read[at].shape[1])
            where = row["pos_s2"], shared
            writing.append(put(f"blocks.{at}.attn.hook_v", where, read[at][where]))
        return passes.logit_difference(row, writing)

    return _by_order(prompts, sae, passes, layer, difference)


def spliced(
    passes: Passes, prompts: pl.DataFrame, saes: Mapping[int, SparseAutoencoder], variant: str
) -> float:
    """App. K: share of the logit difference kept; means are those of `variant` at each position.

    A mean is over the variant's prompts of the same template and order of names. Of several layers
    each SAE reads what the reconstructions before it have made of z.
    """
    clean, kept, ablated = [], [], []
    for row in prompts.filter(variant="base").iter_rows(named=True):
        cell = prompts.filter(
            variant=variant, template=row["template"], name_order=row["name_order"]
        )
        reconstructed, mean = [], []
        for layer, sae in saes.items():
            name = f"blocks.{layer}.attn.hook_z"

            def splice(z: Tensor, hook: object, sae: SparseAutoencoder = sae) -> Tensor:
                z = z.clone()
                z[0, 1:] = sae(z[0, 1:].flatten(1)).view_as(z[0, 1:])
                return z

            reconstructed.append((name, splice))
            others = [passes.cache(other)[name][1:] for other in cell.iter_rows(named=True)]
            mean.append(put(name, slice(1, None), torch.stack(others).mean(0)))
        clean.append(passes.logit_difference(row))
        kept.append(passes.logit_difference(row, reconstructed))
        ablated.append(passes.logit_difference(row, mean))
    return float((np.mean(kept) - np.mean(ablated)) / (np.mean(clean) - np.mean(ablated)))


def active_at_s2(
    passes: Passes, prompts: pl.DataFrame, sae: SparseAutoencoder, layer: int
) -> list[int]:
    """Features that are active at S2 in some base prompt."""
    found: set[int] = set()
    for row in prompts.filter(variant="base").iter_rows(named=True):
        z = passes.cache(row)[f"blocks.{layer}.attn.hook_z"][row["pos_s2"]]
        found.update(torch.nonzero(sae.encode(z.flatten()[None])[0]).flatten().tolist())
    return sorted(found)


def _by_order(
    prompts: pl.DataFrame,
    sae: SparseAutoencoder,
    passes: Passes,
    layer: int,
    difference: Callable[[Row, Tensor], float],
) -> dict[tuple[int | None, str], float]:
    """Mean change by what is taken out of z at S2 and by order of names."""
    features = active_at_s2(passes, prompts, sae, layer)
    changes: dict[tuple[int | None, str], list[float]] = {}
    for row in prompts.filter(variant="base").iter_rows(named=True):
        z = passes.cache(row)[f"blocks.{layer}.attn.hook_z"][row["pos_s2"]]
        f = sae.encode(z.flatten()[None])[0]
        clean = passes.logit_difference(row)
        for feature in [*features, None]:
            if feature is None:
                left = sae(z.flatten()[None])[0].view_as(z)
            else:
                left = z - (f[feature] * sae.W_dec[feature]).view_as(z)
            change = difference(row, left) - clean
            changes.setdefault((feature, row["name_order"]), []).append(change)
    return {key: float(np.mean(values)) for key, values in changes.items()}
