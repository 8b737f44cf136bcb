"""Staleness: what studies ask for now, against what results were made with.

Belongs here: looking at study files and the files they name (asked_for.py, study_files.py), and
reading why partitions are stale (reasons.py). The rule itself is the view `stale_partitions` in
sql/catalog.sql. Does not belong here: Dagster, and running anything.
"""
