"""Roots of a trace: the heads that write the answer.

Belongs here: direct logit effects and attention of heads at END on IOI prompts. Does not belong
here: head roles in general (heads/), tracing (trace.py).

Source: Wang et al. 2022 (arXiv 2211.00593), section 3.1: name movers attend END -> IO and raise the
logit of IO directly. FC24 starts its traces there. A model may also answer by lowering S at END;
such heads attend END -> S1 or S2 and are roots just as well, at that pair.
"""

from collections.abc import Callable

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.circuits.ioi import equal_length_groups
from mechinterp_assets.circuits.omega import CircuitError
from mechinterp_assets.circuits.slices import firing_pairs
from mechinterp_assets.circuits.trace import Root
from mechinterp_assets.language_model import LanguageModel

_SOURCES = ("io", "s1", "s2")
_COLUMNS = (
    "layer",
    "head",
    "direct_effect",
    "effect_share",
    "attention_io",
    "attention_s1",
    "attention_s2",
    "firing",
    "source",
    "is_root",
)


@torch.no_grad()
def find_roots(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    count: int = 3,
    min_effect_share: float = 0.02,
    min_attention: float = 0.1,
    min_firing: float = 0.05,
    threshold: float = 0.5,
    max_prompts: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Scores of all heads as roots, best first; `is_root` marks the chosen ones. Processed weights.

    A head qualifies when, as means over prompts,
      direct_effect > 0 and at least `min_effect_share` of the sum of all heads' positive effects,
      attention END -> source at least `min_attention`, source being the one of IO, S1 and S2 that
      it attends to most (IO: a name mover),
      the pair (END, source) fires in at least the share `min_firing` of prompts (attention can be
      high with a negative score, from which there is nothing to trace);
    of these the `count` largest by direct_effect are roots.
    Columns: layer, head, direct_effect (logit difference IO - S that the head's output at END adds
    directly, the final norm's scale being that of the run), effect_share, attention_io,
    attention_s1, attention_s2, firing (share of prompts whose (END, source) pair fires), source,
    is_root.
    Raises CircuitError when no head qualifies.
    """
    check_prompts_fit(prompts, model)
    config, weights = model.config, model.weights
    if count <= 0:
        raise CircuitError(f"count is {count}; ask for at least one root")
    wanted = {
        f"blocks.{layer}.attn.hook_{what}"
        for layer in range(config.n_layers)
        for what in ("z", "pattern", "attn_scores")
    }
    wanted.add(f"blocks.{config.n_layers - 1}.hook_resid_post")
    keep: Callable[[str], bool] = wanted.__contains__
    sums = {
        name: torch.zeros(config.n_layers, config.n_heads, dtype=torch.float64)
        for name in (
            "direct_effect",
            *(f"{what}_{role}" for what in ("attention", "firing") for role in _SOURCES),
        )
    }
    done = 0
    for group, ids in equal_length_groups(prompts, max_prompts):
        _, cache = model.processed.run_with_cache(
            ids.to(model.device), names_filter=keep, logits_to_keep=1
        )
        each = torch.arange(group.height)
        at = {
            c: torch.tensor(group[c].to_list()) for c in ("pos_end", "pos_io", "pos_s1", "pos_s2")
        }
        direction = _answer_direction(model, group, cache, at["pos_end"])
        for layer in range(config.n_layers):
            prefix = f"blocks.{layer}.attn.hook_"
            z = cache[prefix + "z"].reshape(*ids.shape, config.n_heads, -1)[each, at["pos_end"]]
            reads = torch.einsum("hkd,bd->bhk", weights.W_O[layer], direction)
            sums["direct_effect"][layer] += (z * reads).sum(-1).sum(0).double().cpu()
            pattern, score = cache[prefix + "pattern"], cache[prefix + "attn_scores"]
            fires = firing_pairs(pattern, score, threshold)
            rows = pattern[each, :, at["pos_end"]].double().cpu()
            for role in _SOURCES:
                source = at[f"pos_{role}"]
                sums[f"attention_{role}"][layer] += rows[each, :, source].sum(0)
                sums[f"firing_{role}"][layer] += fires[each, :, at["pos_end"], source].sum(0).cpu()
        done += group.height
        if progress is not None:
            progress(done, prompts.height)
    means = {name: value / prompts.height for name, value in sums.items()}
    layer_head = torch.cartesian_prod(torch.arange(config.n_layers), torch.arange(config.n_heads))
    effect = pl.col("direct_effect")
    scores = (
        pl.DataFrame(
            {
                "layer": layer_head[:, 0].numpy(),
                "head": layer_head[:, 1].numpy(),
                **{name: value.flatten().numpy() for name, value in means.items()},
            },
            schema_overrides={"layer": pl.Int32(), "head": pl.Int32()},
        )
        .with_columns(
            effect_share=effect / effect.clip(0).sum(),
            _most=pl.max_horizontal(*(f"attention_{role}" for role in _SOURCES)),
        )
        .with_columns(
            source=_of_most_attended({role: pl.lit(role.upper()) for role in _SOURCES}),
            firing=_of_most_attended({role: pl.col(f"firing_{role}") for role in _SOURCES}),
            _qualifies=(effect > 0)
            & (pl.col("effect_share") >= min_effect_share)
            & (pl.col("_most") >= min_attention),
        )
        .with_columns(_qualifies=pl.col("_qualifies") & (pl.col("firing") >= min_firing))
        .sort("_qualifies", "direct_effect", "layer", "head", descending=[True, True, False, False])
        .with_row_index("_rank")
    )
    if not scores["_qualifies"].any():
        best = scores.sort("direct_effect", descending=True).row(0, named=True)
        raise CircuitError(
            f"no head of {model.source} qualifies as a root: none has a direct effect share >= "
            f"{min_effect_share}, attention from END to a name >= {min_attention} and a pair that "
            f"fires in a share >= {min_firing} of prompts; the largest direct effect, "
            f"{best['direct_effect']:.3g}, has {best['layer']}.{best['head']} with attention "
            f"{best['_most']:.2f} to {best['source']}, firing {best['firing']:.2f}. Name roots "
            "yourself or lower the limits"
        )
    return scores.with_columns(is_root=pl.col("_qualifies") & (pl.col("_rank") < count)).select(
        *_COLUMNS
    )


def root_heads(scores: pl.DataFrame) -> list[Root]:
    """The roots in a frame of find_roots, best first."""
    chosen = scores.filter("is_root").select("layer", "head", "source")
    return [Root(*row) for row in chosen.iter_rows()]


def _of_most_attended(values: dict[str, pl.Expr]) -> pl.Expr:
    """The value of the role with most attention; ties go to IO, then S1."""
    expression = values["s2"]
    for role in ("s1", "io"):
        most = pl.col(f"attention_{role}") >= pl.col("_most")
        expression = pl.when(most).then(values[role]).otherwise(expression)
    return expression


def _answer_direction(
    model: LanguageModel, group: pl.DataFrame, cache: dict[str, Tensor], end: Tensor
) -> Tensor:
    """Residual direction at END that adds one unit of logit IO - S [prompt, d_model]."""
    each = torch.arange(group.height)
    final = cache[f"blocks.{model.config.n_layers - 1}.hook_resid_post"][each, end]
    centred = model.config.normalization == "LN"
    if centred:
        final = final - final.mean(-1, keepdim=True)
    scale = (final.double().square().mean(-1, keepdim=True) + model.config.eps).sqrt()
    io, s = (group[c].to_list() for c in ("io_token_id", "s_token_id"))
    direction = (model.weights.W_U[:, io] - model.weights.W_U[:, s]).T
    if centred:
        direction = direction - direction.mean(-1, keepdim=True)
    return direction / scale.to(direction)
