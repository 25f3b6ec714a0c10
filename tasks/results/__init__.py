"""Stored answers, read and written.

- `read`: one snapshot of a store as labelled data; `models`: a stored cell as a denoiser again;
- `rows`: from a shard's answers to rows of the store; `provenance`: where they come from;
- `stored`: what a store says of a study's points; `explain`: why a point is computed again;
  `foreseen`: the columns that points will have;
- `error_decomposition`: where an error comes from; `export`: the whole as one file.
"""

from __future__ import annotations

from tasks.results.read import Answers, UnknownStudy, open_results, open_samples, open_trajectory

__all__ = ["Answers", "UnknownStudy", "open_results", "open_samples", "open_trajectory"]
