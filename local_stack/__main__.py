"""The stack's commands: ``python -m local_stack up``, ``down`` and ``status``."""

import argparse
import shlex
import sys

from local_stack.airflow_environment import USERNAME, AirflowSecrets, command_environment
from local_stack.errors import StackError
from local_stack.interruption import INTERRUPTED, sigterm_interrupts
from local_stack.processes import only_one
from local_stack.settings import Settings
from local_stack.stack import LocalStack, send_one_day


def main() -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local_stack", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    command = parser.parse_args().command
    try:
        settings = Settings.from_environment()
        stack = LocalStack(settings)
        if command == "status":
            return _status(stack)
        with only_one(settings.state):
            if command == "down":
                stack.stop()
                print("The local stack is down.")
                return 0
            return _up(stack)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


def _up(stack: LocalStack) -> int:
    if stack.is_running():
        print("The local stack is up already.")
        _print_links(stack)
        return 0
    try:
        _start(stack)
        with stack.api() as api:
            print("         sending one day's mail ...")
            send_one_day(api)
    except KeyboardInterrupt:
        print("\nStopping ...", file=sys.stderr)
        stack.stop()
        return INTERRUPTED
    finally:
        if stack.is_running():  # also after a run that failed: its log is to be read in Airflow
            _print_links(stack)
    return 0


def _start(stack: LocalStack) -> None:
    try:
        stack.start()
    except StackError:
        stack.stop()
        raise


def _status(stack: LocalStack) -> int:
    states = stack.states()
    for name, alive in states.items():
        print(f"{name:24}{'up' if alive else 'down'}")
    return 0 if all(states.values()) and len(states) > 1 else 1


def _print_links(stack: LocalStack) -> None:
    settings = stack.settings
    password = AirflowSecrets.of(settings).password
    tour = settings.project / "README.md"
    environment = command_environment(settings, stack.postgres.url)
    exports = "\n".join(f"  export {name}={shlex.quote(value)}" for name, value in environment.items())
    print(f"""
  Airflow   {settings.airflow_url}   (log in as {USERNAME}, password {password})
  Inbox     {settings.inbox_url}
  Tour      {tour.as_uri()}#a-ten-minute-tour

  For the lifecycle command and psql:
{exports}

  Next: open the inbox and look at what was sent. Stop everything with: make down""")


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
