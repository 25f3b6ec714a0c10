"""The files of a store as they lie in a folder or a bucket: named bytes, listed, read and written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tasks.store.errors import StoreUnavailable
from tasks.store.storage import Place

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TIMEOUT = 30
_GONE = ("NoSuchKey", "404")


class Objects(Protocol):
    """Named bytes; names are paths with slashes."""

    def sizes(self, under: str = "") -> dict[str, int]:
        """The names that begin so, in order, and how many bytes each has."""
        ...

    def read(self, name: str) -> bytes | None:
        """What is under a name; None if nothing is (any more)."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put bytes there."""
        ...

    def remove(self, name: str) -> None:
        """Take a name away, if it is there."""
        ...


def objects_of(place: Place) -> Objects:
    """The files at a store's address.

    Raises:
        StoreUnavailable: it is a bucket, and boto3 is not installed.
    """
    return _Folder(place.folder) if place.folder is not None else _Bucket(place)


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sizes(self, under: str = "") -> dict[str, int]:
        found = {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if name.startswith(under) and path.is_file():
                with contextlib.suppress(FileNotFoundError):
                    found[name] = path.stat().st_size
        return found

    def read(self, name: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / name).read_bytes()
        return None

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class _Bucket:
    def __init__(self, place: Place) -> None:
        try:
            import boto3  # type: ignore[import-untyped]
            from botocore.config import Config  # type: ignore[import-untyped]
        except ModuleNotFoundError:
            raise StoreUnavailable(
                f"store {place.uri}: files on object storage are copied with boto3 (pip install 'diffatlas[s3]')"
            ) from None
        retries = {"max_attempts": 5, "mode": "standard"}
        config = Config(connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries=retries, max_pool_connections=16)
        self._client: Any = boto3.session.Session().client("s3", endpoint_url=place.endpoint, config=config)
        self._bucket, self._prefix = place.bucket, f"{place.prefix}/"

    def sizes(self, under: str = "") -> dict[str, int]:
        return dict(sorted(self._ask(lambda: list(self._listed(under)))))

    def _listed(self, under: str) -> Iterator[tuple[str, int]]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + under):
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(self._prefix), entry["Size"]

    def read(self, name: str) -> bytes | None:
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        def get() -> bytes | None:
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            except ClientError as error:
                if error.response["Error"]["Code"] in _GONE:
                    return None
                raise
            return bytes(answer["Body"].read())

        return self._ask(get)

    def write(self, name: str, data: bytes) -> None:
        self._ask(lambda: self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data))

    def remove(self, name: str) -> None:
        self._ask(lambda: self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name))

    def _ask(self, what: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return what()
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from error  # which `speaking` understands
