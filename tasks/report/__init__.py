"""From stored results to one page that opens anywhere, without a network.

`draw_report` takes the answers of a study and returns the HTML text; writing it to a file is the
business of `page.files`. The rooms, each of which knows those before it:

- `text`: numbers as people read them;
- `lookup`: what is found in the store: `requested` (what every row asks, as components), `points`
  (rows as plain values), `metrics`, `targets` (the exact law), `labels`;
- `numbers`: `curves` (means and intervals over seeds), `findings` (what they say, in sentences),
  `answer` (the three that the page opens with; `leads`), `across` (wins and ranks over all data
  sets), `decomposition` (where an error comes from), `models` (what models answer by themselves);
  what is drawn, here or by `tasks.figures`: `kept`, `levels`, `marginals`, `by_steps`, `outlook`,
  `clouds`, `sheets`, `flows`, `score_errors`, `window`; and the literature, weighed on them:
  `comparisons`, `evidence`, `claims` (`claims.claims` gives verdicts as plain values);
- `pictures`, in the style of `style`: `answer` (the first one), `ranks`, `quality`,
  `decomposition`, `losses`, `score`; of samples `distributions`, `trajectories`, `plane`, `space`,
  `images`; and `fields`;
- `page`: `views` (samples by the kind of their target), `datasets` (everything about one data set),
  `tables`, `frame`, the templates, and `draw`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.report.page.draw import draw_report

__all__ = ["draw_report"]


if not TYPE_CHECKING:  # or every name would pass for one that is there

    def __getattr__(name: str) -> Any:
        """The page's function when it is asked for: who looks up numbers takes no plotly."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from tasks.report.page.draw import draw_report

        return draw_report
