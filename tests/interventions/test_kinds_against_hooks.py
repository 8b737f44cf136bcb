"""Every kind against TransformerLens's own hooks, written naively: one prompt, from its tokens."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.prompts import ROLE_COLUMNS, donors
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder

Row = Mapping[str, Any]
Hooks = list[tuple[str, Callable[[Tensor, object], Tensor]]]
Saes = dict[int, SparseAutoencoder]
HOOK = {"z": "attn.hook_z", "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}


@pytest.fixture(scope="module")
def prompts(organism: LanguageModel) -> pl.DataFrame:
    variants = ("base", "ABC", "swap", "random_names", "filler_before", "and_alongside")
    return ioi_prompts(organism.encode, 3, 0, organism.bos_token_id, variants)


@pytest.fixture(scope="module")
def saes(busy: LanguageModel) -> Saes:
    return {layer: random_sae(busy, layer) for layer in range(busy.config.n_layers)}


def random_sae(model: LanguageModel, seed: int) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    width = model.config.d_z
    W = torch.randn(width, 48, generator=generator) / width**0.5
    b_dec = 0.1 * torch.randn(width, generator=generator)
    decoder = torch.nn.functional.normalize(W.T.contiguous(), dim=1)
    return TopKSAE(W, torch.zeros(48), decoder, b_dec, k=16)


def bridge(model: LanguageModel, view: str) -> Any:
    return model.raw if view == "raw" else model.processed


def cached(model: LanguageModel, view: str, row: Row) -> Any:
    return bridge(model, view).run_with_cache(torch.tensor([row["token_ids"]]))[1]


def logits(model: LanguageModel, view: str, row: Row, hooks: Hooks) -> Tensor:
    ids = torch.tensor([row["token_ids"]])
    out: Tensor = bridge(model, view).run_with_hooks(ids, fwd_hooks=hooks)
    return out[0, -1]


def at(row: Row, role: str) -> Any:
    """Index of a role's position, or of all."""
    return slice(None) if role == "all" else row[ROLE_COLUMNS[role]]


