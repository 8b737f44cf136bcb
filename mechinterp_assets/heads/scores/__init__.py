"""Scores of attention heads: one file each, or one for a family of closely related scores.

A file holds everything about its scores: how they are computed, and SCORES, which says what each
is, between which values it lies, its null, its threshold and its source. Whatever lies in this
folder is computed: `score_registry.py` lists it. Does not belong here: what several scores share
(modules beside this folder), roles, which are conditions over scores in the SQL view
head_role_conditions.
"""
