"""What a doctor says of real faults: each is planted, and comes back with what mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.doctor import machine
from flows.doctor.findings import Finding, clock
from flows.doctor.stores import store
from tasks.store import Store
from tasks.store.whole import check
from tests.flows.test_imports import STORE, Ended, run
from tests.tasks.golden_stores import unpacked
from tests.tasks.store_kit import ROOT, held_by_another_process, small_store
from tests.tasks.test_store_s3 import proxy, s3, server

__all__ = ["s3", "server"]  # pytest finds fixtures by their names here


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where nothing of Prefect or Ray is configured."""
    for name in ("PREFECT_API_URL", "RAY_ADDRESS", "DIFFATLAS_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(ended: Ended) -> list[dict[str, str]]:
    found = json.loads(ended.said)
    bad = [one for one in found["findings"] if one["level"] == "problem"]
    assert found["healthy"] == (not bad)
    assert ended.code == (3 if bad else 0)
    assert all(one["remedy"] for one in bad)
    return bad


def test_what_is_healthy_is_said_to_be_and_only_the_store_is_imported(somewhere: Path) -> None:
    uri = str(somewhere / "results")
    small_store(uri)
    opened = Store.open(uri)
    table, as_json, none, old = run(
        ["doctor"],
        ["doctor", "--deep", "--json"],
        ["doctor", "--store", "nothing-yet", "--json"],
        ["doctor", "--store", unpacked("schema-2", somewhere), "--json"],
    )
    assert table.code == 0, table.said
    assert "healthy: a run can start" in table.said
    assert f"snapshot {opened.snapshot()}, 1 study, 4 points, 1 cell" in table.said
    assert table.imported == STORE
    assert [problems(one) for one in (as_json, none, old)] == [[], [], []]
    assert "there is none yet" in none.said
    assert "schema 2; the next run brings it to 3" in old.said
    assert as_json.imported == STORE
    assert not (somewhere / "nothing-yet").exists()


def test_each_fault_of_a_store_a_disk_and_an_address_is_named_with_its_remedy(somewhere: Path) -> None:
    damaged, held, killed = (str(somewhere / name) for name in ("damaged", "held", "killed"))
    small_store(damaged)
    for uri in (held, killed):
        shutil.copytree(damaged, uri)
    chunk = max((somewhere / "damaged" / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[::-1])
    earlier = [entry["snapshot"] for entry in Store.open(damaged).history()[1:]]
    (somewhere / "file").write_text("")
    with held_by_another_process(killed) as other:
        other.kill()
    with held_by_another_process(held) as other:
        ended = run(
            ["doctor", "--json", "--store", damaged, "--deep"],
            ["doctor", "--json", "--store", held],
            ["doctor", "--json", "--store", killed],
            ["doctor", "--json", "--store", "/proc/nowhere"],
            ["doctor", "--json", "--store", "file"],
            ["doctor", "--json", "--store", held, "--ray", "127.0.0.1:9"],
        )
    of_damaged, of_held, of_killed, full, of_file, ray = map(problems, ended)
    assert [one["of"] for one in of_damaged] == ["store"]
    assert "damaged" in of_damaged[0]["text"]
    (whole,) = [one for one in earlier if f"--as-of {one}" in of_damaged[0]["remedy"]]
    check(Store.open(damaged), whole)
    assert of_held == of_killed == []
    assert f"process {other.pid}" in ended[1].said
    assert "--wait 60" in ended[1].said
    assert "was killed; the next run goes on" in ended[2].said
    assert [one["of"] for one in full] == ["disk", "store"]  # a file system without room that nobody can write
    assert "0 MB free" in full[0]["text"]
    assert "cannot be written" in full[1]["text"]
    assert {one["of"] for one in of_file} == {"store"}
    assert [one["of"] for one in ray] == ["ray"]
    assert "No Ray cluster answers at 127.0.0.1:9" in ray[0]["text"]


def test_a_wrong_prefect_address_and_a_package_of_another_version_are_named(somewhere: Path) -> None:
    metadata = somewhere / "site" / "zarr-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 1.0\n")
    path = f"{somewhere / 'site'}:{ROOT}"
    (ended,) = run(["doctor", "--json"], PREFECT_API_URL="http://127.0.0.1:9/api", PYTHONPATH=path)
    packages, prefect = problems(ended)
    assert (packages["of"], prefect["of"]) == ("packages", "prefect")
    assert "zarr is 1.0" in packages["text"]
    assert packages["remedy"].startswith("pip install 'zarr")
    assert "http://127.0.0.1:9/api does not answer" in prefect["text"]
    assert "prefect server start" in prefect["remedy"]


@pytest.mark.parametrize(
    ("build", "device", "told"),
    [
        ("2.13.0+cpu", "nvidia0", "this machine has a GPU, and torch is its build for CPUs"),
        ("2.13.0+cu130", "nvidia0", None),
        ("2.13.0+cpu", "nvidiactl", None),  # a driver without a device
    ],
)
def test_a_gpu_that_torch_has_no_code_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, device: str, told: str | None
) -> None:
    metadata = tmp_path / f"torch-{build}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {build}\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / device).touch()
    monkeypatch.setattr(machine, "_DEVICES", tmp_path / "dev")
    found = list(machine.devices())
    assert [(one.of, one.level, one.text) for one in found] == ([("devices", "note", told)] if told else [])
    assert all("pip install torch" in one.remedy for one in found)


def test_a_clock_that_is_wrong_is_told_and_one_that_is_not_known_to_be_is_not() -> None:
    assert clock("a node", 4.0).level == "ok"
    assert clock("a node", -30.0, 40.0).level == "ok"
    found = clock("a node", -3600.0, 2.0)
    assert (found.level, found.text) == ("problem", "the clock of a node is 3600 s behind this machine's")
    assert "set-ntp" in found.remedy


@pytest.fixture
def careless(server: str) -> Iterator[str]:
    """Hands requests on, but for one condition."""
    with proxy(server, strips=("if-match",)) as address:
        yield address


def test_a_server_is_asked_whether_it_writes_on_condition_and_nothing_stays(
    s3: str, careless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(uri: str) -> list[Finding]:
        return list(store(uri, deep=False))

    small_store(s3)
    of_clock, kept, read = said(s3)
    assert {kept.level, of_clock.level, read.level} == {"ok"}
    assert "writes on condition" in kept.text
    assert of_clock.of == "clocks"
    (missing,) = [one for one in said("s3://there-is-no-such-bucket/store") if one.level == "problem"][:1]
    assert "NoSuchBucket" in missing.text
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", careless)
    found = [one for one in said(s3) if one.level == "problem"]
    assert [one.of for one in found] == ["store"]
    assert "ignores If-Match: two runs" in found[0].text
    import boto3  # type: ignore[import-untyped]

    names = boto3.client("s3", endpoint_url=careless).list_objects_v2(Bucket="atlas")["Contents"]
    assert [one["Key"] for one in names if "probe-" in one["Key"]] == []
