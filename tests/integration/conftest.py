"""A daily run of a test's own against a scripted SMTP server, and what a server needs to speak TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.loopback_certificate import make_certificate
from tests.daily_run import DailyRun
from tests.scripted_smtp_server import ScriptedSmtpServer


@pytest.fixture
def smtp_server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer() as server:
        yield server


@pytest.fixture
def daily_run(
    tmp_path: Path, ledger_database: str, source_database: str, smtp_server: ScriptedSmtpServer
) -> Iterator[DailyRun]:
    run = DailyRun(tmp_path, ledger_database, source_database, smtp_server.port)
    yield run
    run.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with a self-signed certificate for 127.0.0.1 and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusting(certificate: Path) -> ssl.SSLContext:
    """Give a client's context that checks everything and believes this certificate alone."""
    return ssl.create_default_context(cafile=str(certificate))
