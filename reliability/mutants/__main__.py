"""Prints which mutants the fast tests notice: `python -m reliability.mutants`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from reliability.mutants import MUTANTS, MutantError, MutantResult, run_mutants

_COLUMNS = "{:<12}{:<48}{:>8}  {}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants; 0 when every one was noticed."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.mutants",
        description="Make one wrong change at a time in a copy of the repository and run the tests that must "
        "notice it. The last line is JSON.",
    )
    parser.add_argument("--only", metavar="NAME", help="only mutants whose name or kind contains this")
    options = parser.parse_args(arguments)
    only = options.only or ""
    chosen = [mutant for mutant in MUTANTS if only in mutant.name or only == mutant.kind]
    if not chosen:
        parser.error(f"no mutant is called {only!r}")
    print(_COLUMNS.format("kind", "mutant", "seconds", "killed by"), flush=True)
    started = time.monotonic()
    try:
        results = run_mutants(chosen, told=_print)
    except MutantError as error:
        print(error, file=sys.stderr)
        return 2
    killed = sum(result.killed for result in results)
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"mutants": len(results), "mutants_killed": killed, "seconds": seconds}))
    return 0 if killed == len(results) else 1


def _print(result: MutantResult) -> None:
    killed_by = result.killed_by or "nobody: a test is missing"
    print(_COLUMNS.format(result.kind, result.name, f"{result.seconds:.1f}", killed_by), flush=True)


if __name__ == "__main__":
    sys.exit(main())
