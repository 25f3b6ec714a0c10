"""The process of a temporary Prefect server: uvicorn on a socket it inherits, and a watch on
whoever started it.

Run by its path with the parent's process id and the socket's file descriptor as arguments, and with
a pipe as stdin that the parent never writes to. The pipe closes when the parent ends, however it
ends; then this process stops within two seconds.

A pipe and not `PR_SET_PDEATHSIG` tells that the parent is gone: the signal is sent when the
*thread* that started the child ends, is lost when the parent dies before the child asked for it,
and exists on Linux only. A closing pipe has none of these gaps. A forked child of the parent may
keep the other end open: so the parent's id is watched as well.
"""

import gc
import os
import select
import signal
import socket
import sys
import threading
import time

GRACE_SECONDS = 2.0
"""How long the server may take to stop by itself after its parent has gone."""


def outlive_nobody(parent: int) -> None:
    """End this process when its parent, whose id is `parent`, has gone."""
    while os.getppid() == parent:
        if select.select([0], [], [], 1.0)[0] and not os.read(0, 1):
            break
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main() -> None:
    """Serve Prefect's API until stopped; the watch begins before the imports, which take seconds."""
    parent, descriptor = int(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=outlive_nobody, args=[parent], daemon=True).start()
    gc.set_threshold(50_000, 20, 20)  # imports make many objects and no garbage
    import uvicorn

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        lifespan="on",
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main()