def set_at(where: Any, value: Tensor) -> Callable[[Tensor, object], Tensor]:
    def hook(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        x[(0, *where) if isinstance(where, tuple) else (0, where)] = value
        return x

    return hook


def check(
    model: LanguageModel,
    prompts: pl.DataFrame,
    given: dict[str, Any],
    naive: Callable[[Row, str], Tensor],
    *,
    view: str = "processed",
    atol: float = 2e-4,
    **more: Any,
) -> pl.DataFrame:
    """Compare logit_diff and kl of every base prompt with a naive run's; returns the frame."""
    frame = run(model, prompts, [given], **more)
    assert frame["weights"].unique().to_list() == [view]
    changes = []
    for row in prompts.filter(variant="base").iter_rows(named=True):
        own = frame.filter(prompt=row["prompt"])
        got = dict(own.select("metric", "patched").iter_rows())
        with torch.no_grad():
            patched, clean = naive(row, view).double(), logits(model, view, row, []).double()
        diff = float(patched[row["io_token_id"]] - patched[row["s_token_id"]])
        p = clean.softmax(-1)
        kl = float((p * (clean.log_softmax(-1) - patched.log_softmax(-1))).sum())
        assert got["logit_diff"] == pytest.approx(diff, abs=atol)
        assert got["kl"] == pytest.approx(kl, abs=atol)
        change = patched - clean
        changes.append(float(change[row["io_token_id"]] - change[row["s_token_id"]]))
    assert max(map(abs, changes)) > 20 * atol  # something happened
    return frame


def other(prompts: pl.DataFrame, row: Row, variant: str) -> Row:
    return prompts.filter(variant=variant, pair_id=row["pair_id"]).row(0, named=True)


# ---- ablation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["z", "attn_out", "mlp_out"])
@pytest.mark.parametrize("mode", ["zero", "mean_counterfactual", "resample_counterfactual"])
def test_layer_ablation(busy: LanguageModel, prompts: pl.DataFrame, site: str, mode: str) -> None:
    layer, role, view = 2, "S2", "raw" if site == "z" else "processed"
    given = {"kind": "layer_ablation", "site": site, "mode": mode, "layer": layer}
    given |= {"position_role": role, "weights": view}
    if mode == "resample_counterfactual":
        given["seed"] = 3
    name = f"blocks.{layer}.{HOOK[site]}"
    base, abc = prompts.filter(variant="base"), prompts.filter(variant="ABC")
    drawn = dict(zip(base["prompt"], donors(base, abc, 3).iter_rows(named=True), strict=True))

    def naive(row: Row, view: str) -> Tensor:
        place = at(row, role)
        target = torch.zeros_like(cached(busy, view, row)[name][0, place])
        if mode == "mean_counterfactual":  # one ABC prompt per cell
            target = cached(busy, view, other(prompts, row, "ABC"))[name][0, place]
        if mode == "resample_counterfactual":
            target = cached(busy, view, drawn[row["prompt"]])[name][0, place]
        return logits(busy, view, row, [(name, set_at(place, target))])

    check(busy, prompts, given, naive, view=view)


def test_head_resampling_at_all_positions(busy: LanguageModel, prompts: pl.DataFrame) -> None:
    base, abc = prompts.filter(variant="base"), prompts.filter(variant="ABC")
    drawn = dict(zip(base["prompt"], donors(base, abc, 0).iter_rows(named=True), strict=True))
    name = "blocks.1.attn.hook_z"

    def naive(row: Row, view: str) -> Tensor:
        target = cached(busy, view, drawn[row["prompt"]])[name][0, :, 5]
        return logits(busy, view, row, [(name, set_at((slice(None), 5), target))])

    given = {
        "kind": "head_ablation",
        "mode": "resample_counterfactual",
        "layer": 1,
        "head": 5,
        "seed": 0,
    }
    check(busy, prompts, given, naive)


# ---- activation patching -------------------------------------------------------------------------

PATCHES = [
    ("noise", "attn_out", None, "S2", "swap"),
    ("noise", "mlp_out", None, "END", "random_names"),
    ("noise", "z", 4, "END", "ABC"),
    ("noise", "z", None, "all", "and_alongside"),
    ("noise", "resid_pre", None, "IO", "filler_before"),
    ("noise", "resid_mid", None, "S2", "random_names"),
    ("denoise", "resid_post", None, "END", "ABC"),
    ("denoise", "attn_out", None, "S2", "filler_before"),
    ("denoise", "z", 2, "all", "ABC"),
    ("denoise", "resid_mid", None, "END", "filler_before"),
]


@pytest.mark.parametrize(("mode", "site", "head", "role", "variant"), PATCHES)
def test_activation_patching(
    busy: LanguageModel,
    prompts: pl.DataFrame,
    mode: str,
    site: str,
    head: int | None,
    role: str,
    variant: str,
) -> None:
    layer = 2

    def naive(row: Row, view: str) -> Tensor:
        clean, corrupt = row, other(prompts, row, variant)
        into, source = (clean, corrupt) if mode == "noise" else (corrupt, clean)
        cache, own = cached(busy, view, source), cached(busy, view, into)
        if site == "resid_mid":  # what attention adds makes the residual stream the other's
            target = cache[f"blocks.{layer}.hook_resid_mid"][0, at(source, role)]
            target = target - own[f"blocks.{layer}.hook_resid_pre"][0, at(into, role)]
            name = f"blocks.{layer}.hook_attn_out"
        else:
            name = f"blocks.{layer}.{HOOK.get(site, f'hook_{site}')}"
            target = cache[name][0, at(source, role)]
        where: Any = at(into, role)
        if head is not None:
            where, target = (where, head), target[..., head, :]
        return logits(busy, view, into, [(name, set_at(where, target))])

    given = {"kind": "activation_patching", "mode": mode, "site": site, "layer": layer}
    given |= {"position_role": role, "source_variant": variant}
    if head is not None:
        given["head"] = head
    frame = check(busy, prompts, given, naive)
    for row in prompts.filter(variant="base").iter_rows(named=True):
        corrupt = logits(busy, "processed", other(prompts, row, variant), [])
        diff = float(corrupt[row["io_token_id"]] - corrupt[row["s_token_id"]])
        got = frame.filter(prompt=row["prompt"], metric="logit_diff")["corrupt"][0]
        assert got == pytest.approx(diff, abs=1e-4)


def test_ablated_runs(busy: LanguageModel, prompts: pl.DataFrame) -> None:
    given = {"kind": "activation_patching", "mode": "noise", "site": "attn_out", "layer": 2}
    given |= {"position_role": "S2", "source_variant": "swap", "versus": ["zero", "zero_all"]}
    frame = run(busy, prompts, [given]).filter(metric="logit_diff")
    assert frame["ablated_run"].unique(maintain_order=True).to_list() == [
        "zero:attn_out:L2:S2",
        "zero:attn_out:L2:all",
    ]
    for row in prompts.filter(variant="base").iter_rows(named=True):
        for run_id, where in (("S2", at(row, "S2")), ("all", slice(None))):
            zeroed = logits(
                busy,
                "processed",
                row,
                [("blocks.2.hook_attn_out", set_at(where, torch.tensor(0.0)))],
            )
            got = frame.filter(prompt=row["prompt"], ablated_run=f"zero:attn_out:L2:{run_id}")
            diff = float(zeroed[row["io_token_id"]] - zeroed[row["s_token_id"]])
            assert got["ablated"][0] == pytest.approx(diff, abs=1e-4)


# ---- path patching -------------------------------------------------------------------------------


def frozen_hooks(
    own: Any,
    n_layers: int,
    senders: Mapping[tuple[int, int], tuple[Any, Tensor]],
    via_mlp: bool,
    skip: int = -1,
) -> Hooks:
    """All z frozen to `own` but the senders', {(layer, head): (positions, z)}; MLPs if asked."""
    hooks: Hooks = []
    for layer in range(n_layers):
        z = own[f"blocks.{layer}.attn.hook_z"].clone()
        for (sender, head), (where, value) in senders.items():
            if sender == layer:
                z[0, where, head] = value
        if layer != skip:
            hooks.append((f"blocks.{layer}.attn.hook_z", lambda x, hook, z=z: z))
        if not via_mlp:
            mlp = own[f"blocks.{layer}.hook_mlp_out"]
            hooks.append((f"blocks.{layer}.hook_mlp_out", lambda x, hook, mlp=mlp: mlp))
    return hooks


def received(
    model: LanguageModel,
    view: str,
    row: Row,
    hooks: Hooks,
    receiver: str,
    receivers: list[tuple[int, int]],
    role: str,
) -> Tensor:
    """Second pass of path patching: receivers get what they read in the pass with `hooks`."""
    seen: dict[int, Tensor] = {}
    reading: Hooks = []
    for layer in {layer for layer, _ in receivers}:

        def read(x: Tensor, hook: object, layer: int = layer) -> Tensor:
            seen[layer] = x.clone()
            return x

        reading.append((f"blocks.{layer}.attn.hook_{receiver}", read))
    logits(model, view, row, [*hooks, *reading])
    writing: Hooks = []
    for layer, head in receivers:
        value = seen[layer][0, at(row, role), head]
        writing.append(
            (f"blocks.{layer}.attn.hook_{receiver}", set_at((at(row, role), head), value))
        )
    return logits(model, view, row, writing)


@pytest.mark.parametrize("via_mlp", [True, False])
@pytest.mark.parametrize(
    ("mode", "senders", "role", "receiver", "receivers", "read_role", "variant"),
    [
        ("noise", [(1, 0)], "all", "logits", None, "END", "ABC"),
        ("noise", [(0, 3), (2, 6)], "END", "logits", None, "END", "filler_before"),
        ("noise", [(1, 0)], "END", "q", [(3, 3), (4, 3)], "END", "ABC"),
        ("noise", [(0, 1), (0, 2)], "S2", "k", [(2, 6)], "all", "swap"),
        ("denoise", [(1, 0)], "S2", "v", [(2, 6), (2, 1)], "S2", "filler_before"),
    ],
)
def test_path_patching(
    busy: LanguageModel,
    prompts: pl.DataFrame,
    via_mlp: bool,
    mode: str,
    senders: list[tuple[int, int]],
    role: str,
    receiver: str,
    receivers: list[tuple[int, int]] | None,
    read_role: str,
    variant: str,
) -> None:
    n_layers = busy.config.n_layers

    def naive(row: Row, view: str) -> Tensor:
        clean, corrupt = row, other(prompts, row, variant)
        into, source = (clean, corrupt) if mode == "noise" else (corrupt, clean)
        cache, own = cached(busy, view, source), cached(busy, view, into)
        sent = {
            (layer, head): (
                at(into, role),
                cache[f"blocks.{layer}.attn.hook_z"][0, at(source, role), head],
            )
            for layer, head in senders
        }
        hooks = frozen_hooks(own, n_layers, sent, via_mlp)
        if receivers is None:
            return logits(busy, view, into, hooks)
        return received(busy, view, into, hooks, receiver, receivers, read_role)

    given: dict[str, Any] = {"kind": "path_patching", "mode": mode, "senders": senders}
    given |= {"position_role": role, "receiver": receiver, "source_variant": variant}
    given |= {"via_mlp": via_mlp}
    if receivers is not None:
        given |= {"receivers": receivers, "receiver_role": read_role}
    check(busy, prompts, given, naive)


# ---- SAE kinds, steering, scaling ----------------------------------------------------------------


def feature_part(sae: SparseAutoencoder, z: Tensor, feature: int) -> Tensor:
    f = sae.encode(z.flatten(1))[:, feature, None]
    return (f * sae.W_dec[feature]).reshape(z.shape)


def test_sae_feature_ablation(busy: LanguageModel, prompts: pl.DataFrame, saes: Saes) -> None:
    given = {"kind": "sae_feature_ablation", "layer": 2, "position_role": "S2"}
    for row in prompts.filter(variant="base").head(1).iter_rows(named=True):
        z = cached(busy, "raw", row)["blocks.2.attn.hook_z"][0, [row["pos_s2"]]]
        given["feature"] = int(saes[2].encode(z.flatten(1)).argmax())

    def naive(row: Row, view: str) -> Tensor:
        z = cached(busy, view, row)["blocks.2.attn.hook_z"][0, [row["pos_s2"]]]
        left = z - feature_part(saes[2], z, given["feature"])
        return logits(busy, view, row, [("blocks.2.attn.hook_z", set_at(row["pos_s2"], left[0]))])

    frame = check(busy, prompts, given, naive, view="raw", saes=saes)
    assert frame["error_kept"].all()


def test_splice_of_several_layers(busy: LanguageModel, prompts: pl.DataFrame, saes: Saes) -> None:
    layers = (1, 3)

    def naive(row: Row, view: str) -> Tensor:
        def splice(x: Tensor, hook: object, sae: SparseAutoencoder) -> Tensor:
            x = x.clone()
            x[0, 1:] = sae(x[0, 1:].flatten(1)).reshape(x[0, 1:].shape)
            return x

        hooks: Hooks = [
            (
                f"blocks.{layer}.attn.hook_z",
                lambda x, hook, sae=saes[layer]: splice(x, hook, sae),
            )
            for layer in layers
        ]
        return logits(busy, view, row, hooks)

    members = [{"kind": "sae_splice", "layer": layer, "versus": "zero_all"} for layer in layers]
    given = {"name": "both", "members": members}
    frame = check(busy, prompts, given, naive, view="raw", saes=saes)
    reference = "set:zero:z:L1:all:raw+zero:z:L3:all:raw"
    assert frame["ablated_run"].unique().to_list() == [reference]
    assert frame["ablated"].null_count() == 0


@pytest.mark.parametrize("via_mlp", [True, False])
def test_sae_feature_path(
    busy: LanguageModel, prompts: pl.DataFrame, saes: Saes, via_mlp: bool
) -> None:
    row = prompts.row(0, named=True)
    z = cached(busy, "raw", row)["blocks.1.attn.hook_z"][0, [row["pos_s2"]]]
    feature = int(saes[1].encode(z.flatten(1)).argmax())
    receivers = [(2, 6), (3, 3)]

    def naive(row: Row, view: str) -> Tensor:
        own = cached(busy, view, row)
        place = row["pos_s2"]
        z = own["blocks.1.attn.hook_z"][0, [place]]
        left = (z - feature_part(saes[1], z, feature))[0]
        sent = {(1, head): (place, left[head]) for head in range(busy.config.n_heads)}
        hooks = frozen_hooks(own, busy.config.n_layers, sent, via_mlp)
        return received(busy, view, row, hooks, "v", receivers, "S2")

    given: dict[str, Any] = {"kind": "sae_feature_path", "layer": 1, "feature": feature}
    given |= {"position_role": "S2", "receiver": "v", "receivers": receivers, "via_mlp": via_mlp}
    check(busy, prompts, given, naive, view="raw", saes=saes)


@pytest.mark.parametrize("via_mlp", [True, False])
def test_sae_error_path(
    busy: LanguageModel, prompts: pl.DataFrame, saes: Saes, via_mlp: bool
) -> None:
    """What the receivers read is what the reconstruction would have sent them."""
    receivers = [(2, 6), (3, 3)]

    def naive(row: Row, view: str) -> Tensor:
        own = cached(busy, view, row)
        place = row["pos_s2"]
        z = own["blocks.1.attn.hook_z"][0, place]
        kept = saes[1](z.flatten()[None])[0].reshape(z.shape)
        sent = {(1, head): (place, kept[head]) for head in range(busy.config.n_heads)}
        hooks = frozen_hooks(own, busy.config.n_layers, sent, via_mlp)
        return received(busy, view, row, hooks, "v", receivers, "S2")

    given: dict[str, Any] = {"kind": "sae_error_path", "layer": 1, "position_role": "S2"}
    given |= {"receiver": "v", "receivers": receivers, "via_mlp": via_mlp}
    check(busy, prompts, given, naive, view="raw", saes=saes)


def test_steering(busy: LanguageModel, prompts: pl.DataFrame, saes: Saes) -> None:
    w = busy.raw_weights
    decoder = saes[2].W_dec[7].reshape(busy.config.n_heads, -1)
    vector = torch.einsum("hk,hkd->d", decoder, w.W_O[2])
    named = torch.randn(busy.config.d_model, generator=torch.Generator().manual_seed(0))

    def adding(name: str, vector: Tensor) -> Callable[[Row, str], Tensor]:
        def add(x: Tensor, hook: object, place: int) -> Tensor:
            x = x.clone()
            x[0, place] += vector
            return x

        return lambda row, view: logits(
            busy, view, row, [(name, lambda x, hook: add(x, hook, row["pos_end"]))]
        )

    given = {"kind": "steering", "layer": 2, "feature": 7, "alpha": 5, "position_role": "END"}
    check(
        busy,
        prompts,
        given,
        adding("blocks.2.hook_attn_out", 5 * vector),
        view="raw",
        saes=saes,
    )
    given = {"kind": "steering", "layer": 3, "site": "resid_post", "direction": "random"}
    given |= {"alpha": -2, "position_role": "END", "weights": "processed"}
    check(
        busy,
        prompts,
        given,
        adding("blocks.3.hook_resid_post", -2 * named),
        directions={"random": named},
    )


@pytest.mark.parametrize("channel", [None, 3])
def test_head_scaling(busy: LanguageModel, prompts: pl.DataFrame, channel: int | None) -> None:
    def naive(row: Row, view: str) -> Tensor:
        def scale(x: Tensor, hook: object) -> Tensor:
            x = x.clone()
            part = slice(None) if channel is None else channel
            x[0, :, 0, part] *= -1.5
            return x

        return logits(busy, view, row, [("blocks.1.attn.hook_z", scale)])

    given = {"kind": "head_scaling", "layer": 1, "head": 0, "alpha": -1.5, "channel": channel}
    check(busy, prompts, given, naive)


# ---- sets and watched heads ----------------------------------------------------------------------


def test_a_set_of_kinds_and_a_watched_head(
    busy: LanguageModel, prompts: pl.DataFrame, saes: Saes
) -> None:
    """Two heads' z, a splice behind them and a patch of an MLP; raw weights."""
    row = prompts.row(0, named=True)

    def naive(row: Row, view: str) -> Tensor:
        corrupt = cached(busy, view, other(prompts, row, "swap"))
        place, name = row["pos_end"], "blocks.2.hook_mlp_out"

        def splice(x: Tensor, hook: object) -> Tensor:
            x = x.clone()
            x[0, place] = saes[1](x[0, [place]].flatten(1)).reshape(x[0, place].shape)
            return x

        return logits(
            busy,
            view,
            row,
            [
                ("blocks.0.attn.hook_z", set_at((slice(None), 2), torch.tensor(0.0))),
                ("blocks.1.attn.hook_z", splice),
                (name, set_at(place, corrupt[name][0, place])),
            ],
        )

    watch = {"layer": 4, "head": 3, "destination_role": "END", "source_role": "IO"}
    given = {
        "name": "mixed",
        "watch": watch,
        "members": [
            {"kind": "head_ablation", "mode": "zero", "layer": 0, "head": 2, "weights": "raw"},
            {"kind": "sae_splice", "layer": 1, "position_role": "END"},
            {
                "kind": "activation_patching",
                "mode": "noise",
                "site": "mlp_out",
                "layer": 2,
                "position_role": "END",
                "source_variant": "swap",
                "weights": "raw",
            },
        ],
    }
    frame = check(busy, prompts, given, naive, view="raw", saes=saes)
    assert frame["watched"].unique().to_list() == ["L4H3:END<-IO"]
    score = frame.filter(metric="attn_score")
    assert score.height == 3
    cache = cached(busy, "raw", row)
    expected = cache["blocks.4.attn.hook_attn_scores"][0, 3, row["pos_end"], row["pos_io"]]
    assert score["clean"][0] == pytest.approx(float(expected), abs=1e-4)
    swapped = other(prompts, row, "swap")
    cache = cached(busy, "raw", swapped)
    expected = cache["blocks.4.attn.hook_attn_scores"][0, 3, swapped["pos_end"], swapped["pos_io"]]
    assert score["corrupt"][0] == pytest.approx(float(expected), abs=1e-4)
    assert (score["patched"] - score["clean"]).abs().max() > 1e-3
