"""From stored results to one page that opens anywhere, without a network.

`draw_report` takes `Answers` (what a study asked and what was measured) and returns the HTML text; writing it to a file
is the caller's business. The rooms:

- numbers: `curves` (means and intervals over seeds), `findings` (what they say, in sentences);
- the literature, weighed on them: `comparisons`, `evidence`, `claims` (`claims.claims` gives verdicts as plain values);
- pictures: `figures`, `parts`, `score`, `distributions`, `plane`, `space`, in the style of `look`;
- names and laws: `labels`, `named`, `targets`;
- the page itself: `page`.
"""

from tasks.report.answers import Answers
from tasks.report.page import draw_report

__all__ = ["Answers", "draw_report"]
