"""Numbers of a benchmark's command line: a wrong one is refused before anything starts, with the least.

Must not know what is measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

MOST_CONNECTIONS = 256
"""The most SMTP connections that a campaign's file may set."""


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse ``type``: whole numbers from ``least`` to ``most``."""

    def read(written: str) -> int:
        try:
            number = int(written)
        except ValueError:
            raise _refused(written, "a whole number", least, most) from None
        if number < least or (most is not None and number > most):
            raise _refused(written, "a whole number", least, most)
        return number

    return read


def real_number(least: float, most: float | None = None) -> Callable[[str], float]:
    """An argparse ``type``: numbers from ``least`` to ``most``, with or without a fraction, and finite."""

    def read(written: str) -> float:
        try:
            value = float(written)
        except ValueError:
            raise _refused(written, "a number", least, most) from None
        if not math.isfinite(value) or value < least or (most is not None and value > most):
            raise _refused(written, "a number", least, most)
        return value

    return read


def _refused(written: str, kind: str, least: float, most: float | None) -> argparse.ArgumentTypeError:
    up_to = "" if most is None else f" and at most {most:,}"
    return argparse.ArgumentTypeError(f"it is {kind}, at least {least:,}{up_to}, not {written!r}")
