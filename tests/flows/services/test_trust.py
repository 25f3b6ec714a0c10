"""Prefect's clients read one authority where their server has no TLS, and trust nobody new."""

import os
import ssl
from pathlib import Path

import certifi
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

from flows.services.trust import few_authorities

LOOPBACK = "http://127.0.0.1:4200/api"


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_SSL_CERT_FILE", raising=False)


def by_default() -> str | None:
    """What Prefect reads where nobody has said anything to it."""
    return os.environ.get("SSL_CERT_FILE")


def contexts_of_a_client(url: str, monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """Those that Prefect makes for one that talks to the server."""
    made: list[ssl.SSLContext] = []
    create = ssl.create_default_context

    def seen(*arguments: object, **named: object) -> ssl.SSLContext:
        made.append(create(*arguments, **named))  # type: ignore[arg-type]
        return made[-1]

    with monkeypatch.context() as patch, temporary_settings(updates={PREFECT_API_URL: url}):
        patch.setattr(ssl, "create_default_context", seen)
        get_client(sync_client=True)
    assert made
    return made


@pytest.mark.parametrize("url", [LOOPBACK, "http://localhost:4200/api", "http://[::1]:4200/api"])
def test_a_client_of_a_server_on_this_machine_reads_one_authority(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    with few_authorities():
        file = os.environ["PREFECT_API_SSL_CERT_FILE"]
        assert file == PREFECT_API_SSL_CERT_FILE.value()
        for context in contexts_of_a_client(url, monkeypatch):
            (trusted,) = context.get_ca_certs()
            assert trusted in ssl.create_default_context(cafile=certifi.where()).get_ca_certs()
            assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert "PREFECT_API_SSL_CERT_FILE" not in os.environ
    assert PREFECT_API_SSL_CERT_FILE.value() == by_default()
    assert not Path(file).exists()


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:4200/api", "https://prefect.example/api", "http://prefect.example/api", ""]
)
def test_of_any_other_server_clients_read_what_they_always_did(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    with few_authorities():
        assert "PREFECT_API_SSL_CERT_FILE" not in os.environ
        assert PREFECT_API_SSL_CERT_FILE.value() == by_default()
        for context in contexts_of_a_client(url or LOOPBACK, monkeypatch):
            assert len(context.get_ca_certs()) > 1


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_file_that_the_user_has_named_stays(by_variable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", LOOPBACK)
    own = certifi.where()
    if by_variable:
        monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", own)
    with temporary_settings(updates={} if by_variable else {PREFECT_API_SSL_CERT_FILE: own}), few_authorities():
        assert os.environ.get("PREFECT_API_SSL_CERT_FILE") == (own if by_variable else None)
        assert PREFECT_API_SSL_CERT_FILE.value() == own


def test_a_bundle_in_any_encoding_is_read_and_one_without_a_certificate_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", LOOPBACK)
    whole, bundle = Path(certifi.where()).read_bytes(), tmp_path / "bundle.pem"
    monkeypatch.setattr("certifi.where", lambda: str(bundle))
    bundle.write_bytes("# Főtanúsítvány\n".encode("latin2") + whole.replace(b"\n", b"\r\n"))
    with few_authorities():
        (_,) = ssl.create_default_context(cafile=os.environ["PREFECT_API_SSL_CERT_FILE"]).get_ca_certs()
    bundle.write_bytes(b"nothing")
    with few_authorities():
        assert "PREFECT_API_SSL_CERT_FILE" not in os.environ
