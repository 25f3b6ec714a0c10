"""Data that do not come from a formula: points and images of files, handwritten digits with the
metrics of their own.

- `from_file`: points and images of somebody's own;
- `digits`: the data set that ships with scikit-learn; `digits_classifier`: the network whose
  features and answers `digits_metrics` (`fid-digits`, `label-accuracy`) use, with its weights and
  how they came about.

Importing this package registers all of them.
"""

from __future__ import annotations

import tasks.data.from_file  # noqa: F401 - registers its targets
from tasks.data.digits import Digits
from tasks.data.digits_metrics import FrechetDigits, LabelAccuracy

__all__ = ["Digits", "FrechetDigits", "LabelAccuracy"]
