"""Which pairs of query and key features the attention scores of some heads are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from mechinterp_assets.defs.tasks.prompts_of import NoPromptsError, base_prompts
from mechinterp_assets.model.names import head_name
from mechinterp_assets.orchestration.artefacts import open_saes
from mechinterp_assets.orchestration.head_roles import SCORE_TABLES, head_roles
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables
from mechinterp_assets.sae.settings import layer_folder

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Mapping, Sequence

    from mechinterp_assets.attribution.qk_pairs import PairTables
    from mechinterp_assets.sae.base import SparseAutoencoder

TABLES = ("qk_feature_pairs", "qk_feature_kinds", "qk_feature_summary")
CARRIED = ("qk_carried_pairs", "qk_carried_kinds", "qk_carried_summary")
ROLE, FALLBACK = "name_mover", "ioi_attention_io"
CARRIER_ROLE, CARRIER_FALLBACK = "s_inhibition", "ioi_attention_s2"
HEAD = ("layer", "head")


@tables(
    *TABLES,
    *CARRIED,
    reads=["language_model", "ioi_prompts", "task_prompts", *SCORE_TABLES, "attention_sae"],
    settings=["qk_features", "residual_sae"],
    files=["qk_features.residual_sae"],
    seed=0,
    pool=GPU,
    kinds=["torch"],
    needs=["recursive_attribution", "query_key"],
)
def qk_features(run: Run) -> Made:
    """What queries at END and keys at the names are made of, and which pairs make the score.

    Queries by their writers at END (qk_feature_*), and by what S-inhibition heads bring there from
    S2 (qk_carried_*).
    """
    from mechinterp_assets.attribution.frozen_forward import RdfaError
    from mechinterp_assets.attribution.qk_features import QkFeatureError
    from mechinterp_assets.attribution.qk_features import qk_features as split_scores
    from mechinterp_assets.prompts.ioi import PromptError

    settings = run.study.qk_features
    try:
        prompts = base_prompts(run, settings.task).head(settings.prompts)
    except NoPromptsError as reason:
        return run.nothing(str(reason), *TABLES, *CARRIED)
    heads = _heads(run)
    first = max(layer for layer, _ in heads)
    saes = open_saes(run, [layer for layer in run.study.layers if layer < first])
    residual_saes = _residual_saes(run, {layer for layer, _ in heads})
    try:
        found = split_scores(
            run.model, saes, prompts, list(heads), settings, residual_saes=residual_saes
        )
    except (QkFeatureError, RdfaError, PromptError) as reason:
        return run.nothing(str(reason), *TABLES, *CARRIED)
    return run.made(
        {
            **_frames(TABLES, found, HEAD, heads, settings.task),
            **_carried(run, heads, saes, residual_saes, prompts),
        },
        {
            "qk_feature_pairs": {
                "heads": "; ".join(f"{head_name(*head)}: {why}" for head, why in heads.items()),
                "largest_identity_error": float(found.pairs["identity_error"].to_numpy().max()),
            }
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _heads(run: Run) -> dict[tuple[int, int], str]:
    """Heads and why: the study's own, else name movers, else those that attend END -> IO most."""
    settings = run.study.qk_features
    if settings.heads != "auto":
        return dict.fromkeys(settings.heads, "named in qk_features.heads")
    movers, reason = _ranked(run, ROLE, FALLBACK)
    rows = movers.head(settings.max_heads).select(HEAD).sort(HEAD).rows()
    return {(int(layer), int(head)): reason for layer, head in rows}


def _ranked(
    run: Run, role: str, fallback: str, *, positive: bool = False
) -> tuple[pl.DataFrame, str]:
    """Heads with a role, else by the score `fallback`, largest first; and which of the two.

    positive: scores that are not do not count.
    """
    scores = [run.frame(name) for name in SCORE_TABLES]
    found, reason = head_roles(*scores).filter(pl.col("role") == role), f"role {role}"
    if found.is_empty():
        found = scores[1].filter(pl.col("score") == fallback)
        found = found.filter(pl.col("value") > 0) if positive else found
        reason = f"largest {fallback}; no head has the role {role}"
    return found.sort("value", *HEAD, descending=[True, False, False]), reason


