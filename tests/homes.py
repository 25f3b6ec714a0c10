"""Homes of temporary Prefect servers: what the first test's server has migrated, those of the others
begin with.
"""

import shutil
from pathlib import Path

from flows.services.database import TEMPLATE

_homes: list[Path] = []


def new_home(folder: Path) -> Path:
    """The folder, with the template of an earlier home of this process, if one has one."""
    for template in [found for home in _homes for found in home.glob(f"prefect/*/{TEMPLATE}")][:1]:
        own = folder / "prefect" / template.parent.name
        own.mkdir(parents=True)
        shutil.copyfile(template, own / TEMPLATE)
    _homes.append(folder)
    return folder
