import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack.interruption import sigterm_interrupts

INTERRUPTED = """
import os, signal, sys
from local_stack.interruption import sigterm_interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)
with sigterm_interrupts():
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        signal.pause()
    finally:
        for number in sys.argv[2:]:
            os.kill(os.getpid(), int(number))
        print("tidied")
"""


@pytest.mark.parametrize(
    "numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]], ids=str
)
def test_program_that_is_ended_tidies_up_and_ends_with_130(numbers: list[signal.Signals]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *(str(int(number)) for number in numbers)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (130, "Stopped; no process is left.\n")
    assert done.stdout == "tidied\n"


def test_signal_means_what_it_meant_before_once_the_block_has_ended() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with sigterm_interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before
