"""A store that cannot be written any more says so: it is not damaged. Real file systems, in a
namespace of their own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WRITE = """
import subprocess, sys
from tasks.results import Answers
from tasks.store import Rows, Store, StoreUnavailable
from tests.tasks.store_kit import point
place, then = sys.argv[1:]
store = Store.create(f"{place}/store")
with store.coordinate() as coordinator:
    coordinator.commit(Rows([point(0)]), "first", {})
    if then == "read-only":
        subprocess.run(["mount", "--bind", f"{place}/store", f"{place}/store"], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", f"{place}/store"], check=True)
    try:
        for number in range(1, 100):
            weights = {f"c{number}": bytes(range(256)) * 4000}
            coordinator.commit(Rows([point(number)], weights=weights), "more", {})
            known = number
    except StoreUnavailable as error:
        print(error.kind, error)
print(len(Answers(Store.open(f"{place}/store")).points["point_id"]) >= 1)
"""


def _in_a_namespace(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("then", "told"), [("read-only", "make it writable"), ("full", "make room on that disk")])
def test_a_store_that_cannot_be_written_is_not_called_damaged(tmp_path: Path, then: str, told: str) -> None:
    mount = f"mount -t tmpfs -o size=3m tmpfs {tmp_path}"
    try:
        possible = _in_a_namespace(mount).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("needs a mount namespace")
    ended = _in_a_namespace(f"{mount} && {sys.executable} -c '{WRITE}' {tmp_path} {then}")
    assert ended.returncode == 0, ended.stderr
    message, readable = ended.stdout.strip().splitlines()
    assert message.startswith("store-unavailable ")
    assert told in message
    assert "damaged" not in message
    assert readable == "True"


def test_what_a_system_answers_for_an_immutable_file_is_no_damage() -> None:
    from tasks.store.errors import remedy

    assert remedy(PermissionError(1, "Operation not permitted")) == "make it writable, or use another store"
    assert remedy(OSError("Operation not permitted (os error 1)")) == "make it writable, or use another store"
    assert remedy(OSError("Input/output error (os error 5)")) is None
