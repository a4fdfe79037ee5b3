"""The stream from which the standard library's SMTP client reads replies.

smtplib's own (`socket.makefile`) has one time-out per read: a server that sends a byte now and then is waited
for without end, and a surplus line of one command is taken for the answer to the next. Here one deadline
covers a whole reply, and the dialogue can ask whether the server spoke without having been asked; before the
final dot, that is the difference between "not accepted" and "in doubt".

It must not know SMTP beyond lines that begin with a reply code.
"""

import socket
import time

from lifecycle_emails.delivery.waiting import THREAD_WAITING, Waiting

_LONGEST_REPLY = 65536


class ReplyStream:
    """Lines from a connected socket, as `smtplib.SMTP.file` gives them to `getreply`.

    Closing it leaves the socket open; smtplib closes that itself.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.waiting: Waiting = THREAD_WAITING
        """How the next bytes are waited for."""
        self._buffer = bytearray()
        self._deadline = 0.0
        self._taken = 0
        self._codes: set[bytes] = set()

    def expect(self, seconds: float) -> None:
        """Give the next reply this long, counted from now."""
        self._deadline = time.monotonic() + seconds
        self._taken = 0
        self._codes.clear()

    @property
    def is_consistent(self) -> bool:
        """Whether all lines since `expect` carried one code, as RFC 5321 section 4.2.1 demands."""
        return len(self._codes) <= 1

    def has_input(self) -> bool:
        """Whether the server has sent something, or ended the connection. Does not wait."""
        if self._buffer:
            return True
        try:
            received = self.waiting.receive_now(self._connection)
        except OSError:
            return True  # whoever reads on finds the end of the connection
        if received is None:
            return False
        self._buffer += received
        return True

    def readline(self, limit: int) -> bytes:
        """Read to the end of the line, of the connection (then without a line feed) or of `limit` bytes.

        Raises TimeoutError at the deadline, and OSError for a reply that does not end within 64 KiB.
        """
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched, limit) + 1
            if end or len(self._buffer) >= limit:
                return self._take(end or limit)
            searched = len(self._buffer)
            received = self.waiting.receive(self._connection, self._deadline)
            if not received:
                return self._take(len(self._buffer))
            self._buffer += received

    def close(self) -> None:
        """Drop what was not read."""
        self._buffer.clear()

    def _take(self, length: int) -> bytes:
        line = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._taken += length
        if self._taken > _LONGEST_REPLY:
            raise OSError(f"the server's reply is longer than {_LONGEST_REPLY} bytes")
        if line:
            self._codes.add(line[:3])
        return line
