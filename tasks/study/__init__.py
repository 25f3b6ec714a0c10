"""Studies: from a YAML file to a value that is known to make sense.

- `document`: the text, with the place of everything in it;
- `components`: from a line to a component; `axes`: what the axes of a study take;
- `model`: the validated study; `collection`: a file that names other studies;
- `catalogue`: every name that a study may use;
- `typed`: a study that a person names, whose own classes are theirs.
"""

from __future__ import annotations

from tasks.study.document import StudyError, shipped_studies
from tasks.study.model import Study, load_study

__all__ = ["Study", "StudyError", "load_study", "shipped_studies"]
