"""The server of `diffatlas explore`: one page on this machine's own address, for one reader.

It answers GET alone, reads alone, and hands out only files that it names itself. Whoever asks under
another name than this machine's own is refused (a page elsewhere can make a name point here), and
so is a page of any other origin; browsers are told to load nothing from anywhere else.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from diffusion.errors import DiffatlasError, WrongInput
from flows.services.errors import ServiceUnavailable
from tasks.explorer.look import Look, read

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tasks.explorer.opened import OpenedStore
    from tasks.plain import Spec

LOOPBACK = "127.0.0.1"
_OURSELVES = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")  # any port: one may lead here through ssh
_FILES = {
    "/": ("explore.html", "text/html"),
    "/explore.css": ("explore.css", "text/css"),
    "/explore.js": ("explore.js", "text/javascript"),
    "/controls.js": ("controls.js", "text/javascript"),
    "/pictures.js": ("pictures.js", "text/javascript"),
    "/tables.js": ("tables.js", "text/javascript"),
    "/details.js": ("details.js", "text/javascript"),
}
_HEADERS = {
    # plotly writes style attributes and draws what is saved as a picture from a blob
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Answer: TypeAlias = "Callable[[OpenedStore, Look, Mapping[str, str]], Spec]"


def application(store: OpenedStore) -> Starlette:
    """The page and what it asks, for a store."""
    lock = threading.Lock()  # one reader: what is opened for a question is there for the next one
    routes = [Route(path, partial(_file, name, kind), methods=["GET"]) for path, (name, kind) in _FILES.items()]
    routes.append(Route("/plotly.js", _plotly, methods=["GET"]))
    for name, answer in _ANSWERS.items():
        routes.append(Route(f"/api/{name}", partial(_answer, store, lock, answer), methods=["GET"]))
    app = Starlette(routes=routes)
    app.add_middleware(_Guard)
    return app


class _Guard:
    """Refuses whoever is not this machine's own page, and tells browsers what that page may do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if refusal := _refusal(request):
            await refusal(scope, receive, send)
            return

        async def with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),  # type: ignore[misc]
                    *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)  # type: ignore[arg-type]


def _refusal(request: Request) -> Response | None:
    """Why a request is not answered, if it is not."""
    if request.method not in ("GET", "HEAD"):
        return _text("this page answers GET alone\n", 405, {"Allow": "GET, HEAD"})
    host = request.headers.get("host", "")
    if not _OURSELVES.fullmatch(host):
        return _text("this page answers under 127.0.0.1 and localhost alone\n", 403)
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return _text("this page answers no other origin\n", 403)
    site = request.headers.get("sec-fetch-site", "none")
    link = request.url.path == "/" and request.headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not (link and request.headers.get("sec-fetch-dest") == "document"):
        return _text("this page answers no other site\n", 403)
    return None


def _text(message: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(message, status, {**_HEADERS, **(headers or {})}, media_type="text/plain")


async def _file(name: str, kind: str, _: Request) -> Response:
    return Response(files("tasks.explorer.page").joinpath(name).read_bytes(), media_type=kind)


@cache
def _bundle() -> bytes:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()


async def _plotly(_: Request) -> Response:
    body = await run_in_threadpool(_bundle)
    return Response(body, media_type="text/javascript")


async def _answer(store: OpenedStore, lock: threading.Lock, answer: Answer, request: Request) -> Response:
    def work() -> tuple[int, Spec]:
        given = {name: request.query_params.getlist(name) for name in request.query_params}
        more = {name: given.pop(name)[-1] for name in _MORE if name in given}
        try:
            with lock:
                return 200, answer(store, read(given), more)
        except DiffatlasError as error:
            status = 400 if isinstance(error, WrongInput) else 503
            return status, {"error": {"kind": error.kind, "message": str(error)}}

    status, found = await run_in_threadpool(work)
    return Response(json.dumps(found, allow_nan=False), status, media_type="application/json")


_MORE = ("row", "id")
"""Parameters of an answer that are no part of a view."""


def _choices(store: OpenedStore, look: Look, _: Mapping[str, str]) -> Spec:
    from tasks.explorer.columns import choices

    return choices(store, look)


def _view(store: OpenedStore, look: Look, _: Mapping[str, str]) -> Spec:
    if look.view == "moved":
        from tasks.explorer.comparing import moved

        return moved(store, look)
    from tasks.explorer.views import view

    return view(store.points(look.study, look.as_of), look)


def _row(store: OpenedStore, look: Look, more: Mapping[str, str]) -> Spec:
    from tasks.explorer.details import points_behind

    return points_behind(store.points(look.study, look.as_of), look, more.get("row", ""))


def _point(store: OpenedStore, look: Look, more: Mapping[str, str]) -> Spec:
    from tasks.explorer.details import point

    return point(store, look, more.get("id", ""))


def _compared(store: OpenedStore, look: Look, _: Mapping[str, str]) -> Spec:
    from tasks.explorer.comparing import compare_rows

    return compare_rows(store, look)


def _history(store: OpenedStore, _: Look, __: Mapping[str, str]) -> Spec:
    entries = store.history()[:_MOST_SNAPSHOTS]
    return {"snapshots": [{name: value for name, value in entry.items() if name != "metadata"} for entry in entries]}


def _now(store: OpenedStore, _: Look, __: Mapping[str, str]) -> Spec:
    from tasks.explorer.now import now

    return now(store)


_MOST_SNAPSHOTS = 300
_ANSWERS: dict[str, Answer] = {
    "choices": _choices,
    "view": _view,
    "row": _row,
    "point": _point,
    "compare": _compared,
    "history": _history,
    "now": _now,
}


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket on this machine's own address; port 0 is a free one.

    Raises:
        ServiceUnavailable: the port cannot be had.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((LOOPBACK, port))
            found.listen()
        except OSError as error:
            raise ServiceUnavailable(
                f"port {port} of {LOOPBACK} cannot be had ({error.strerror or error}): choose another one by --port, "
                "or a free one by --port 0"
            ) from error
        yield found


def serve(store: OpenedStore, found: socket.socket) -> None:
    """Answer until the process is interrupted.

    Raises:
        KeyboardInterrupt: it was.
    """
    config = uvicorn.Config(
        application(store),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[found])
