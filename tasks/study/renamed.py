"""Parameters that were renamed: both names work, and whoever writes the old one reads the new one
on stderr.
"""

from __future__ import annotations

from tasks.messages import note_the_new_name
from tasks.study.components import KINDS, present_names


def note_old_names(written: object) -> None:
    """Note every old name in what somebody wrote; specs that were stored have the old ones and are
    nobody's to change.
    """
    if isinstance(written, list | tuple):
        for entry in written:
            note_old_names(entry)
    if not isinstance(written, dict):
        return
    for value in written.values():
        note_old_names(value)
    name = written.get("name")
    for _, registry in KINDS:
        if name in registry.names():
            for old, new in present_names(registry.find(name)).items():
                if old in written:
                    note_the_new_name(f"the parameter of {name!r}", old, new)
