"""Plain values: what JSON and YAML hold. They are known by what is read from them, and their types
are left open here alone.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

Plain: TypeAlias = Any
"""None, a truth value, a number, a text, a list of plain values, or a mapping of texts to plain
values.
"""

Spec: TypeAlias = dict[str, Any]
"""A mapping of texts to plain values: the canonical description of a component, a point, a cell or
a study, or a document.
"""


def as_json(value: object) -> Plain:
    """The value as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))
