"""A store on object storage: a real S3 server over HTTP, in a process of its own."""

import contextlib
import http.client
import http.server
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import xarray as xr
from icechunk import Session
from typer.testing import CliRunner

from flows.command_line import app
from tasks.plain import Plain, Spec
from tasks.results import Answers
from tasks.store import Rows, Store, StoreLocked, StoreMoved, StoreUnavailable, WrongReference
from tasks.store.backup import copy
from tasks.store.holder import Holder
from tasks.store.lease import Lease, LeaseError
from tasks.store.storage import Place
from tests.faults.whole import contents, snapshots
from tests.flows.services.processes import descendants, listening_addresses
from tests.tasks.store_kit import held_by_another_process, python, small_store
from tests.tasks.tiny_store import SPEC, answer

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")

BUCKET = "atlas"


def _moto(port: int) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def _ministack(port: int) -> list[str]:
    """An S3 by other authors, in an environment of its own (`make servers`): it wants another botocore.
    It binds every interface unless it is told one, which does what a network namespace would.
    """
    found = shutil.which("ministack", path=str(Path(sys.prefix) / "ministack" / "bin")) or shutil.which("ministack")
    if found is None:
        pytest.skip("ministack is not installed: make servers")
    return ["env", "BIND_HOST=127.0.0.1", f"GATEWAY_PORT={port}", found]


