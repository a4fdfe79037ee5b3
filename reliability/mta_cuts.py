"""Cut the dialogue with a real Postfix at every point: before the whole dot nothing may be accepted.

The real `SmtpSession` speaks through a proxy that passes on so many bytes and then cuts: closes, resets, or
closes only its sending half. What was accepted is counted in Postfix's mailbox and queue, apart from what the
session believes.

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from lifecycle_emails.delivery.reply import Verdict
from lifecycle_emails.delivery.smtp_session import SmtpSession, SmtpSettings
from lifecycle_emails.errors import DeliveryError
from local_stack.interruption import sigterm_interrupts
from local_stack.ports import LOOPBACK
from reliability.postfix import Postfix, running_postfix, why_postfix_cannot_run

WAYS = ("close", "reset", "half-close")
BODY_POINTS = 20
COMMANDS = ("EHLO", "MAIL", "RCPT", "DATA")
_SENDER = "team@example.com"
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Mail:
    """A message with an envelope of its own."""

    recipient: str
    content: bytes
    sender: str = _SENDER
    needs_smtputf8: bool = False


@dataclass(frozen=True)
class Point:
    """Where to cut: after so many bytes of what the client says. ``whole``: the dot is complete by then."""

    name: str
    after: int
    whole: bool


@dataclass(frozen=True)
class Cut:
    """One dialogue cut: how, where, what Postfix accepted of it, and what the session made of it."""

    way: str
    point: Point
    accepted: int
    verdict: str

    @property
    def holds(self) -> bool:
        """Nothing before the whole dot, one copy after it, and the session never wrong about either."""
        if self.point.whole:
            return self.accepted == 1 and self.verdict in (Verdict.SENT, Verdict.IN_DOUBT)
        return self.accepted == 0 and self.verdict != Verdict.SENT


class CountingProxy:
    """Passes one connection on; after ``after`` bytes from the client it cuts the connection to the server.

    With ``after`` None it passes everything on. ``said`` is what it passed on of the client's words.
    ``await_answer``: cut only when the server has answered the last of them, and keep that answer back.
    """

    def __init__(
        self, target: int, way: str = "close", after: int | None = None, *, await_answer: bool = False
    ) -> None:
        self.said = bytearray()
        self._target = target
        self._way = way
        self._after = after
        self._await_answer = await_answer
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> CountingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(timeout=60)
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection((LOOPBACK, self._target)) as server, suppress(OSError):
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._pass_on(client, server):
                self._cut(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass on until the cut is due, or False when one side has left before."""
        while True:
            readable, _, _ = select.select([client, server], [], [])
            for source in readable:
                words = source.recv(65536)
                if not words:
                    return False
                if source is server:
                    client.sendall(words)
                    continue
                rest = None if self._after is None else self._after - len(self.said)
                self.said += words[:rest]
                server.sendall(words[:rest])
                if rest is not None and len(words) >= rest:
                    return True

    def _cut(self, client: socket.socket, server: socket.socket) -> None:
        if self._await_answer:
            server.recv(65536)
        if self._way == "reset":
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif self._way == "half-close":
            server.shutdown(socket.SHUT_WR)
            while answer := server.recv(65536):
                client.sendall(answer)


