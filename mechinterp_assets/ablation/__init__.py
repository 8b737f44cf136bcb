"""Ablation: what replaces an activation, and what that is taken from.

Belongs here: the names of ablations (modes.py), cells of prompts, means over them, replacements.
Does not belong here: running ablated models, which each engine does in its own way: any site with
any edit (interventions/), every head on every prompt (tasks/), many head sets (faithfulness/).
"""
