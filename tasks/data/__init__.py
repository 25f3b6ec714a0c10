"""Images: handwritten digits, and how good samples look to a small classifier.

- `digits`: the data set that ships with scikit-learn (images of your own: `images` in `tasks.data.from_file`);
- `classifier`: the network whose features and answers the metrics use, with its weights and how they came about;
- `metrics`: `fid-digits` and `label-accuracy`.

Importing this package registers all of them.
"""

from __future__ import annotations

from tasks.data.digits import Digits
from tasks.data.digits_metrics import FrechetDigits, LabelAccuracy

__all__ = ["Digits", "FrechetDigits", "LabelAccuracy"]
