"""A temporary server begins with a migrated database where one is kept. No server is needed."""

import sqlite3
from contextlib import closing
from pathlib import Path

from flows.services.database import begin_with, keep


def migrated(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table flow (name text)")
        connection.commit()


def tables(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("select name from sqlite_master")]


def test_the_next_database_is_a_copy_of_the_first(tmp_path: Path) -> None:
    first, template, second = (tmp_path / name for name in ("first.db", "template.db", "second.db"))
    assert not begin_with(template, first)
    migrated(first)
    with closing(sqlite3.connect(first)) as server:  # which goes on with it
        server.execute("select * from flow")
        keep(first, template)
    assert begin_with(template, second)
    assert tables(second) == ["flow"]
    assert not list(tmp_path.glob(".*"))


def test_a_database_that_is_there_stays(tmp_path: Path) -> None:
    own, template = tmp_path / "own.db", tmp_path / "template.db"
    migrated(template)
    own.write_text("whatever it holds")
    assert begin_with(template, own)
    assert own.read_text() == "whatever it holds"


def test_a_damaged_template_or_folder_is_as_none(tmp_path: Path) -> None:
    own, template = tmp_path / "own.db", tmp_path / "template.db"
    for content in ("this is no database" * 1000, ""):
        template.write_text(content)
        assert not begin_with(template, own)
    migrated(own)
    keep(own, tmp_path / "no such folder" / "template.db")
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix == ".db") == ["own.db", "template.db"]
