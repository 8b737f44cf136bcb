"""Dagster resources: what differs between machines. Imported as `mechinterp_assets.resources`.

The package links to this folder: an installed wheel has it inside, so nothing called `resources`
stands beside other packages.
"""
