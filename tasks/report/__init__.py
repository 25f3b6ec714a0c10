"""From stored results to one page that opens anywhere, without a network.

`draw_report` takes `Answers` (what a study asked and what was measured) and returns the HTML text; writing it to a file
is the caller's business. The rooms: `curves` (means and intervals over seeds), `findings` (what the numbers say, in
sentences), `targets` (the exact law of a dataset, where known), `figures`, `distributions` and `space` (the pictures),
`page` (the page itself).
"""

from tasks.report.answers import Answers
from tasks.report.page import draw_report

__all__ = ["Answers", "draw_report"]
