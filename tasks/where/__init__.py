"""The language of `--where`, and the columns that it speaks of: shared by query, comparison and
planning.
"""
