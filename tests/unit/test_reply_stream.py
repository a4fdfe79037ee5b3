"""The stream smtplib reads replies from, over real sockets."""

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from lifecycle_emails.delivery.reply_stream import ReplyStream

LINE_LIMIT = 8193


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give both ends of a TCP connection: the stream's and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def readable(sock: socket.socket, seconds: float = 10.0) -> None:
    """Wait until something, or the end of the connection, has arrived."""
    sock.settimeout(seconds)
    sock.recv(1, socket.MSG_PEEK)


def test_readline_gives_one_line_at_a_time(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    stream.expect(10)
    theirs.sendall(b"250-a\r\n250 b\r\nrest")
    theirs.shutdown(socket.SHUT_WR)
    assert [stream.readline(LINE_LIMIT) for _ in range(4)] == [b"250-a\r\n", b"250 b\r\n", b"rest", b""]


def test_readline_stops_at_the_limit(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    stream.expect(10)
    theirs.sendall(b"x" * 20 + b"\r\n")
    assert stream.readline(10) == b"x" * 10
    assert stream.readline(13) == b"x" * 10 + b"\r\n"


def test_readline_has_one_deadline_for_the_whole_reply(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    theirs.sendall(b"250-still\r\n" * 3)
    stream.expect(0.2)
    for _ in range(3):
        stream.readline(LINE_LIMIT)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.readline(LINE_LIMIT)
    assert time.monotonic() - started < 5
    theirs.sendall(b"250 too late\r\n")
    with pytest.raises(TimeoutError):
        stream.readline(LINE_LIMIT)


def test_readline_refuses_a_reply_without_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    stream.expect(10)
    theirs.sendall(b"250-on and on\r\n" * 6000)
    for _ in range(65536 // len(b"250-on and on\r\n")):
        stream.readline(LINE_LIMIT)
    with pytest.raises(OSError, match="longer than 65536 bytes"):
        stream.readline(LINE_LIMIT)


def test_has_input_is_false_while_the_server_listens(pair: tuple[socket.socket, socket.socket]) -> None:
    assert not ReplyStream(pair[0]).has_input()


def test_has_input_sees_an_unasked_line_and_keeps_it(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    theirs.sendall(b"421 bye\r\n")
    readable(ours)
    assert stream.has_input()
    assert stream.has_input()
    stream.expect(10)
    assert stream.readline(LINE_LIMIT) == b"421 bye\r\n"
    assert not stream.has_input()


def test_has_input_sees_a_surplus_line_behind_a_reply(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    stream.expect(10)
    theirs.sendall(b"354 go\r\n250 surplus\r\n")
    stream.readline(LINE_LIMIT)
    if not stream._buffer:
        readable(ours)
    assert stream.has_input()


def test_has_input_sees_the_end_of_the_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    theirs.shutdown(socket.SHUT_WR)
    readable(ours)
    assert stream.has_input()
    stream.expect(10)
    assert stream.readline(LINE_LIMIT) == b""


def test_has_input_sees_a_reset_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert stream.has_input()


def test_consistency_is_about_the_codes_of_one_reply(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stream = ReplyStream(ours)
    theirs.sendall(b"250-a\r\n250 b\r\n550-c\r\n250 d\r\n")
    consistent = []
    for _ in range(2):
        stream.expect(10)
        stream.readline(LINE_LIMIT)
        stream.readline(LINE_LIMIT)
        consistent.append(stream.is_consistent)
    assert consistent == [True, False]
