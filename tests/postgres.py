"""A PostgreSQL server of Debian's, as a Prefect server in use has one: in a folder of its own, on
loopback, with a password.
"""

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PASSWORD = "opensesame"  # noqa: S105 - of a server that ends with its tests


def program(name: str) -> Path | None:
    """One of PostgreSQL's programs; Debian has those of the server beside its version."""
    found = [Path(one) for one in [shutil.which(name)] if one]
    return next(iter(found + sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None)


def why_not() -> str | None:
    """Why there can be no server here, if so."""
    if program("initdb") is None:
        return "there is no PostgreSQL here (`apt-get install postgresql`)"
    if os.geteuid() == 0:
        with suppress(KeyError):
            return None if pwd.getpwnam("postgres") and shutil.which("runuser") else "no runuser"
        return "PostgreSQL does not run as root, and there is no user named postgres"
    return None


@contextmanager
def postgres(port: int) -> Iterator[str]:
    """Yield `user:password@host:port/database` of a fresh server."""
    folder = Path(tempfile.mkdtemp(prefix="diffatlas-postgres-"))  # not pytest's: that is closed to other users
    user, before = getpass.getuser(), list[str]()
    if os.geteuid() == 0:
        user, before = "postgres", ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, user, user)
    initdb, server, createdb = program("initdb"), program("postgres"), program("createdb")
    (folder / "password").write_text(PASSWORD)
    with suppress(LookupError, PermissionError):
        shutil.chown(folder / "password", user)
    data, log = folder / "data", folder / "log"
    make = [*before, str(initdb), "-D", str(data), "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
    subprocess.run([*make, "-U", "atlas", "--no-sync"], cwd="/", check=True, capture_output=True)
    options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off"}
    serve = [*before, str(server), "-D", str(data), *(f"--{name}={value}" for name, value in options.items())]
    with log.open("wb") as output:
        process = subprocess.Popen(serve, cwd="/", stdout=output, stderr=output, start_new_session=True)
    try:
        create = [str(createdb), "-h", "127.0.0.1", "-p", str(port), "-U", "atlas", "prefect"]
        deadline = time.monotonic() + 60
        while subprocess.run(create, env=os.environ | {"PGPASSWORD": PASSWORD}, capture_output=True).returncode:  # noqa: PLW1510
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"atlas:{PASSWORD}@127.0.0.1:{port}/prefect"
    finally:
        pid = int((data / "postmaster.pid").read_text().split()[0]) if (data / "postmaster.pid").exists() else None
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, 2)  # a fast shutdown: whoever is connected is cut off
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def ask(address: str, query: str) -> str:
    """What the server answers, as text."""
    psql = [str(program("psql")), "-At", "-c", query, f"postgresql://{address}"]
    return subprocess.run(psql, check=True, capture_output=True, text=True).stdout.strip()