@pytest.fixture(scope="module", params=[_moto, _ministack], ids=["moto", "ministack"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two servers that have no line in common."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("server")
    process = subprocess.Popen(
        request.param(port), cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the S3 server did not start"
            time.sleep(0.1)
        if Path("/proc/net/tcp").exists():  # one of them binds every interface, unless it is told otherwise
            ours = {process.pid, *(pid for pid, _ in descendants(process.pid))}
            assert listening_addresses(ours) == {"0100007F"}
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The address of a store that is not there yet, each test's its own."""
    found = {"AWS_ENDPOINT_URL_S3": server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in (found | {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("s3", endpoint_url=server)
    client.create_bucket(Bucket=BUCKET)
    return f"s3://{BUCKET}/{request.node.name.replace('[', '-').strip(']')}/store"


def point(i: int, **more: Plain) -> Spec:
    return {"point_id": f"{i:020d}", "cell_id": "c", "status": "ok", "w1": float(i), "w1_floor": 0.5, **more}


def test_rows_come_back_from_object_storage_and_every_snapshot_stays_readable(s3: str) -> None:
    assert not Store.exists(s3)
    store = Store.create(s3)
    with store.coordinate() as coordinator:
        before = coordinator.commit(Rows(points=[point(0)]), "first", {})
        coordinator.commit(Rows(points=[point(1)], weights={"c": b"weights"}), "second", {})
    answers = Answers(Store.open(s3))
    assert answers.points["w1"].values.tolist() == [0.0, 1.0]
    assert answers.weights("c") == b"weights"
    assert Answers(Store.open(s3), as_of=before).points["w1"].values.tolist() == [0.0]
    with pytest.raises(StoreUnavailable, match="there is a store already"):
        Store.create(s3)


def test_the_server_keeps_conditional_puts_over_http(s3: str) -> None:
    """What everything here rests on; a server that fails this cannot hold a store."""
    lease = Lease.of(Place(s3))
    one, two = Holder.me(), Holder.me()
    assert lease.take(one)
    assert not lease.take(two)
    _, version = lease.read()
    assert lease.take(two, instead_of=version)
    assert not lease.take(one, instead_of=version)
    lease.give_back(one)  # not its own: it stays
    assert lease.read()[0] == two
    lease.give_back(two)
    assert lease.read() == (None, None)


def test_of_many_coordinators_at_once_one_gets_the_lease(s3: str) -> None:
    place, won = Place(s3), []
    barrier = threading.Barrier(8)

    def take(me: Holder) -> None:
        lease = Lease.of(place)
        barrier.wait()
        if lease.take(me):
            won.append(me)

    threads = [threading.Thread(target=take, args=(Holder.me(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Lease.of(place).read()[0] == won[0]


def test_a_second_coordinator_is_refused_and_the_first_one_named(s3: str) -> None:
    store = Store.create(s3)
    with held_by_another_process(s3) as other:
        expected = rf"in use by another run .*process {other.pid}, started"
        with pytest.raises(StoreLocked, match=expected), store.coordinate():
            pass
        assert Answers(Store.open(s3)).points.sizes["point"] == 0  # readers are not kept out
    with store.coordinate() as coordinator:
        assert coordinator.before is None


def test_the_lease_of_a_killed_run_of_this_host_is_taken_over_and_told(s3: str) -> None:
    store = Store.create(s3)
    with held_by_another_process(s3) as other:
        other.kill()
        other.wait()
    with store.coordinate() as coordinator:
        assert f"process {other.pid}" in str(coordinator.before)
        coordinator.commit(Rows(points=[point(0)]), "after it", {})
    with store.coordinate() as coordinator:
        assert coordinator.before is None


def test_a_lease_of_another_host_needs_force_and_its_holder_cannot_commit_any_more(s3: str) -> None:
    store = Store.create(s3)
    with store.coordinate() as first:
        lease = Lease.of(Place(s3))
        mine, version = lease.read()
        assert mine is not None
        far = replace(mine, host="far-away", machine="another", pid=77)
        assert lease.take(far, instead_of=version)  # as that host would have written it
        with pytest.raises(StoreLocked, match=r"host far-away, process 77.*--force-unlock"), store.coordinate():
            pass
        with Store.open(s3).coordinate(force_unlock=True) as second:
            assert "far-away" in str(second.before)
            with pytest.raises(StoreLocked, match="taken over"):
                first.commit(Rows(points=[point(0)]), "too late", {})
            second.commit(Rows(points=[point(1)]), "mine", {})
        with pytest.raises(StoreLocked, match="nobody holds it now"):
            first.commit(Rows(points=[point(0)]), "too late", {})
    assert Answers(Store.open(s3)).points["w1"].values.tolist() == [1.0]


def test_where_the_lease_fails_icechunk_refuses_the_second_commit_and_nothing_is_lost(s3: str) -> None:
    one, two = Store.create(s3), Store.open(s3)
    with one.coordinate() as first:
        lease = Lease.of(Place(s3))
        mine, version = lease.read()
        assert mine is not None
        client, key = lease.client, {"Bucket": lease.bucket, "Key": lease.key}
        client.delete_object(**key)  # an operator's mistake
        with two.coordinate() as second:
            second.commit(Rows(points=[point(0)]), "second", {})
        assert lease.take(mine)
        assert version is not None
        with pytest.raises(StoreMoved, match=r"somebody else has committed.*run the same command again"):
            first.commit(Rows(points=[point(1)]), "first", {})
    assert one.history()[0]["message"] == "second"
    assert Answers(one).points["w1"].values.tolist() == [0.0]


def test_a_commit_at_the_same_moment_is_a_clear_error_and_not_in_the_store(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(s3)
    with store.coordinate() as coordinator:
        real = coordinator._repository.commit

        def commit_after_another(session: Session, message: str, metadata: dict[str, object]) -> str:
            other, root, _ = store._repository.begin()
            root.attrs["other"] = True
            real(other, "the other", {})
            return real(session, message, metadata)

        monkeypatch.setattr(coordinator._repository, "commit", commit_after_another)
        with pytest.raises(StoreMoved, match="somebody else committed at the same moment"):
            coordinator.commit(Rows(points=[point(0)]), "mine", {})
    assert Store.open(s3).history()[0]["message"] == "the other"
    assert Answers(Store.open(s3)).points.sizes["point"] == 0


def test_names_of_tags_and_studies_stay_within_the_prefix(s3: str) -> None:
    store = Store.create(s3)
    with store.coordinate() as coordinator:
        coordinator.commit_study("../../über/alles", {}, [], Rows(), {})
    with pytest.raises(WrongReference, match="expected 1 to 64 letters"):
        store.tag("../escape")
    store.tag("v1")
    client = boto3.session.Session().client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])
    prefix = Place(s3).prefix
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert [key for key in keys if key.startswith(prefix.split("/")[0] + "/")] == [
        key for key in keys if key.startswith(prefix + "/")
    ]
    assert Answers(store).studies == ["../../über/alles"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "look whether the server answers"),
        ({"bucket": "there-is-none"}, "make the bucket first"),
    ],
)
def test_a_server_or_bucket_that_is_not_there_is_told_with_what_to_do(
    s3: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], expected: str
) -> None:
    if "bucket" in change:
        s3 = s3.replace(BUCKET, change["bucket"])
    else:
        for name, value in change.items():
            monkeypatch.setenv(name, value)
    with pytest.raises(StoreUnavailable, match=expected):
        Store.create(s3)


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the S3 server, without the headers of `strips`. Every `fails`-th
    (of the puts to `where`, if it is named) is answered with 503, or the connection ends before or
    after it was passed on.
    """

    protocol_version = "HTTP/1.1"
    target, strips, fails, how = "", (), 0, "503"
    where = ""  # part of the path of those that it may hit
    seen = itertools.count(1)

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        aimed = self.fails and self.where in self.path and (not self.where or self.command == "PUT")
        hit = bool(aimed) and next(self.seen) % self.fails == 0
        if hit and self.how == "dropped":
            self.close_connection = True
            return
        if hit and self.how == "503":
            status, headers, answer, length = 503, [], b"", "0"
        else:
            sent = {name: value for name, value in self.headers.items() if name.lower() not in self.strips}
            connection = http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=30)
            connection.request(self.command, self.path, body, sent)
            got = connection.getresponse()
            answer, status = got.read(), got.status
            headers = [(n, v) for n, v in got.getheaders() if n.lower() not in ("transfer-encoding", "content-length")]
            length = got.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(answer))
            connection.close()
        if hit and self.how == "answer lost":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 - as the base class finds them

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def cut_off(server: str) -> Iterator[tuple[str, Callable[[bool], None]]]:
    """A proxy's address, and what cuts the server off or lets it answer again."""
    handler = type("Handler", (_Proxy,), {"target": server, "how": "dropped"})
    with _serving(handler) as address:
        yield address, lambda away: setattr(handler, "fails", int(away))


@contextlib.contextmanager
def proxy(
    server: str, strips: tuple[str, ...] = (), fails: int = 0, how: str = "503", where: str = ""
) -> Iterator[str]:
    does = {"target": server, "strips": strips, "fails": fails, "how": how, "where": where}
    with _serving(type("Handler", (_Proxy,), {**does, "seen": itertools.count(1)})) as address:
        yield address


@contextlib.contextmanager
def _serving(handler: type[_Proxy]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as passing:
        threading.Thread(target=passing.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{passing.server_address[1]}"
        finally:
            passing.shutdown()


@pytest.mark.parametrize(
    ("strips", "named"),
    [
        (("if-match",), "If-Match"),
        (("if-none-match",), "If-None-Match"),
        (("if-match", "if-none-match"), "and If-Match"),
    ],
)
def test_a_server_that_ignores_a_condition_is_refused_before_anything_is_written(
    s3: str, server: str, monkeypatch: pytest.MonkeyPatch, strips: tuple[str, ...], named: str
) -> None:
    with proxy(server, strips) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        with pytest.raises(StoreUnavailable, match=f"its server ignores .*{named}"):
            Store.create(s3)
    found = (
        boto3.session.Session()
        .client("s3", endpoint_url=server)
        .list_objects_v2(Bucket=BUCKET, Prefix=Place(s3).prefix)
    )
    assert found["KeyCount"] == 0


BRANCH = "/refs/branch.main/"
STUDY = {**SPEC, "seeds": 1, "samplers": ["heun"], "samples": 40, "keep": {"samples": True, "trajectories": []}}


@pytest.mark.parametrize(
    ("how", "fails", "where"),
    [("503", 10, ""), ("dropped", 10, ""), ("answer lost", 10, ""), ("answer lost", 2, BRANCH), ("dropped", 2, BRANCH)],
    ids=["503", "dropped", "answer-lost", "answer-of-the-branch-lost", "branch-dropped"],
)
def test_a_study_survives_a_server_that_fails_now_and_then(
    s3: str, server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, fails: int, where: str
) -> None:
    """A put whose answer is lost has taken place: sent again, its own condition refuses it."""
    with proxy(server, fails=fails, how=how, where=where) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        answer(s3, STUDY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    undisturbed = str(tmp_path / "store")
    answer(undisturbed, STUDY)
    found, expected = Store.open(s3), Store.open(undisturbed)
    assert contents(found, found.snapshot()) == contents(expected, expected.snapshot())
    assert [e["message"] for e in found.history()] == [e["message"] for e in expected.history()]
    assert Lease.of(Place(s3)).read() == (None, None)


def test_a_server_that_ignores_conditions_is_found_out(s3: str) -> None:
    class Careless:
        """The server as it is, but for the condition of a put."""

        def __init__(self, client: Plain) -> None:
            self._client = client

        def put_object(self, **expected: Plain) -> Plain:
            self._client.put_object(**{k: v for k, v in expected.items() if k not in ("IfNoneMatch", "IfMatch")})
            other = Holder.me()
            return self._client.put_object(Bucket=expected["Bucket"], Key=expected["Key"], Body=other.note().encode())

        def get_object(self, **expected: Plain) -> Plain:
            return self._client.get_object(**expected)

        def delete_object(self, **told: Plain) -> Plain:
            return self._client.delete_object(**told)

    lease = Lease.of(Place(s3))
    with pytest.raises(LeaseError, match="ignores conditional puts"):
        replace(lease, client=Careless(lease.client)).take(Holder.me())


def test_a_store_goes_from_a_folder_to_a_bucket_and_back_bit_for_bit(s3: str, tmp_path: Path) -> None:
    folder, back = str(tmp_path / "store"), str(tmp_path / "back")
    store, _ = small_store(folder)
    store.tag("before")
    assert copy(folder, s3).held.points == 4
    with pytest.raises(StoreUnavailable, match="something is there"):
        copy(folder, s3)
    bucket = Store.open(s3)
    assert dict(snapshots(bucket)) == dict(snapshots(store))
    with bucket.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(9)]), "in the bucket", {})
    assert copy(s3, back).held.points == 5
    again = Store.open(back)
    assert dict(snapshots(again)) == dict(snapshots(bucket))
    assert again.snapshot("before") == store.snapshot()
    with again.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(8)]), "in a folder again", {})
    assert Answers(Store.open(back)).points.sizes["point"] == 6


def test_a_second_backup_to_a_bucket_copies_what_is_new(s3: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "store")
    store, _ = small_store(folder)
    first = copy(folder, s3, onward=True)
    with store.coordinate() as coordinator:
        coordinator.commit(Rows(points=[point(9)], weights={"d": os.urandom(40_000)}), "more", {})
    second = copy(folder, s3, onward=True)
    assert second.files_before + second.files == sum(path.is_file() for path in Path(folder).rglob("*"))
    assert 40_000 < second.bytes < first.bytes + 80_000
    assert 0 < second.files < first.files
    assert dict(snapshots(Store.open(s3))) == dict(snapshots(store))
    assert copy(folder, s3, onward=True).files == 0


_LIVES = """
import json, sys
from tests.tasks.tiny_store import answer
answer(sys.argv[1], json.loads(sys.argv[2]))
"""


def test_a_store_lives_its_whole_life_in_a_bucket(s3: str, tmp_path: Path) -> None:
    """Killed before a commit, resumed beside a second coordinator, looked at as of a time, asked,
    exported, and rid of what nobody needs: with the bits of a store in a folder.
    """
    with python(_LIVES, s3, json.dumps(STUDY), env={"DIFFATLAS_FAILPOINT": "commit.before:3"}) as run:
        run.wait()
    assert run.returncode == -signal.SIGKILL
    half = Store.open(s3).snapshot()
    answer(s3, STUDY)
    undisturbed = str(tmp_path / "store")
    answer(undisturbed, STUDY)
    store = Store.open(s3)
    assert contents(store, store.snapshot()) == contents(Store.open(undisturbed), Store.open(undisturbed).snapshot())
    with held_by_another_process(s3), pytest.raises(StoreLocked, match="in use by another run"):
        answer(s3, {**STUDY, "seeds": 2})
    assert Answers(store, as_of=half).points.sizes["point"] < Answers(store).points.sizes["point"]
    store.tag("night")
    wanted = ("query", "--by", "formulation,sampler,steps", "--metric", "w1", "--format", "csv", "--store")
    queried = [said(*wanted, place) for place in (s3, undisturbed)]
    assert queried[0] == queried[1]
    for place, name in ((s3, "bucket"), (undisturbed, "folder")):
        said("export", "--store", place, "--format", "netcdf", "--out", str(tmp_path / f"{name}.nc"))
    with xr.open_dataset(tmp_path / "bucket.nc") as one, xr.open_dataset(tmp_path / "folder.nc") as two:
        times = [name for name in two.variables if str(name).endswith("seconds")]
        xr.testing.assert_equal(one.drop_vars(times), two.drop_vars(times))
    store.gc(datetime.now(UTC) + timedelta(seconds=1), youngest=-timedelta(minutes=1))
    with pytest.raises(WrongReference):
        Store.open(s3).snapshot(half)
    assert said(*wanted, s3, "--as-of", "night") == queried[0]


def said(*arguments: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout
