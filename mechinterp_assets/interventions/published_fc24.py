"""Experiments of Franco & Crovella 2024 (FC24, arXiv 2410.00340) for any model.

Belongs here: which interventions each figure consists of, chosen from an ExperimentContext. Does
not belong here: families of interventions (experiments.py), edges (edges.py) and running.
"""

from mechinterp_assets.interventions.published_experiment import Published

FC24_EXPERIMENTS: tuple[Published, ...] = ()
