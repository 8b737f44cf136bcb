"""Roots of a trace: the heads that write the answer.

Belongs here: direct logit effects and attention of heads at END on prompts of a task. Does not
belong here: head roles in general (heads/), tracing (trace.py).

Source: Wang et al. 2022 (arXiv 2211.00593), section 3.1: name movers attend END -> IO and raise the
logit of IO directly. FC24 starts its traces there. A model may also answer by lowering S at END;
such heads attend END -> S1 or S2 and are roots just as well, at that pair. For other tasks the
source is any role of theirs; taking the most attended one is this project's rule.
"""

from collections.abc import Callable, Sequence

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.slices import firing_pairs
from mechinterp_assets.circuits.trace import Root
from mechinterp_assets.model.identities import attention_scores, hooks_of_scores
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.names import head_name
from mechinterp_assets.prompts.ioi import equal_length_groups
from mechinterp_assets.prompts.roles import (
    END,
    answer_tokens,
    role_names,
    role_positions,
)

# Least direct effect share, attention and share of prompts in which the pair fires.
LIMITS = (0.02, 0.1, 0.05)
IOI_SOURCES = ("IO", "S1", "S2")


def find_roots(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    sources: Sequence[str] = IOI_SOURCES,
    count: int = 3,
    min_effect_share: float = LIMITS[0],
    min_attention: float = LIMITS[1],
    min_firing: float = LIMITS[2],
    threshold: float = 0.5,
    any_score: bool = False,
    max_prompts: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """root_scores with at least one root. Raises CircuitError when no head qualifies."""
    scores = root_scores(
        model,
        prompts,
        sources=sources,
        count=count,
        min_effect_share=min_effect_share,
        min_attention=min_attention,
        min_firing=min_firing,
        threshold=threshold,
        any_score=any_score,
        max_prompts=max_prompts,
        progress=progress,
    )
    if not scores["is_root"].any():
        limits = (min_effect_share, min_attention, min_firing)
        why = no_root(scores, sources, limits)
        raise CircuitError(f"{model.source}: {why}. Name roots yourself or lower the limits")
    return scores


def no_root(
    scores: pl.DataFrame, sources: Sequence[str], limits: tuple[float, float, float] = LIMITS
) -> str:
    """Why no head in a frame of root_scores is a root.

    limits: least direct effect share, attention and share of prompts in which the pair fires.
    """
    effect, attention, firing = limits
    best = scores.sort("direct_effect", descending=True).row(0, named=True)
    attended = best[f"attention_{_column(best['source'])}"]
    return (
        f"no head qualifies as a root: none has a direct effect share >= {effect}, attention from "
        f"END to one of {', '.join(sources)} >= {attention} and a pair that fires in a share >= "
        f"{firing} of prompts; the largest direct effect, {best['direct_effect']:.3g}, has "
        f"{head_name(best['layer'], best['head'])} with attention {attended:.2f} to "
        f"{best['source']}, firing {best['firing']:.2f}"
    )


@torch.no_grad()
def root_scores(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    sources: Sequence[str] = IOI_SOURCES,
    count: int = 3,
    min_effect_share: float = LIMITS[0],
    min_attention: float = LIMITS[1],
    min_firing: float = LIMITS[2],
    threshold: float = 0.5,
    any_score: bool = False,
    max_prompts: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Scores of all heads as roots, best first; `is_root` marks the chosen ones. Processed weights.

    prompts: rows of ioi_prompts, or of one task in the common form (prompts/common.py). sources:
    roles that a root may attend to; ties go to the first (`task_sources` has those of a task).
    A head qualifies when, as means over prompts,
      direct_effect > 0 and at least `min_effect_share` of the sum of all heads' positive effects,
      attention END -> source at least `min_attention`, source being the one of `sources` that it
      attends to most (IO: a name mover),
      the pair (END, source) fires in at least the share `min_firing` of prompts (attention can be
      high with a negative score, from which FC24's rule traces nothing; any_score lets it fire);
    of these the `count` largest by direct_effect are roots.
    Columns: layer, head, direct_effect (logit difference, answers - wrong tokens, that the head's
    output at END adds directly, the final norm's scale being that of the run), effect_share,
    attention_<role> of each source (such as attention_io), firing (share of prompts whose (END,
    source) pair fires), source, is_root. A prompt without a role counts as no attention to it.
    Raises PromptError for prompts without these roles or without answers.
    """
    check_prompts_fit(prompts, model)
    config, weights = model.config, model.weights
    columns = {role: _column(role) for role in sources}
    for role in (END, *sources):
        role_positions(prompts, role)
    if not sources:
        raise CircuitError(
            "no sources; name at least one role that a root may attend to (prompts without roles "
            "but END have none)"
        )
    if count <= 0:
        raise CircuitError(f"count is {count}; ask for at least one root")
    wanted = {
        f"blocks.{layer}.attn.hook_{what}"
        for layer in range(config.n_layers)
        for what in ("z", "pattern", *hooks_of_scores(model))
    }
    wanted.add(f"blocks.{config.n_layers - 1}.hook_resid_post")
    keep: Callable[[str], bool] = wanted.__contains__
    sums = {
        name: torch.zeros(config.n_layers, config.n_heads, dtype=torch.float64)
        for name in (
            "direct_effect",
            *(f"{what}_{c}" for what in ("attention", "firing") for c in columns.values()),
        )
    }
    done = 0
    for group, ids in equal_length_groups(prompts, max_prompts):
        _, cache = model.processed.run_with_cache(
            ids.to(model.device), names_filter=keep, logits_to_keep=1
        )
        each = torch.arange(group.height)
        here = set(role_names(group))
        end = torch.tensor(role_positions(group, END))
        direction = _answer_direction(model, group, cache, end)
        for layer in range(config.n_layers):
            prefix = f"blocks.{layer}.attn.hook_"
            z = cache[prefix + "z"].reshape(*ids.shape, config.n_heads, -1)[each, end]
            reads = torch.einsum("hkd,bd->bhk", weights.W_O[layer], direction)
            sums["direct_effect"][layer] += (z * reads).sum(-1).sum(0).double().cpu()
            pattern, score = cache[prefix + "pattern"], attention_scores(model, cache, layer)
            fires = firing_pairs(pattern, score, threshold, any_score=any_score)
            rows = pattern[each, :, end].double().cpu()
            fires = fires[each, :, end].cpu()
            for role, column in columns.items():
                if role not in here:
                    continue
                source = torch.tensor(role_positions(group, role))
                has = (source >= 0).nonzero()[:, 0]
                sums[f"attention_{column}"][layer] += rows[has, :, source[has]].sum(0)
                sums[f"firing_{column}"][layer] += fires[has, :, source[has]].sum(0)
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
            _most=pl.max_horizontal(*(f"attention_{column}" for column in columns.values())),
        )
        .with_columns(
            source=_of_most_attended({c: pl.lit(role) for role, c in columns.items()}),
            firing=_of_most_attended({c: pl.col(f"firing_{c}") for c in columns.values()}),
            _qualifies=(effect > 0)
            & (pl.col("effect_share") >= min_effect_share)
            & (pl.col("_most") >= min_attention),
        )
        .with_columns(_qualifies=pl.col("_qualifies") & (pl.col("firing") >= min_firing))
        .sort("_qualifies", "direct_effect", "layer", "head", descending=[True, True, False, False])
        .with_row_index("_rank")
    )
    return scores.with_columns(is_root=pl.col("_qualifies") & (pl.col("_rank") < count)).select(
        "layer",
        "head",
        "direct_effect",
        "effect_share",
        *(f"attention_{column}" for column in columns.values()),
        "firing",
        "source",
        "is_root",
    )


def task_sources(prompts: pl.DataFrame) -> list[str]:
    """Roles of a task that a root may attend to: IO, S1, S2 for IOI, else all but END."""
    names = role_names(prompts)
    if set(IOI_SOURCES) <= set(names):
        return list(IOI_SOURCES)
    return [name for name in names if name != END]


def root_heads(scores: pl.DataFrame) -> list[Root]:
    """The roots in a frame of find_roots, best first."""
    chosen = scores.filter("is_root").select("layer", "head", "source")
    return [Root(*row) for row in chosen.iter_rows()]


def _column(role: str) -> str:
    return role.lower().replace("+1", "_next")


def _of_most_attended(values: dict[str, pl.Expr]) -> pl.Expr:
    """The value of the role with most attention; ties go to the first."""
    first, *others = reversed(values)
    expression = values[first]
    for role in others:
        most = pl.col(f"attention_{role}") >= pl.col("_most")
        expression = pl.when(most).then(values[role]).otherwise(expression)
    return expression


def _answer_direction(
    model: LanguageModel, group: pl.DataFrame, cache: dict[str, Tensor], end: Tensor
) -> Tensor:
    """Residual direction at END that adds one unit of the logit difference [prompt, d_model]."""
    each = torch.arange(group.height)
    final = cache[f"blocks.{model.config.n_layers - 1}.hook_resid_post"][each, end]
    centred = model.config.normalization == "LN"
    if centred:
        final = final - final.mean(-1, keepdim=True)
    scale = (final.double().square().mean(-1, keepdim=True) + model.config.eps).sqrt()
    W_U = model.weights.W_U
    direction = torch.stack(
        [W_U[:, answers].mean(1) - W_U[:, wrong].mean(1) for answers, wrong in answer_tokens(group)]
    )
    if centred:
        direction = direction - direction.mean(-1, keepdim=True)
    return direction / scale.to(direction)
