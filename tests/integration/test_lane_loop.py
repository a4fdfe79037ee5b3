"""Lanes that share a thread: real sockets, real threads that wake them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from lifecycle_emails.delivery.lane_loop import LaneLoop

PATIENCE = 20.0


@pytest.fixture
def loop() -> Iterator[LaneLoop]:
    loop = LaneLoop()
    yield loop
    loop.close()


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [socket.socketpair() for _ in range(20)]
    yield pairs
    for pair in pairs:
        for end in pair:
            end.close()


def run(loop: LaneLoop) -> None:
    deadline = time.monotonic() + PATIENCE
    loop.run(lambda: time.monotonic() < deadline, lambda: None)


def later(seconds: float = PATIENCE) -> float:
    return time.monotonic() + seconds


def test_lanes_wait_for_each_other_within_one_thread(loop: LaneLoop, pairs) -> None:
    """Each lane passes on what it was told, the first one says it last: nobody may block the thread."""
    heard: list[bytes] = []

    def passing_on(source: socket.socket, target: socket.socket) -> None:
        heard.append(loop.receive(source, later()))
        loop.send(target, b"word", later())

    for one, other in pairs:
        loop.adopt(one)
        loop.adopt(other)
    for (_, source), (target, _) in zip(pairs, [*pairs[1:], pairs[0]], strict=True):
        loop.start(lambda source=source, target=target: passing_on(source, target))
    loop.start(lambda: loop.send(pairs[0][0], b"word", later()))
    run(loop)
    assert heard == [b"word"] * len(pairs)


def test_everything_is_written_to_a_reader_who_is_slow(loop: LaneLoop, pairs) -> None:
    (one, other), data = pairs[0], bytes(range(256)) * 20_000
    received = bytearray()

    def reading() -> None:
        while len(received) < len(data):
            received.extend(loop.receive(other, later()))

    loop.adopt(one)
    loop.adopt(other)
    loop.start(lambda: loop.send(one, data, later()))
    loop.start(reading)
    run(loop)
    assert bytes(received) == data


def test_wait_ends_at_its_deadline_while_others_go_on(loop: LaneLoop, pairs) -> None:
    ends: list[str] = []

    def in_vain() -> None:
        with pytest.raises(TimeoutError):
            loop.receive(pairs[0][0], later(0.1))
        ends.append("in vain")
        loop.send(pairs[1][0], b"go", later())

    def patient() -> None:
        loop.receive(pairs[1][1], later())
        ends.append("patient")

    for end in (*pairs[0], *pairs[1]):
        loop.adopt(end)
    loop.start(patient)
    loop.start(in_vain)
    run(loop)
    assert ends == ["in vain", "patient"]


def test_event_set_by_another_thread_wakes_its_lane_once(loop: LaneLoop) -> None:
    """Set before, while and after the lane begins to wait; a stray second waking would end a later wait."""
    waited: list[int] = []

    def waiting(number: int) -> None:
        for _ in range(50):
            event = loop.event()
            threading.Thread(target=event.set).start()
            event.wait()
            assert event.is_set()
        waited.append(number)

    for number in range(10):
        loop.start(lambda number=number: waiting(number))
    run(loop)
    assert sorted(waited) == list(range(10))


def test_event_that_is_set_twice_wakes_its_lane_once(loop: LaneLoop) -> None:
    woken: list[int] = []
    event, never = loop.event(), loop.event()

    def lane() -> None:
        event.wait()
        woken.append(1)
        never.wait()

    loop.start(lane)
    loop.start(lambda: (event.set(), event.set()))
    deadline = later(0.3)
    loop.run(lambda: time.monotonic() < deadline, lambda: None)
    assert woken == [1]


def test_whoever_waits_outside_of_a_running_loop_is_told_so(loop: LaneLoop) -> None:
    with pytest.raises(RuntimeError, match=r"a lane waits only in LaneLoop\.run"):
        loop.event().wait()


def test_call_blocks_its_own_lane_only(loop: LaneLoop) -> None:
    begun, order = threading.Event(), []

    def calling() -> None:
        order.append(loop.call(lambda: begun.wait(PATIENCE)))

    def other() -> None:
        order.append("other")
        begun.set()

    loop.start(calling)
    loop.start(other)
    run(loop)
    assert order == ["other", True]


def test_what_a_call_raises_is_raised_in_its_lane(loop: LaneLoop) -> None:
    def calling() -> None:
        with pytest.raises(ZeroDivisionError):
            loop.call(lambda: 1 // 0)

    loop.start(calling)
    run(loop)


def test_lanes_that_still_wait_are_ended_when_the_loop_is(loop: LaneLoop, pairs) -> None:
    ended: list[str] = []

    def waiting() -> None:
        try:
            loop.receive(pairs[0][0], later())
        finally:
            ended.append("cleaned up")

    loop.adopt(pairs[0][0])
    loop.start(waiting)
    loop.run(lambda: False, lambda: None)
    assert ended == ["cleaned up"]


def test_error_of_a_lane_is_raised_by_run_and_ends_the_others(loop: LaneLoop) -> None:
    loop.start(loop.event().wait)
    loop.start(lambda: {}["nothing"])
    with pytest.raises(KeyError):
        run(loop)


def test_input_that_nobody_waits_for_keeps_no_processor_busy(loop: LaneLoop, pairs) -> None:
    """The server speaks while its lane is at the gate: the loop must sleep, and the lane still find it."""
    (one, other), event = pairs[0], loop.event()
    turns: list[None] = []

    def lane() -> None:
        loop.receive(one, later())
        other.send(b"unasked")
        event.wait()
        assert loop.receive(one, later()) == b"unasked"

    loop.adopt(one)
    loop.start(lane)
    loop.start(lambda: other.send(b"first"))  # by then the lane waits, and is registered
    timer = threading.Timer(0.5, event.set)
    timer.start()
    loop.run(lambda: True, lambda: turns.append(None))
    timer.join()
    assert len(turns) < 50


def test_loop_is_idle_only_when_no_lane_waits_for_its_server(loop: LaneLoop, pairs) -> None:
    (one, other), answered, heard, when_idle = pairs[0], loop.event(), [], []
    ticks = iter(range(1000))

    def go_on() -> bool:
        if next(ticks) == 2:
            other.send(b"word")
        return True

    def note() -> None:
        when_idle.append(list(heard))
        answered.set()

    loop.adopt(one)
    loop.start(lambda: heard.append(loop.receive(one, later())))
    loop.start(answered.wait)
    loop.run(go_on, note)
    assert when_idle == [[b"word"]]


def test_lane_that_may_not_write_before_it_has_read_waits_for_that(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """TLS under way: to write a byte, the client must first hear from the server."""
    heard: list[bytes] = []
    here, there = socket.socketpair()

    def serve() -> None:
        with server_tls.wrap_socket(there, server_side=True) as secured:
            heard.append(secured.recv(10))

    thread = threading.Thread(target=serve)
    client = trusting.wrap_socket(here, server_hostname="127.0.0.1", do_handshake_on_connect=False)
    loop = LaneLoop()
    loop.adopt(client)
    loop.start(lambda: loop.send(client, b"word", time.monotonic() + PATIENCE))

    def go_on() -> bool:
        """The lane waits by now; before, the server might have answered between its writing and its reading."""
        if thread.ident is None:
            thread.start()
        return True

    loop.run(go_on, lambda: None)
    thread.join()
    loop.forget(client)
    loop.close()
    client.close()
    assert heard == [b"word"]


def test_lane_that_may_not_read_before_it_has_written_waits_for_that(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """TLS under way, and no room for the client's hello until the other side has read what lies before it."""
    here, there = socket.socketpair()
    here.setblocking(False)
    filled = 0
    try:
        while True:
            filled += here.send(bytes(65536))
    except BlockingIOError:
        pass

    def serve() -> None:
        rest = filled
        while rest:
            rest -= len(there.recv(min(rest, 65536)))
        with server_tls.wrap_socket(there, server_side=True) as secured:
            secured.sendall(b"word")

    heard: list[bytes] = []
    here.setblocking(True)
    client = trusting.wrap_socket(here, server_hostname="127.0.0.1", do_handshake_on_connect=False)
    loop = LaneLoop()
    loop.adopt(client)
    loop.start(lambda: heard.append(loop.receive(client, time.monotonic() + PATIENCE)))
    loop.start(threading.Thread(target=serve).start)  # only once the other lane waits
    loop.run(lambda: True, lambda: None)
    loop.forget(client)
    loop.close()
    client.close()
    assert heard == [b"word"]
