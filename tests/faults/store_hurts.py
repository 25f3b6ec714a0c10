"""Faults of what a store lies on, a disk or an S3 server: more rows of `tests.faults.hurts.FAULTS`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.hurts import fault, on_two_nodes, training
from tests.faults.kit import Round, Run


def small_disk(one: Round, how: str) -> Path:
    """A file system of 4 MB for the store."""
    folder = one.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)], check=True)
    one.later.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)
    one.store = "small/results"
    return folder


def mount_again(one: Round, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(one.folder / "small")], check=True)


def _more_room(one: Round) -> None:
    mount_again(one, "size=64m")
    (one.folder / "small" / "filler").unlink()


@fault(
    "disk-full",
    "the store's disk is full; then it has room",
    codes=(3,),
    said="make room on that disk",
    mends=_more_room,
)
def _(one: Round) -> Run:
    folder = small_disk(one, "size=4m")
    run = on_two_nodes(one)
    training(one, run)
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    return run


@fault(
    "disk-read-only",
    "the store's disk can only be read; then it can be written",
    codes=(3,),
    said="make it writable, or use another store",
    mends=lambda one: mount_again(one, "rw"),
)
def _(one: Round) -> Run:
    small_disk(one, "size=64m")  # no disk becomes so while a run has the lock's file open
    mount_again(one, "ro")
    return on_two_nodes(one)


def immutable(one: Round, sign: str) -> None:
    """Whether folders and files of the store may be changed: `+` if not, `-` if so."""
    subprocess.run(["chattr", "-R", f"{sign}i", str(one.folder / one.store)], check=True)


@fault(
    "immutable",
    "the store is made immutable (`chattr +i`); then it is not",
    codes=(3,),
    said="make it writable, or use another store",
    mends=lambda one: immutable(one, "-"),
)
def _(one: Round) -> Run:
    run = on_two_nodes(one)
    training(one, run)
    one.later.callback(immutable, one, "-")
    immutable(one, "+")
    return run


def behind(one: Round, **hurts: Any) -> None:
    """Let the round's store lie on an S3 server behind a proxy that hurts."""
    from tests.tasks.test_store_s3 import proxy

    one.variables["AWS_ENDPOINT_URL_S3"] = one.services.enter_context(proxy(_s3(one), **hurts))


@fault("s3-fails", "1 of 10 requests to an S3 server is answered 503")
def _(one: Round) -> Run:
    behind(one, fails=10, how="503")
    return on_two_nodes(one)


@fault("s3-dropped", "1 of 10 requests to an S3 server is cut off before it arrives")
def _(one: Round) -> Run:
    behind(one, fails=10, how="dropped")
    return on_two_nodes(one)


@fault("s3-answers-lost", "1 of 10 answers of an S3 server is lost")
def _(one: Round) -> Run:
    behind(one, fails=10, how="answer lost")
    return on_two_nodes(one)


@fault(
    "s3-careless",
    "an S3 server ignores `If-Match`; then it is another one",
    codes=(3,),
    said="its server ignores If-Match",
    mends=lambda one: one.variables.update(AWS_ENDPOINT_URL_S3=os.environ["AWS_ENDPOINT_URL_S3"]),
)
def _(one: Round) -> Run:
    behind(one, strips=("if-match",))
    return on_two_nodes(one)


@fault("s3-away", "an S3 server does not answer for a minute", said="the commit is tried again")
def _(one: Round) -> Run:
    from tests.tasks.test_store_s3 import cut_off

    address, cut = one.services.enter_context(cut_off(_s3(one)))
    one.variables["AWS_ENDPOINT_URL_S3"] = address
    run = on_two_nodes(one)
    training(one, run)
    cut(True)
    time.sleep(60)
    cut(False)
    return run


def _s3(one: Round) -> str:
    """A server with a bucket, which this process reads too; its address."""
    from importlib import import_module

    boto3 = import_module("boto3")  # an optional one, without types

    from tests.end_to_end.test_scheduled import free_port

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    one.later.callback(server.wait)
    one.later.callback(server.kill)
    url = f"http://127.0.0.1:{port}"
    access = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    access |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": url}
    os.environ.update(access)
    one.variables |= access
    client = boto3.session.Session().client("s3", endpoint_url=url)
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket="rounds")
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
    one.store = "s3://rounds/store"
    return url
