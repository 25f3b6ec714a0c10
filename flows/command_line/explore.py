"""`explore`: one local page for looking through stored results."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.command_line.options import StoreOption, app, clear_errors, err
from flows.exit_codes import INTERRUPTED

PORT = 8420


@app.command()
def explore(
    store: StoreOption = "results",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1; 0: any free one.", metavar="N")
    ] = PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only say where the page is.")] = False,
) -> None:
    """Look through stored results on one page of this machine: curves, heat maps, scatter, and what
    is behind each point. Nothing is written. Ctrl-C ends it.
    """
    with clear_errors():
        from flows.exploring import LOOPBACK, listening, serve
        from tasks.explorer.opened import OpenedStore

        opened = OpenedStore(store)
        opened.points()  # a store that cannot be read is told here, and not on the page
        with listening(port) as found:
            address = f"http://{LOOPBACK}:{found.getsockname()[1]}/"
            print(f"exploring {store}: {address} (Ctrl-C ends it)", flush=True)  # noqa: T201
            if not no_browser:
                _show(address)
            try:
                serve(opened, found)
            except KeyboardInterrupt:
                err.print("ended", markup=False)
                raise typer.Exit(INTERRUPTED) from None


def _show(address: str) -> None:
    """Open the page in a browser, where there is one; the address is printed in any case."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
