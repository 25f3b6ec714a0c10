"""Asking stored results: filter, group, reduce, rank, and what no other point beats on several
counts.

`--where` and `--at` are a small language of their own (`tasks.where.language`), which is read and
never executed.
"""

from tasks.query.ranking import pareto, rank
from tasks.query.records import pooled, pooled_schedules, query, where
from tasks.query.reductions import DEFAULT_STATISTICS, STATISTICS
from tasks.where.language import QueryError, UnknownColumn

__all__ = [
    "DEFAULT_STATISTICS",
    "STATISTICS",
    "QueryError",
    "UnknownColumn",
    "pareto",
    "pooled",
    "pooled_schedules",
    "query",
    "rank",
    "where",
]
