"""Run something on Airflow with Celery, and leave no process behind, however it ends."""

import sys
from collections.abc import Callable

from local_stack.errors import StackError
from local_stack.interruption import sigterm_interrupts
from local_stack.processes import only_one
from local_stack.settings import Settings
from reliability.celery_stack import AS_COMPOSED, CeleryStack, Changes
from reliability.redis_server import redis_program


def run_on_celery(name: str, play: Callable[[CeleryStack], int], changes: Changes = AS_COMPOSED) -> int:
    """Play with a stack that is stopped at the end; return the exit code.

    Its data and logs stay in the folder `name` of STATE_DIR until the next time. A StackError is printed, and
    is exit code 1; Ctrl-C and SIGTERM end the program with 130.
    """
    with sigterm_interrupts():
        try:
            redis_program()
            folder = Settings.from_environment().state / name
            with only_one(folder):
                stack = CeleryStack(folder / "stack", changes)
                try:
                    return play(stack)
                finally:
                    stack.stop()
        except StackError as error:
            print(error, file=sys.stderr)
            return 1
