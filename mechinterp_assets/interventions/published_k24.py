"""Experiments of Kissane et al. 2024 (K24, arXiv 2406.17759) for any model.

Belongs here: which interventions each figure consists of, chosen from an ExperimentContext. Does
not belong here: families of interventions (experiments.py) and running.
"""

from mechinterp_assets.interventions.experiment_context import (
    Chosen,
    ExperimentContext,
    NothingToRun,
)
from mechinterp_assets.interventions.experiments import splicing
from mechinterp_assets.interventions.published_experiment import Published


def _splices(context: ExperimentContext) -> list[Chosen]:
    if not context.sae_layers:
        raise NothingToRun("no layer has an SAE")
    return [
        Chosen(one, f"L{layer}", "every layer with an SAE")
        for layer, one in zip(context.sae_layers, splicing(context.sae_layers), strict=True)
    ]


K24_EXPERIMENTS: tuple[Published, ...] = (
    Published(
        name="k24_splicing",
        source="K24 Fig. 14, 15",
        question="Does the task survive when SAE reconstructions replace attention outputs?",
        choose=_splices,
    ),
)
