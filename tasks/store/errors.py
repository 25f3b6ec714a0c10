"""What can be wrong with a store, and the places where foreign errors become `StoreUnavailable`."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

import icechunk
import zarr

from diffusion.errors import DiffatlasError, Unavailable, WrongInput


class StoreUnavailable(Unavailable):
    """The store cannot be opened, read or written.

    Attributes:
        may_pass: whether nothing says that somebody has to mend something first: a server that does
            not answer may do so again.
    """

    kind = "store-unavailable"
    may_pass = False


class StoreMissing(StoreUnavailable):
    """There is no store at the address."""

    kind = "store-missing"


class StoreLocked(StoreUnavailable):
    """Another run has the store, or may have it."""

    kind = "store-locked"


class StoreMoved(StoreUnavailable):
    """Somebody else committed since this run's last commit; what this run had not committed is not
    written.
    """

    kind = "store-moved"


class StoreDamaged(StoreUnavailable):
    """What is stored is not what was written, or is gone."""

    kind = "store-damaged"


class WrongReference(WrongInput, LookupError):
    """An address that no store can have, or a snapshot, tag or time that this store does not know."""

    kind = "wrong-reference"


class NotStored(WrongInput, KeyError):
    """A point, cell or study that the store does not hold, or samples or weights of it that were
    not kept.
    """

    kind = "not-stored"


class Damaged(Exception):
    """What was read is not what was written: a checksum of ours tells so."""


_NOT_OURS = (icechunk.IcechunkError, icechunk.ConflictError, OSError, zarr.errors.BaseZarrError, Damaged)
_CODECS = (RuntimeError, ValueError, KeyError, TypeError, OverflowError, IndexError)  # on bytes that are not theirs

_REMEDIES = (
    (
        ("No space left", "os error 28", "StorageFull", "Disk quota exceeded", "os error 122"),
        "make room on that disk and run the same command again",
    ),
    (
        ("Permission denied", "os error 13", "Read-only file system", "os error 30", "not permitted", "os error 1)"),
        "make it writable, or use another store",
    ),
    (("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"), "look at the credentials (AWS_* or ~/.aws)"),
    (("NoSuchBucket",), "make the bucket first"),
    (
        ("error writing object to object store service error",),
        "its server refused that: look at the credentials (AWS_* or ~/.aws) and their rights",
    ),
    (
        ("dispatch failure", "Connection refused", "timed out", "error sending request", "endpoint URL"),
        (_SILENT := "look whether the server answers"),
    ),
)
_REPAIR = (
    "the store is damaged: put the file back, read an older snapshot with --as-of (diffatlas history lists them), "
    "or use another store"
)


def in_brief(error: BaseException) -> str:
    """The first line of an error that says something, without the addresses of objects."""
    lines = [line.strip(" x\u2502\u2570\u25b6\u2500\u251c\t|") for line in str(error).splitlines()]
    text = next((line for line in lines if line and not line.startswith("context:")), type(error).__name__)
    code = getattr(error, "errno", None)
    if code == errno.ENOSPC:
        text = "No space left on device"
    return re.sub(r" in store <[^>]*>( at path '')?", "", text)


def remedy(error: BaseException) -> str | None:
    """What to do about a foreign error; None if nothing can be said."""
    text = str(error)
    return next((what for signs, what in _REMEDIES if any(sign in text for sign in signs)), None)


def _unavailable(uri: str, doing: str, error: BaseException, *, damaged: bool) -> StoreUnavailable:
    """What a foreign error says of the store: it is `damaged`, unless the error is known to mean
    something else.
    """
    message, known = f"store {uri}: cannot {doing}: {in_brief(error)}", remedy(error)
    if damaged and known is None:
        return StoreDamaged(f"{message} ({_REPAIR})")
    found = StoreUnavailable(message if known is None else f"{message} ({known})")
    found.may_pass = known in (None, _SILENT)
    return found


@contextlib.contextmanager
def speaking(uri: str, doing: str) -> Iterator[None]:
    """Turn what the storage raises while `doing` into `StoreUnavailable`; what callers did wrong
    passes.
    """
    try:
        yield
    except _NOT_OURS as error:
        raise _unavailable(uri, doing, error, damaged=isinstance(error, Damaged)) from error
    except BaseException as error:
        if not _panicked(error):
            raise
        raise _unavailable(uri, doing, error, damaged=True) from error


@contextlib.contextmanager
def reading_stored(uri: str, doing: str) -> Iterator[None]:
    """Turn whatever damaged or missing files raise into `StoreUnavailable`, which says what to do.

    Only for what reads stored bytes: an error of a caller's values would be called damage too.
    """
    try:
        yield
    except DiffatlasError:
        raise
    except BaseException as error:
        if not isinstance(error, (*_NOT_OURS, *_CODECS)) and not _panicked(error):
            raise
        raise _unavailable(uri, doing, error, damaged=True) from error


def _panicked(error: BaseException) -> bool:
    """Whether Icechunk's Rust gave up on what it read, which arrives as an exception that no clause
    for exceptions catches.
    """
    return type(error).__name__ == "PanicException"
