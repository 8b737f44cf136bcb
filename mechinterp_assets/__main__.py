"""`python -m mechinterp_assets`: the command line of cli.py."""

from mechinterp_assets.app.cli import main

main()
