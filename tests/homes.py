"""Homes of temporary Prefect servers: what the first test's server has migrated, those of the others
begin with.
"""

import shutil
from pathlib import Path

from flows.services.database import DATABASE, TEMPLATE

_homes: list[Path] = []


def new_home(folder: Path) -> Path:
    """The folder, with the template of an earlier home of this process, if one has one."""
    for template in _templates():
        own = folder / "prefect" / template.parent.name
        own.mkdir(parents=True)
        shutil.copyfile(template, own / TEMPLATE)
    _homes.append(folder)
    return folder


def migrated(folder: Path) -> Path:
    """The folder as a Prefect server's home, with a database made of such a template, if there is
    one.
    """
    folder.mkdir()
    for template in _templates():
        shutil.copyfile(template, folder / DATABASE)
    return folder


def _templates() -> list[Path]:
    return [found for home in _homes for found in home.glob(f"prefect/*/{TEMPLATE}")][:1]
