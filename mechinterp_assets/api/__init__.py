"""Results and models as Python objects, for notebooks and scripts; and what `mechinterp mcp` shows.

Belongs here: reading the lake and the tensor store into tables, features, heads, traces, SAEs and
models; how these look in a notebook and as text; running interventions of one's own; writing
labels. Does not belong here: computing of science (the packages below), making of results (defs/),
commands and servers (app/). The public names stand in `mechinterp_assets/__init__.py`.

Only what is asked for is read, and only what needs torch imports it.
"""
