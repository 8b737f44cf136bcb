"""Prompts of a study's own: tokens, features, attributions, attention.

Belongs here: which prompts there are, and what a model cannot do left out. How a prompt is explored
is in explore/.
"""

from __future__ import annotations

import polars as pl

from mechinterp_assets.explore.prompt_sets import joined_sets
from mechinterp_assets.orchestration.artefacts import open_residual_saes, open_saes
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables
from mechinterp_assets.staleness.study_files import prompt_files

TABLES = (
    "prompt_tokens",
    "prompt_features",
    "prompt_head_effects",
    "prompt_attributions",
    "prompt_pairs",
)


@tables(
    *TABLES,
    reads=["language_model", "attention_sae"],
    settings=["prompts", "residual_sae", "rdfa.residual_features"],
    files=["prompts", "residual_sae.path"],
    seed=0,
    pool=GPU,
    kinds=["torch"],
    needs=["activations"],
)
def explored_prompts(run: Run) -> Made:
    """Every prompt that the study names, and those that were kept in the explorer."""
    from mechinterp_assets.explore.exploration import Explorer
    from mechinterp_assets.explore.prompt_tables import explored_prompts as each_explored
    from mechinterp_assets.explore.prompt_tables import prompt_frames

    settings = run.study.prompts
    # What the study names must exist: reading it says so.
    files = [file for file in prompt_files(run.study) if file in settings.files or file.is_file()]
    sets = joined_sets(settings.sets, files)
    if not sets:
        return run.nothing("the study has no prompts (section prompts)", *TABLES)
    saes = open_saes(run, run.study.layers)
    residual = open_residual_saes(run)
    explorer = Explorer(run.model, saes, residual=residual, max_tokens=settings.max_tokens)
    made = {name: [none] for name, none in run.no_rows(*TABLES).items()}
    left_out: dict[str, str] = {}
    for keys, explored in each_explored(explorer, sets):
        frames, reasons = prompt_frames(explored, settings)
        left_out |= reasons
        for name, rows in frames.items():
            of_prompt = [pl.lit(value).alias(key) for key, value in keys.items()]
            made[name].append(rows.with_columns(of_prompt))
    for name, reason in left_out.items():
        run.log.warning(f"{name}: no rows: {reason}")
    return run.made(
        {name: pl.concat(parts, how="diagonal_relaxed") for name, parts in made.items()},
        {"prompt_tokens": {"prompts": float(sum(map(len, sets.values())))}},
    )