def points(said: bytes) -> Iterator[Point]:
    """Every point at which to cut a dialogue whose client says ``said``, byte for byte but the recipient."""
    whole = said.index(b"\r\n.\r\n") + 5
    for command in COMMANDS:
        start = said.upper().index(command.encode())
        end = said.index(b"\r\n", start) + 2
        yield Point(f"in {command}", (start + end) // 2, whole=False)
        yield Point(f"after {command}", end, whole=False)
    body = said.index(b"DATA\r\n") + 6
    for number in range(BODY_POINTS):
        after = body + (number + 1) * (whole - 3 - body) // (BODY_POINTS + 1)
        yield Point(f"body {number + 1}/{BODY_POINTS}", after, whole=False)
    yield Point("before the body's last LF: CR", whole - 4, whole=False)
    yield Point("before the dot: CR LF", whole - 3, whole=False)
    yield Point("in the dot: CR LF .", whole - 2, whole=False)
    yield Point("in the dot: CR LF . CR", whole - 1, whole=False)
    yield Point("after the whole dot", whole, whole=True)


def cut_everywhere(postfix: Postfix) -> list[Cut]:
    """Cut one dialogue per way and point, withdraw one, let one through; then count what Postfix accepted."""
    content = _content()
    said = _say_all(postfix, content)
    plan = [(way, point) for way in WAYS for point in points(said)]
    believed = [
        _cut_once(postfix, way, point, Mail(_recipient(number), content))
        for number, (way, point) in enumerate(plan, start=1)
    ]
    withdrawn = Point("withdrawn before the dot", len(said), whole=False)
    believed.append(_withdraw(postfix, Mail(_recipient(len(plan) + 1), content)))
    plan.append(("withdraw", withdrawn))
    postfix.wait_for_partings(len(plan) + 1)
    copies = Counter(postfix.delivered())
    if copies[_recipient(0)] != 1:
        raise RuntimeError("Postfix did not deliver the dialogue that was not cut; nothing is shown")
    return [
        Cut(way, point, copies[_recipient(number)], verdict)
        for number, ((way, point), verdict) in enumerate(zip(plan, believed, strict=True), start=1)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut everywhere, print a row per place, and end with one JSON object; 1 when a row does not hold."""
    parser = argparse.ArgumentParser(prog="mta_cuts", description="Cut dialogues with a real Postfix.")
    parser.parse_args(arguments)
    missing = why_postfix_cannot_run()
    if missing is not None:
        print(missing)
        return 1
    started = time.monotonic()
    with running_postfix() as postfix:
        cuts = cut_everywhere(postfix)
    for line in table(cuts):
        print(line)
    before = [cut for cut in cuts if not cut.point.whole]
    after = [cut for cut in cuts if cut.point.whole]
    figures = {
        "cuts_before_whole_dot": len(before),
        "accepted_before_whole_dot": sum(cut.accepted for cut in before),
        "cuts_after_whole_dot": len(after),
        "accepted_after_whole_dot": sum(cut.accepted for cut in after),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(figures))
    return 0 if all(cut.holds for cut in cuts) else 1


def table(cuts: Sequence[Cut]) -> Iterator[str]:
    """The cuts by place, those in the body as one row."""
    yield f"{'cut':<37} {'dialogues':>9} {'accepted':>8}  session says"
    by_place: dict[str, list[Cut]] = {}
    for cut in cuts:
        in_body = cut.point.name.startswith("body")
        place = f"at {BODY_POINTS} points of the body" if in_body else cut.point.name
        by_place.setdefault(place, []).append(cut)
    for place, rows in by_place.items():
        verdicts = sorted(Counter(row.verdict for row in rows).items())
        said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts)
        wrong = "" if all(row.holds for row in rows) else "  DOES NOT HOLD"
        yield f"{place:<37} {len(rows):>9} {sum(row.accepted for row in rows):>8}  {said}{wrong}"


def _content() -> bytes:
    lines = b"".join(
        b"line %02d with a dot at its start follows\r\n.\r\n..\r\n" % number for number in range(40)
    )
    return b"From: The team <team@example.com>\r\nSubject: cut\r\n\r\n" + lines


def _recipient(number: int) -> str:
    return f"cut{number:04d}@example.com"  # all of one length, so that the points are the same for all


def _say_all(postfix: Postfix, content: bytes) -> bytes:
    """Bring one dialogue to its end, and return what the client said up to the dot."""
    with CountingProxy(postfix.port) as proxy:
        session = SmtpSession(_settings(proxy.port))
        session.open()
        refused = session.offer(Mail(_recipient(0), content))
        outcome = refused or session.finish()
        said = bytes(proxy.said)
        session.close()
    if outcome.verdict is not Verdict.SENT:
        raise RuntimeError(f"Postfix did not accept a whole dialogue: {outcome}")
    return said


def _cut_once(postfix: Postfix, way: str, point: Point, mail: Mail) -> str:
    # A reset throws away what the server has not read yet: only its answer shows that it has read the dot.
    await_answer = point.whole and way == "reset"
    with CountingProxy(postfix.port, way, point.after, await_answer=await_answer) as proxy:
        session = SmtpSession(_settings(proxy.port))
        try:
            session.open()
            outcome = session.offer(mail) or session.finish()
        except DeliveryError:
            return "not connected"
        finally:
            session.withdraw()
    return outcome.verdict.value


def _withdraw(postfix: Postfix, mail: Mail) -> str:
    session = SmtpSession(_settings(postfix.port))
    session.open()
    refused = session.offer(mail)
    session.withdraw()
    return "withdrawn" if refused is None else refused.verdict.value


def _settings(port: int) -> SmtpSettings:
    return SmtpSettings(
        LOOPBACK, port, security="none", connect_timeout=20, command_timeout=20, dot_timeout=20
    )


if __name__ == "__main__":
    with sigterm_interrupts():  # so that Postfix is stopped and its folder removed at the end of a time-out
        sys.exit(main())
