"""Many lanes in one thread: while one waits for its server or the gate, the next goes on.

A thread for each lane spends more time on handing the interpreter around than on mail. Here lanes are
greenlets: ordinary sequential code, which gives way only where it waits, in `LaneLoop`'s methods. Must not
know SMTP, the ledger, or what the lanes do.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from lifecycle_emails.delivery.waiting import RECEIVED_AT_ONCE

TICK_SECONDS = 0.05
"""How exactly time limits are kept, and how often whoever runs the loop is asked whether to go on."""

Result = TypeVar("Result")


class LaneLoop:
    """Runs lanes in the thread that calls `run`: their `Waiting`, with an `event` for all else they wait for.

    Its methods are the lanes' own, except `run` and an event's `set`, which any thread may call.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[socket.socket, _Wait] = {}
        self._lanes: set[greenlet] = set()
        self._woken: deque[greenlet] = deque()
        self._lock = threading.Lock()
        self._idle = False
        self._at_sockets = 0
        self._bell, self._button = socket.socketpair()
        for end in (self._bell, self._button):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._home: greenlet | None = None

    def start(self, lane: Callable[[], None]) -> None:
        """Add a lane; it begins to work in `run`."""

        def work() -> None:
            try:
                lane()
            finally:
                self._lanes.discard(started)

        started = greenlet(work)
        self._lanes.add(started)
        self._woken.append(started)

    def run(self, go_on: Callable[[], bool], when_idle: Callable[[], None]) -> None:
        """Work until all lanes have ended, or ``go_on`` says no: then those that still wait are ended there.

        ``when_idle`` is called whenever every lane waits for an event, and none for its server. A lane that
        is ended gets GreenletExit where it waits. What a lane raises is raised here.
        """
        self._home = getcurrent()
        next_tick = time.monotonic()
        try:
            while self._lanes:
                while self._woken:
                    self._woken.popleft().switch()
                if not self._lanes:
                    break
                if not self._resume_those_with_input(0):
                    if not self._at_sockets:
                        when_idle()
                    self._resume_those_with_input(TICK_SECONDS)
                if time.monotonic() >= next_tick:
                    self._end_waits_in_vain()
                    if not go_on():
                        break
                    next_tick = time.monotonic() + TICK_SECONDS
        finally:
            self._end_all()

    def close(self) -> None:
        """Free what the loop holds. No lane may be left, and none be added."""
        self._selector.close()
        self._bell.close()
        self._button.close()

    def event(self) -> LaneEvent:
        """Return an event for which a lane can wait, and which any thread can set."""
        return LaneEvent(self)

    # --- Waiting --------------------------------------------------------------------------------------------

    def adopt(self, connection: socket.socket) -> None:
        """See `Waiting`."""
        connection.setblocking(False)

    def forget(self, connection: socket.socket) -> None:
        """See `Waiting`."""
        wait = self._sockets.pop(connection, None)
        if wait is not None and wait.events:
            wait.events = 0
            with suppress(KeyError, ValueError, OSError):
                self._selector.unregister(connection)

    def call(self, work: Callable[[], Result]) -> Result:
        """See `Waiting`: the work is done in a thread of its own."""
        done = self.event()
        results: list[Result] = []
        errors: list[BaseException] = []

        def thread() -> None:
            try:
                results.append(work())
            except BaseException as error:  # noqa: BLE001  (the lane raises it again)
                errors.append(error)
            done.set()

        threading.Thread(target=thread, name="lane's call", daemon=True).start()
        done.wait()
        if errors:
            raise errors[0]
        return results[0]

    def receive(self, connection: socket.socket, deadline: float) -> bytes:
        """See `Waiting`."""
        while True:
            try:
                return connection.recv(RECEIVED_AT_ONCE)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(connection, selectors.EVENT_READ, deadline)
            except ssl.SSLWantWriteError:
                self._wait(connection, selectors.EVENT_WRITE, deadline)

    def receive_now(self, connection: socket.socket) -> bytes | None:
        """See `Waiting`."""
        try:
            return connection.recv(RECEIVED_AT_ONCE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None

    def send(self, connection: socket.socket, data: bytes, deadline: float) -> None:
        """See `Waiting`."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[connection.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(connection, selectors.EVENT_WRITE, deadline)
            except ssl.SSLWantReadError:
                self._wait(connection, selectors.EVENT_READ, deadline)

    # --- the inside -----------------------------------------------------------------------------------------

    def wake(self, lane: greenlet) -> None:
        """Let a lane that gave way go on; for any thread."""
        self._woken.append(lane)
        if self._idle:
            self._idle = False
            with suppress(OSError):  # full: then the bell rings already
                self._button.send(b"!")

    def give_way(self) -> None:
        """Let the others work until this lane is woken."""
        if self._home is None:
            raise RuntimeError("a lane waits only in LaneLoop.run")
        self._home.switch()

    @property
    def lock(self) -> threading.Lock:
        """Makes waiting for an event and setting it exclude each other."""
        return self._lock

    def _wait(self, connection: socket.socket, events: int, deadline: float) -> None:
        wait = self._sockets.get(connection)
        if wait is None:
            wait = self._sockets[connection] = _Wait()
        # Registered once and for all: a lane nearly always waits for the same thing.
        if wait.events != events:
            if wait.events:
                self._selector.modify(connection, events, wait)
            else:
                self._selector.register(connection, events, wait)
            wait.events = events
        wait.lane, wait.deadline = getcurrent(), deadline
        self._at_sockets += 1
        try:
            self.give_way()
        finally:
            self._at_sockets -= 1
            wait.lane = None

    def _resume_those_with_input(self, seconds: float) -> bool:
        # Whoever wakes a lane after this line rings the bell; who did before is seen by the check below.
        self._idle = seconds > 0
        ready = self._selector.select(0 if self._woken else seconds)
        self._idle = False
        for key, _ in ready:
            wait = key.data
            if wait is None:
                with suppress(OSError):
                    self._bell.recv(4096)
            elif wait.lane is not None:
                wait.lane.switch()
            else:
                # The server spoke to a lane that does not listen now; the lane will look for itself.
                self._selector.unregister(key.fileobj)
                wait.events = 0
        return bool(ready or self._woken)

    def _end_waits_in_vain(self) -> None:
        now = time.monotonic()
        for wait in list(self._sockets.values()):
            if wait.lane is not None and now >= wait.deadline:
                wait.lane.throw(TimeoutError("nothing came, or was taken, within the time allowed"))

    def _end_all(self) -> None:
        while self._lanes:
            lane = self._lanes.pop()
            while not lane.dead:  # what it does to clean up may wait too
                _end(lane)
        self._woken.clear()


class LaneEvent:
    """What `threading.Event` is to a thread; one lane may wait for it."""

    __slots__ = ("_is_set", "_lane", "_loop")

    def __init__(self, loop: LaneLoop) -> None:
        self._loop = loop
        self._is_set = False
        self._lane: greenlet | None = None

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._is_set

    def set(self) -> None:
        """Let the lane go on that waits, or will; for any thread."""
        with self._loop.lock:
            if self._is_set:
                return
            self._is_set = True
            lane = self._lane
        if lane is not None:
            self._loop.wake(lane)

    def wait(self) -> None:
        """Wait until it is set; for a lane."""
        with self._loop.lock:
            if self._is_set:
                return
            self._lane = getcurrent()
        self._loop.give_way()


class _Wait:
    """What one socket is registered for, and who waits for it until when."""

    __slots__ = ("deadline", "events", "lane")

    def __init__(self) -> None:
        self.events = 0
        self.lane: greenlet | None = None
        self.deadline = 0.0


def _end(lane: greenlet) -> None:
    """End a lane where it waits, or before it began.

    A function of its own: after the switch back from a lane that ends, coverage misses the rest of the frame.
    """
    lane.throw(GreenletExit())
