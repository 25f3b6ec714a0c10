"""Looking through stored results on one page: what a view holds, worked out of a store and of what
was asked of it.

- `look`: what is asked, as the page's address says it;
- `opened`: the points of snapshots, opened once;
- `views`: curves, heat maps and scatter, whose numbers are those of `tasks.query`; `parts`: what
  they are made of;
- `copies`: a view as a command, and as Python;
- `columns`: what there is to choose from;
- `details`: what is kept of one point; `comparing`: ticked rows beside each other, and snapshots;
- `now`: the newest snapshot, and how far a run is;
- `page`: the page itself, its script and its style.

Nothing here writes, and nothing serves: the server is `flows.exploring`.
"""
