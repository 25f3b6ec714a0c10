"""Two snapshots side by side: which numbers moved beyond the noise of their seeds, and what came,
went or failed since.

    comparison = compare(open_results("results", as_of="2026-03-03"), open_results("results"))
    summary(comparison)              # one sentence
    comparison.groups                # a table: one row per group of points and metric, with its verdict
    document(comparison)             # all of it as plain values
    moves(comparison)                # what moved, for a message

How it is tested, and what few seeds can show: docs/comparing.md. No Prefect, no Ray, and no store:
what is opened, as of when and of which study is the caller's choice.
"""

from tasks.compare.changes import Comparison, compare
from tasks.compare.match import LABELS
from tasks.compare.show import document, side_by_side, summary, table
from tasks.compare.told import moves
from tasks.statistics.corrections import CORRECTIONS

__all__ = ["CORRECTIONS", "LABELS", "Comparison", "compare", "document", "moves", "side_by_side", "summary", "table"]