def _frames(
    names: Sequence[str],
    found: PairTables,
    key: Sequence[str],
    chosen: Mapping[tuple[Any, ...], str],
    task: str,
) -> dict[str, pl.DataFrame]:
    """Tables of pairs, kinds and a summary by their names, with the task.

    chosen: columns of the key -> why these heads; kinds do not have it.
    """
    reasons = pl.DataFrame(
        [(*heads, reason) for heads, reason in chosen.items()],
        schema={**dict.fromkeys(key, pl.Int32), "chosen_by": pl.String},
        orient="row",
    )
    pairs, summary = (
        frame.join(reasons, on=key, how="left", maintain_order="left")
        for frame in (found.pairs, found.summary)
    )
    return {
        name: frame.with_columns(task=pl.lit(task))
        for name, frame in zip(names, (pairs, found.kinds, summary), strict=True)
    }


def _carried(
    run: Run,
    heads: dict[tuple[int, int], str],
    saes: dict[int, SparseAutoencoder],
    residual_saes: dict[int, SparseAutoencoder],
    prompts: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Scores by what carriers bring; without a carrier no rows, and the log says so."""
    from mechinterp_assets.attribution.qk_carried import Carrier, qk_carried
    from mechinterp_assets.attribution.qk_features import QkFeatureError
    from mechinterp_assets.prompts.common import IOI
    from mechinterp_assets.prompts.ioi import PromptError

    settings = run.study.qk_features
    chosen = _carriers(run, heads, min(saes, default=0)) if settings.task == IOI else {}
    try:
        if not chosen:
            raise QkFeatureError("no earlier head attends to the role that features come from")
        found = qk_carried(
            run.model,
            saes,
            prompts,
            [Carrier(*pair) for pair in chosen],
            settings,
            residual_saes=residual_saes,
        )
    except (QkFeatureError, PromptError) as reason:
        run.log.info(f"no carried decomposition: {reason}")
        return run.no_rows(*CARRIED)
    key = (*HEAD, "carrier_layer", "carrier_head")
    reasons = {(*head, *carrier): reason for (head, carrier), reason in chosen.items()}
    return _frames(CARRIED, found, key, reasons, settings.task)


def _carriers(
    run: Run, heads: dict[tuple[int, int], str], first_sae: int
) -> dict[tuple[tuple[int, int], tuple[int, int]], str]:
    """(head, carrier) and why: S-inhibition heads, else those that attend END -> S2 most.

    A carrier lies behind the first layer with an SAE, so that it can bring a feature.
    """
    settings = run.study.qk_features
    ranked, reason = _ranked(run, CARRIER_ROLE, CARRIER_FALLBACK, positive=True)
    found = {}
    for head, why in heads.items():
        if settings.carriers != "auto":
            for layer, number in settings.carriers:
                if layer < head[0]:
                    found[head, (layer, number)] = f"{why}; carrier named in qk_features.carriers"
            continue
        early = ranked.filter((pl.col("layer") < head[0]) & (pl.col("layer") > first_sae))
        for layer, number in early.head(settings.max_carriers).select(HEAD).rows():
            found[head, (int(layer), int(number))] = f"{why}; carrier: {reason}"
    return found


def _residual_saes(run: Run, layers: set[int]) -> dict[int, SparseAutoencoder]:
    """SAEs on the residual stream before `layers`, where the study names a folder.

    Those of qk_features alone are there for every layer, those of residual_sae for some.
    """
    from mechinterp_assets.sae.external import read_residual

    folder = run.study.qk_features.residual_sae
    if folder is None:
        return {}
    if folder == run.study.residual_sae.path:
        layers = layers & run.study.residual_sae.folders(run.study.n_layers).keys()
    saes = {}
    for layer in sorted(layers):
        sae = read_residual(layer_folder(folder, layer), run.model, layer)
        saes[layer] = sae.to(run.model.device)
    return saes
