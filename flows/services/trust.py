"""Whom Prefect's clients trust while its server is on this machine and answers without TLS.

Prefect makes a TLS context for each of its clients, whatever its server's address: reading all
certificate authorities of the world takes 20 ms of a processor, and a task run makes several
clients. A client of a server without TLS looks at none of them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from flows.services.environment import temporary_environment
from flows.services.orphans import run_folder

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_END = b"-----END CERTIFICATE-----"
_VARIABLE = "PREFECT_API_SSL_CERT_FILE"


@contextmanager
def few_authorities() -> Iterator[None]:
    """For the duration, Prefect's clients in this process, and in those that it starts, read one
    authority instead of all; nothing changes for a server elsewhere, one with TLS, or where the user
    has said which file they read.

    Nothing is trusted that was not before: a server that answered with TLS after all would be
    refused. Prefect alone reads this setting.
    """
    url = urlsplit(os.environ.get("PREFECT_API_URL", ""))
    if url.scheme != "http" or url.hostname not in _LOOPBACK:
        yield
        return
    import certifi
    from prefect.settings import PREFECT_API_SSL_CERT_FILE, get_current_settings, temporary_settings

    if "ssl_cert_file" in get_current_settings().api.model_fields_set or os.environ.get(_VARIABLE):
        yield
        return
    first, end, _ = Path(certifi.where()).read_bytes().partition(_END)
    if not end:  # a bundle of another form, which is Prefect's to read
        yield
        return
    with run_folder() as folder:
        file = folder / "authority.pem"
        file.write_bytes(first + end + b"\n")
        with (
            temporary_environment({_VARIABLE: str(file)}),
            temporary_settings(updates={PREFECT_API_SSL_CERT_FILE: str(file)}),
        ):
            yield
