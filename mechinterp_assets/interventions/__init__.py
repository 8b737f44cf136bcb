"""Interventions: causal experiments as validated data, run by one runner into one tidy frame.

Nothing is imported here: descriptions (parsing.py, sets.py, descriptions.py) are read and checked
without torch; api.py runs them.
"""
