"""From stored results to one page that opens anywhere, without a network.

`draw_report` takes `ReportSource` (what a study asked and what was measured) and returns the HTML text; writing it to a file is the
business of `page.files`. The rooms, each of which knows those before it:

- `text` (numbers as people read them) and `answers` (what is asked of a store);
- `lookup`: `points` (rows as plain values), `named` (components), `targets` (the exact law), `labels`;
- `numbers`: `curves` (means and intervals over seeds), `findings` (what they say, in sentences), `decomposition` (where an error comes
  from), `models` (what models answer by themselves), and the literature, weighed on them: `comparisons`, `evidence`, `claims`
  (`claims.claims` gives verdicts as plain values);
- `pictures`, in the style of `style`: `quality`, `decomposition`, `losses`, `score`; of samples `distributions`, `trajectories`, `plane`,
  `space`, `images`; and `fields`;
- `page`: `datasets` (everything about one data set), `tables`, `frame`, the templates, and `draw`.
"""

from tasks.report.page.draw import draw_report
from tasks.report.source import ReportSource

__all__ = ["ReportSource", "draw_report"]
