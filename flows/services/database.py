"""The database that a temporary Prefect server begins with: the migrations of an empty one are most
of what its first start costs, so one that has been migrated is kept as a template.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

DATABASE, TEMPLATE = "prefect.db", "template.db"


def begin_with(template: Path, database: Path) -> bool:
    """Make a database out of a template, if there is a sound one, and no database yet; whether there
    is one now.
    """
    if not database.exists() and template.exists():
        with suppress(OSError, sqlite3.Error):
            _copy(template, database)
    return database.exists()


def keep(database: Path, template: Path) -> None:
    """Keep a database as the template; its server may run. A folder that cannot be written keeps
    none.
    """
    with suppress(OSError, sqlite3.Error):
        _copy(database, template)


def _copy(source: Path, target: Path) -> None:
    """As one transaction sees it; the target is there when it is whole, whoever else makes it."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(part)) as written:
            read.backup(written)
            if read.execute("select count(*) from sqlite_master").fetchone() == (0,):
                raise sqlite3.DatabaseError(f"{source} is empty")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
