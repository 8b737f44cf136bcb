"""Where results live: the lake of tables, the tensor store, declarations, provenance.

Modules that name duckdb's classes in annotations keep annotations as text (`from __future__ import
annotations`). Dagster's records hold the namespace of their first caller until the interpreter has
ended; a function in it would hold the classes in its annotations, and duckdb 2.0 then prints a page
about each of its objects that is still alive.
"""
