"""The lease of a store on object storage: an object beside the prefix, put there only if there is
none.

Needs a server that honours conditional puts (``If-None-Match: *`` and ``If-Match``), as Icechunk's
own commits do; those stay the last guard. The lease is held until given back: nothing renews it and
no clock ends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, Protocol
from uuid import uuid4

from tasks.plain import Spec
from tasks.store.errors import StoreUnavailable
from tasks.store.holder import Holder
from tasks.store.storage import Place

_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412")
_TIMEOUT = 30
_PROBE = re.compile(r"probe-[0-9a-f]{32}")


def is_probe(name: str) -> bool:
    """Whether an object under a prefix is there only to try its server: of somebody who is about to
    take the lease, or was ended then.
    """
    return _PROBE.fullmatch(name) is not None


class LeaseError(OSError):
    """The server could not be asked."""


class Client(Protocol):
    """What is asked of an S3 client of boto3, which makes its methods when it is made itself."""

    def put_object(self, **request: object) -> Spec: ...

    def get_object(self, **request: object) -> Spec: ...

    def delete_object(self, **request: object) -> Spec: ...


@dataclass(frozen=True)
class Lease:
    """The lease object ``bucket/key``."""

    client: Client
    bucket: str
    key: str

    @classmethod
    def of(cls, place: Place) -> Lease:
        """The lease of a store.

        Raises:
            StoreUnavailable: boto3 is not installed.
        """
        try:
            import boto3  # type: ignore[import-untyped]
            from botocore.config import Config  # type: ignore[import-untyped]
        except ModuleNotFoundError:
            raise StoreUnavailable(
                f"store {place.uri}: writing to object storage needs boto3, for the lease (pip install 'diffatlas[s3]')"
            ) from None
        config = Config(
            connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries={"max_attempts": 5, "mode": "standard"}
        )
        client = boto3.session.Session().client("s3", endpoint_url=place.endpoint, config=config)
        return cls(client, place.bucket, f"{place.prefix}.coordinator.json")

    def take(self, me: Holder, instead_of: str | None = None) -> bool:
        """Write the lease: if there is none, or in place of the version that was read. False if
        that is no longer so.
        """
        condition = {"IfMatch": instead_of} if instead_of else {"IfNoneMatch": "*"}
        answer = self._ask("put_object", Body=me.note().encode(), ContentType="application/json", **condition)
        now, _ = self.read()  # also where the server said no: it may have said so to a put of ours that was sent twice
        ours = now is not None and now.token == me.token
        if answer is not None and not ours:
            raise LeaseError("the server ignores conditional puts: it cannot keep two coordinators apart")
        return ours

    def read(self) -> tuple[Holder | None, str | None]:
        """Who holds it, and the version of the object; nothing if there is none."""
        answer = self._ask("get_object")
        return (None, None) if answer is None else (Holder.parse(answer["Body"].read()), answer["ETag"])

    def give_back(self, me: Holder) -> None:
        """Remove the lease if it is still ours."""
        now, _ = self.read()
        if now is not None and now.token == me.token:
            self._ask("delete_object")

    def probe(self, prefix: str) -> Lease:
        """An object under `prefix` that nobody else knows of."""
        return replace(self, key=f"{prefix}/probe-{uuid4().hex}")

    def broken_promises(self) -> list[str]:
        """Which conditions of a put the server ignores, found with this object, which is taken away
        again.

        What it holds after each put is looked at, not what the server says: an answer may be lost
        and the put be sent twice.
        """
        try:
            self._put(b"1", IfNoneMatch="*")
            body, version = self._look()
            if body != b"1":
                raise LeaseError("the server takes no conditional put of a new object")
            ignored = []
            self._put(b"2", IfNoneMatch="*")
            if self._look()[0] != b"1":
                ignored.append("If-None-Match")
                self._put(b"1")
                version = self._look()[1]
            self._put(b"3", IfMatch=version)
            if self._look()[0] != b"3":
                raise LeaseError("the server refuses a put whose condition (If-Match) is met")
            self._put(b"4", IfMatch=version)
            return ignored if self._look()[0] == b"3" else [*ignored, "If-Match"]
        finally:
            self._ask("delete_object")

    def _put(self, body: bytes, **condition: object) -> None:
        self._ask("put_object", Body=body, **condition)

    def _look(self) -> tuple[bytes | None, str | None]:
        answer = self._ask("get_object")
        return (None, None) if answer is None else (answer["Body"].read(), answer["ETag"])

    def _ask(self, what: Literal["put_object", "get_object", "delete_object"], **more: object) -> Spec | None:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        try:
            answer: Spec = getattr(self.client, what)(Bucket=self.bucket, Key=self.key, **more)
            return answer
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST:
                return None
            raise LeaseError(str(error)) from error
        except BotoCoreError as error:
            raise LeaseError(str(error)) from error
