"""What the scripted SMTP server's scripts are made of: one class for every thing it can do at a phase."""

import threading
from dataclasses import dataclass


class Reply:
    """Answer with one reply, on several lines where there are several texts."""

    def __init__(self, code: int, *lines: str) -> None:
        self.code = code
        texts = lines or ("",)
        self.data = "".join(
            f"{code}{' ' if number == len(texts) else '-'}{text}\r\n" for number, text in enumerate(texts, 1)
        ).encode()


@dataclass(frozen=True)
class Raw:
    """Write these bytes: a garbled, cut, doubled or unasked reply."""

    data: bytes


@dataclass(frozen=True)
class Bytewise:
    """Write these bytes one at a time, `seconds` apart."""

    data: bytes
    seconds: float = 0.0


@dataclass(frozen=True)
class Until:
    """Go on once the event is set."""

    event: threading.Event


@dataclass(frozen=True)
class Delay:
    """Go on after this time."""

    seconds: float


@dataclass(frozen=True)
class Accept:
    """Take responsibility for the message, as a server does before it answers 250."""


@dataclass(frozen=True)
class Queued:
    """Answer 250 with the queue id of the accepted message."""


@dataclass(frozen=True)
class Reset:
    """Break the connection with a TCP reset."""


@dataclass(frozen=True)
class Eof:
    """End the server's side of the connection in order, and note what the client sends all the same."""


@dataclass(frozen=True)
class BlackHole:
    """Keep the connection, read nothing and answer nothing, until the server stops."""


Step = Reply | Raw | Bytewise | Until | Delay | Accept | Queued | Reset | Eof | BlackHole
"""One step of a script."""
