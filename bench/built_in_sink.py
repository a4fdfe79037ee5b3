"""The null sink of our own: takes mail for ever in one thread, printing the count as smtp-sink does.

For machines without Postfix, and for TLS, which smtp-sink does not speak: `python -m bench.built_in_sink
--port N`. Offers PIPELINING; with a certificate it takes mail after STARTTLS only.
"""

from __future__ import annotations

import argparse
import re
import select
import selectors
import socket
import ssl
import sys
from pathlib import Path
from typing import BinaryIO

from local_stack.ports import LOOPBACK

_AT_ONCE = 65536
_END = b"\r\n.\r\n"
_OFFERS = b"250-sink.example.com\r\n250-PIPELINING\r\n250-8BITMIME\r\n%s250 ENHANCEDSTATUSCODES\r\n"
_OK = b"250 2.0.0 Ok\r\n"
_ANSWERS = {
    b"DATA": b"354 End data with <CR><LF>.<CR><LF>\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
    b"STAR": b"220 2.0.0 Ready to start TLS\r\n",
}
_TLS_FIRST = b"530 5.7.0 Must issue a STARTTLS command first\r\n"


class Client:
    """One connection, and what it has said that is not yet answered."""

    def __init__(self, connection: socket.socket, tls: ssl.SSLContext | None, keep: BinaryIO | None) -> None:
        self.connection = connection
        self.has_ended = False
        self._tls = tls
        self._keep = keep
        self._received = b""
        self._in_data = False
        self._recipient = b""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(b"220 sink.example.com ESMTP\r\n")

    def read(self) -> int:
        """Take what has come; returns how many mails it brought to their dot."""
        mails = 0
        try:
            while True:
                data = self.connection.recv(_AT_ONCE)
                mails += self._take(data)
                self.has_ended = not data
                if self.has_ended or not isinstance(self.connection, ssl.SSLSocket):
                    return mails
        except (BlockingIOError, ssl.SSLWantReadError):
            return mails
        except OSError:
            self.has_ended = True
            return mails

    def _take(self, data: bytes) -> int:
        self._received += data
        answers, mails = [], 0
        while True:
            if self._in_data:
                end = self._received.find(_END)
                if end < 0:
                    self._received = self._received[-4:]  # the rest of a body is of no use
                    break
                self._received = self._received[end + len(_END) :]
                self._in_data = False
                mails += 1
                if self._keep:
                    self._keep.write(b"X-Rcpt-Args: <%s>\n" % self._recipient)
                answers.append(b"250 2.0.0 Ok: queued as SINK\r\n")
                continue
            line, found, rest = self._received.partition(b"\r\n")
            if not found:
                break
            self._received = rest
            answers.append(self._answer(line))
            if line[:4].upper() == b"STAR":
                self._send(b"".join(answers))
                self._start_tls()
                return mails
        if self._keep and mails:
            self._keep.flush()
        self._send(b"".join(answers))
        return mails

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return _OFFERS % (b"250-STARTTLS\r\n" if self._tls else b"")
        if verb in {b"MAIL", b"RCPT", b"DATA"} and self._tls:
            return _TLS_FIRST
        if verb == b"RCPT" and self._keep:
            self._recipient = re.sub(rb".*<(.*)>.*", rb"\1", line)
        self._in_data = verb == b"DATA"
        return _ANSWERS.get(verb, _OK)

    def _start_tls(self) -> None:
        if self._tls is None:
            raise OSError("STARTTLS was not offered")
        self.connection = self._tls.wrap_socket(
            self.connection, server_side=True, do_handshake_on_connect=False
        )
        self._tls, self._received = None, b""

    def _send(self, answer: bytes) -> None:
        rest = memoryview(answer)
        while rest:
            try:
                rest = rest[self.connection.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                select.select([], [self.connection], [])


def serve(port: int, tls: ssl.SSLContext | None, keep: BinaryIO | None) -> None:
    """Take mail for ever. With ``tls`` only behind STARTTLS; ``keep`` gets a line with each recipient."""
    total = 0
    waiting = selectors.DefaultSelector()
    with socket.create_server((LOOPBACK, port), backlog=1000) as listener:
        waiting.register(listener, selectors.EVENT_READ, None)
        while True:
            for key, _ in waiting.select():
                if key.data is None:
                    connection, _ = listener.accept()
                    client = Client(connection, tls, keep)
                    waiting.register(connection, selectors.EVENT_READ, client)
                    continue
                client = key.data
                before = client.connection
                mails = client.read()
                if client.has_ended:
                    waiting.unregister(key.fd)
                    client.connection.close()
                elif client.connection is not before:  # the same descriptor, wrapped
                    waiting.unregister(key.fd)
                    waiting.register(client.connection, selectors.EVENT_READ, client)
                if mails:
                    total += mails
                    sys.stdout.write(f"mesg={total}\r")
                    sys.stdout.flush()


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path, help="PEM file with key and certificate")
    parser.add_argument("--keep", type=Path, help="file for a line with each mail's recipient")
    options = parser.parse_args()
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate)
    keep = options.keep.open("ab") if options.keep else None
    serve(options.port, tls, keep)


if __name__ == "__main__":
    main()
