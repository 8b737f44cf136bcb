"""What Dagster sees: assets, checks, jobs and schedules, a folder per group.

Belongs here: which inputs an asset reads, which function it calls, which tables it gives. Does not
belong here: the science, and how results are stored.
"""
