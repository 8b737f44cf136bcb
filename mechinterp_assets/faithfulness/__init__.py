"""Circuit quality: which edges and heads carry a task, and how much of it they carry alone.

Belongs here: the edge graph of a transformer, edge attribution, exact edge patching, faithfulness
of edge and head sets, the subspace check of a patched direction. Does not belong here: how a
circuit is found by tracing (circuits/), single interventions as data (interventions/), Dagster and
files.
"""
