"""An SMTP catcher: takes every message, records it durably, and only then answers 250.

``python -m local_stack.catcher --smtp-port 10025 --inbox-port 18025 --store mails.sqlite`` runs the SMTP
server and the inbox page in one process until SIGTERM or SIGINT. It listens on loopback only, and delivers
nothing anywhere.
"""

import argparse
import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session, syntax
from fastapi import FastAPI

from local_stack.inbox import inbox_app
from local_stack.mail_store import Arrival, MailStore, MailWriter
from local_stack.ports import LOOPBACK

MAX_GROUP = 200
MAX_MESSAGE_BYTES = 2**25
MAX_LINE_BYTES = 998


class Recorder:
    """Records arrivals in groups: those that wait while one group is being written form the next."""

    def __init__(self, writer: MailWriter) -> None:
        self._writer = writer
        self._waiting: asyncio.Queue[tuple[Arrival, asyncio.Future[int]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mail-store")

    async def record(self, arrival: Arrival) -> int:
        """Return the mail's number once it is durable. sqlite3.Error: it is not recorded."""
        recorded: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((arrival, recorded))
        return await recorded

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write group after group while the block runs."""
        writing = asyncio.create_task(self._write())
        try:
            yield
        finally:
            writing.cancel()
            self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            group = [await self._waiting.get()]
            while not self._waiting.empty() and len(group) < MAX_GROUP:
                group.append(self._waiting.get_nowait())
            arrivals = [arrival for arrival, _ in group]
            try:
                numbers = await loop.run_in_executor(self._thread, self._writer.write, arrivals)
            except Exception as error:  # noqa: BLE001  (whatever it was, each sender has to be told)
                for _, recorded in group:
                    _settle(recorded, error=error)
            else:
                for (_, recorded), number in zip(group, numbers, strict=True):
                    _settle(recorded, number=number)


def _settle(recorded: asyncio.Future[int], *, number: int = 0, error: Exception | None = None) -> None:
    if recorded.done():  # the client went away meanwhile
        return
    if error is not None:
        recorded.set_exception(error)
    else:
        recorded.set_result(number)


class Handler:
    """What aiosmtpd asks at the end of a message's data."""

    def __init__(self, recorder: Recorder, answer_after: float = 0.0) -> None:
        self._recorder = recorder
        self._answer_after = answer_after

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Record the message; the returned line is the server's answer to the final dot."""
        content = envelope.content
        arrival = Arrival(
            received_at=datetime.now(UTC),
            sender=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            content=content if isinstance(content, bytes) else str(content).encode(),
        )
        try:
            number = await self._recorder.record(arrival)
        except Exception as error:  # noqa: BLE001  (a message that is not recorded must not be taken)
            print(f"catcher: a mail could not be recorded: {error}", file=sys.stderr, flush=True)
            return "451 4.3.0 The catcher could not record the message"
        await asyncio.sleep(self._answer_after)
        return f"250 2.0.0 Ok: queued as {number}"


class BulkServer(SMTP):
    """aiosmtpd's server, reading a message's data in large pieces instead of line by line.

    Line by line costs more than everything else together, and the catcher shares two cores with the sender.
    """

    line_length_limit = MAX_MESSAGE_BYTES  # how much the base class buffers; lines are measured below

    @syntax("DATA")
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        """Take a message up to its final dot and answer what the handler says."""
        if arg or self.envelope is None or not self.envelope.rcpt_tos:
            await super().smtp_DATA(arg)  # which refuses it
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        data = bytearray()
        while data != b".\r\n" and not data.endswith(b"\r\n.\r\n"):
            data += await self._reader.readuntil(b".\r\n")
        # RFC 5321 section 4.5.2: a line's leading dot was put there by the sender.
        self.envelope.content = (b"\r\n" + data[:-3]).replace(b"\r\n.", b"\r\n")[2:]
        if max(map(len, self.envelope.content.split(b"\r\n"))) > MAX_LINE_BYTES:
            answer = "500 5.6.0 Line too long (RFC 5321 section 4.5.3.1.6)"
        else:
            answer = await self.event_handler.handle_DATA(self, self.session, self.envelope)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self.push(answer)


@contextlib.asynccontextmanager
async def smtp_server(store: MailStore, port: int, answer_after: float = 0.0) -> AsyncIterator[int]:
    """Serve SMTP on loopback while the block runs; give the port (port 0 takes a free one).

    `answer_after`: seconds between a mail's being recorded and the answer to its final dot, as a busy mail
    server takes them.
    """
    loop = asyncio.get_running_loop()
    with store.writing() as writer:
        recorder = Recorder(writer)
        handler = Handler(recorder, answer_after)
        server = await loop.create_server(
            lambda: BulkServer(
                handler, hostname="catcher.example.com", ident="ESMTP", enable_SMTPUTF8=True, loop=loop
            ),
            host=LOOPBACK,
            port=port,
            backlog=512,
        )
        try:
            async with recorder.running():
                yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


@dataclass(frozen=True)
class Catcher:
    """A running catcher: its SMTP port on loopback, and the store to read what was caught."""

    port: int
    store: MailStore


@contextlib.contextmanager
def running_catcher(store_path: Path, port: int = 0) -> Iterator[Catcher]:
    """Run a catcher in a thread of this process, for tests. OSError: it cannot listen on the port."""
    store = MailStore(store_path)
    bound: Future[int] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        try:
            async with smtp_server(store, port) as listening:
                bound.set_result(listening)
                await stop.wait()
        except OSError as error:
            bound.set_exception(error)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=runner.run, args=(serve(),), name="catcher")
        thread.start()
        try:
            yield Catcher(bound.result(), store)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


def main() -> None:
    """Serve SMTP and the inbox page until a signal."""
    parser = argparse.ArgumentParser(prog="python -m local_stack.catcher", description=__doc__)
    parser.add_argument("--smtp-port", type=int, required=True)
    parser.add_argument("--inbox-port", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True, help="SQLite file of the caught mails")
    parser.add_argument("--answer-after", type=float, default=0.0, help="seconds each mail waits for its 250")
    options = parser.parse_args()
    store = MailStore(options.store)

    @contextlib.asynccontextmanager
    async def beside_the_page(_app: FastAPI) -> AsyncIterator[None]:
        async with smtp_server(store, options.smtp_port, options.answer_after) as port:
            print(f"Catching mail on port {port}.", flush=True)
            yield

    app = inbox_app(store, lifespan=beside_the_page)
    uvicorn.run(app, host=LOOPBACK, port=options.inbox_port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
