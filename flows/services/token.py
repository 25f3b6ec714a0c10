"""Ray's token: who may give a cluster work. A local Ray has one of its own; that of another cluster
is found where Ray looks for it.

Ray turns tokens on by itself for a head that finds one, and not for who connects to an address: so
the cluster is asked whether it wants one, and a token that is here is used if it does. With one
that does not, a token would do harm: this process would refuse what its workers ask of it without
one, and their actors and objects would end at once.

`ray` is not imported with this module: it reads its environment when imported.
"""

import importlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.services.environment import temporary_environment
from flows.services.errors import ANSWER_SECONDS, ServiceUnavailable

MODE, TOKEN, FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

_GIVE_IT = f"export {TOKEN}=..."


@contextmanager
def own_token(folder: Path) -> Iterator[None]:
    """A new token in a folder that nobody else can read, for the Ray that starts in the block; none
    is written into the user's home.
    """
    file = folder / "token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    with temporary_environment({MODE: "token", FILE: str(file), TOKEN: None}), _read_anew():
        yield


@contextmanager
def token_found(address: str) -> Iterator[None]:
    """Use the token that is here if the cluster at the address wants one and `RAY_AUTH_MODE` does not
    say otherwise. Before this process is connected to it.

    Raises:
        ServiceUnavailable: the variable says so, and the cluster uses none.
    """
    mode = os.environ.get(MODE, "").lower()
    if mode in {"", "token"} and _place():
        wanted = _wants_token(address)
        if mode and not wanted:
            raise ServiceUnavailable(
                f"The Ray cluster at {address} uses no token, and {MODE}=token has this process want one of its "
                f"workers. Unset it: `unset {MODE}`.",
                f"unset {MODE}",
            )
        mode = "token" if wanted else "disabled"
    with temporary_environment({MODE: mode or "disabled"}), _read_anew():
        yield


def check_token(address: str) -> None:
    """Ask a cluster whether it accepts our token, or none; Ray's own attempt takes long and is loud.

    Raises:
        ServiceUnavailable: it wants one, or another one; the message says how to give it.
    """
    place = _place()
    if os.environ.get(MODE, "").lower() == "token" and not place:
        raise ServiceUnavailable(
            f"{MODE}=token, and there is no Ray token here. Put the cluster's (on its head: `cat ~/.ray/auth_token`) "
            f"into {TOKEN} or ~/.ray/auth_token, or unset {MODE}.",
            _GIVE_IT,
        )
    if not _is_refused(address):
        return
    remedy, advice = _GIVE_IT, f"On its head `cat ~/.ray/auth_token` shows it; here: `{_GIVE_IT}`."
    if not place:
        lacking = "wants a token, and there is none here"
    elif os.environ.get(MODE, "").lower() != "token":
        lacking = f"wants a token, and {MODE}={os.environ.get(MODE)} keeps ours back"
        remedy, advice = f"unset {MODE}", f"Unset it: `unset {MODE}`."
    else:
        lacking = f"does not accept our token ({place})"
    raise ServiceUnavailable(f"The Ray cluster at {address} {lacking}. {advice}", remedy)


def _is_refused(address: str) -> bool:
    """Whether the cluster refuses who has what the environment says."""
    return (_client_is_refused if address.startswith("ray://") else _driver_is_refused)(address)


def _wants_token(address: str) -> bool:
    """Whether the cluster refuses who has no token."""
    with temporary_environment({MODE: "disabled"}), _read_anew():
        return _is_refused(address)


def _place() -> str | None:
    """Where a token is found, in the order in which Ray looks; None if there is none."""
    if os.environ.get(TOKEN):
        return TOKEN
    given = os.environ.get(FILE)
    file = Path(given) if given else Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        if file.read_text().strip():
            return str(file)
    return None


@contextmanager
def _read_anew() -> Iterator[None]:
    """Have Ray's library, which may be loaded since long, read the variables again, now and at the
    end of the block.
    """
    _refresh()
    try:
        yield
    finally:
        with temporary_environment({MODE: "disabled"}):  # what still ends must not look for a token that is gone
            _refresh()


def _refresh() -> None:
    library = _library()
    if hasattr(library, "AuthenticationTokenLoader"):  # not a Ray from before tokens
        library.Config.initialize("")
        library.AuthenticationTokenLoader.instance().reset_cache()


def _library() -> Any:
    """Ray's compiled part, which has no types."""
    return importlib.import_module("ray._raylet")


def _driver_is_refused(address: str) -> bool:
    from ray.exceptions import RayError

    try:
        with _silent():
            _library().GcsClient(address=address)
    except RayError as error:
        return type(error).__name__ == "AuthenticationError"
    return False


def _client_is_refused(address: str) -> bool:
    try:
        import grpc

        messages: Any = importlib.import_module("ray.core.generated.ray_client_pb2")
        calls: Any = importlib.import_module("ray.core.generated.ray_client_pb2_grpc")
    except ImportError:  # Ray says so itself
        return False
    token = os.environ.get(TOKEN) or _read(_place())
    metadata = [("authorization", f"Bearer {token}")] if token and os.environ.get(MODE) == "token" else []
    with grpc.insecure_channel(urlsplit(address).netloc) as channel:
        ask = calls.RayletDriverStub(channel).ClusterInfo
        greeting = messages.ClusterInfoRequest(type=messages.ClusterInfoType.PING)
        try:
            ask(greeting, timeout=ANSWER_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False


def _read(place: str | None) -> str:
    return Path(place).read_text().strip() if place and place != TOKEN else ""


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what Ray's library writes from the terminal."""
    sys.stderr.flush()
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)
