"""Every dialogue waited for in both ways, with a server that pipelines and one that does not."""

from collections.abc import Iterator

import pytest

from tests.integration.smtp_session.dialogue import way_of_waiting
from tests.scripted_smtp_server import ScriptedSmtpServer


@pytest.fixture(params=["thread", "lane"], autouse=True)
def every_way_of_waiting(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have every dialogue by a thread that blocks, and by a lane of a loop."""
    way_of_waiting.looped = request.param == "lane"
    yield
    while way_of_waiting.sessions:
        session = way_of_waiting.sessions.pop()
        session.withdraw()
        session.loop.close()


@pytest.fixture(params=["pipelining", "one by one"])
def server(request: pytest.FixtureRequest) -> Iterator[ScriptedSmtpServer]:
    """Give a server that offers PIPELINING, and one that does not."""
    extensions = ["8BITMIME", "SIZE 10485760", "ENHANCEDSTATUSCODES"]
    if request.param == "pipelining":
        extensions.append("PIPELINING")
    with ScriptedSmtpServer(extensions=extensions) as server:
        yield server


@pytest.fixture
def pipelining_server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer() as server:
        yield server
