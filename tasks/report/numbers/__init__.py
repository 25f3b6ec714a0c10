"""What is computed from the rows: curves, findings, the literature weighed on them, where the error
comes from.
"""
