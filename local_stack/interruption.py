"""Whoever ends a program with SIGTERM finds as little left of it as after Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt in the block, and end the program with code 130 where either came.

    So every ``finally`` of the block does its work. For the main thread alone, as signal handlers are.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped; no process is left.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    finally:
        if signal.getsignal(signal.SIGTERM) is _interrupt:  # else the program is about to end, and may
            signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # One is enough: make passes on what the whole process group has got already, in the midst of the tidying.
    # A handler rather than SIG_IGN, which the programs started meanwhile would inherit.
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise KeyboardInterrupt
