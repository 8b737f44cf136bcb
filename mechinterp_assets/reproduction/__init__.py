"""What a study measured beside what papers, or an earlier run, report.

Belongs here: reference files (reference_file.py), the measures that answer them (measures.py), the
comparison (comparison.py), writing a file from a run (writing.py). Does not belong here: the
numbers (references/*.yaml), the SQL (sql/reproduce), assets.
"""
