"""Prints what the model check found: `python -m reliability.protocol_model`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from reliability.protocol_model.verdicts import Search, Verdict, search, searches

_COLUMNS = "{:<14}{:<34}{:<20}{:>8}{:>13}{:>9}  {}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the searches; 0 when every one ended as expected."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.protocol_model",
        description="Search every order of events of the sending protocol, of the careless ones and of its "
        "mutants. The real one must hold; the others must fail, and the shortest way to it is printed.",
    )
    parser.add_argument("--only", metavar="NAME", help="only protocols whose name contains this")
    parser.add_argument("--no-traces", action="store_true", help="the table alone")
    options = parser.parse_args(arguments)
    chosen = [what for what in searches() if (options.only or "") in what.protocol.name]
    if not chosen:
        parser.error(f"no protocol is called {options.only!r}")
    started = time.perf_counter()
    print(_COLUMNS.format("kind", "protocol", "scope", "states", "transitions", "seconds", "verdict"))
    verdicts = []
    for verdict in _verdicts(chosen):
        print(_row(verdict), flush=True)
        verdicts.append(verdict)
    if not options.no_traces:
        _print_scopes(chosen)
        _print_traces(verdicts)
    print(json.dumps(_summary(verdicts, time.perf_counter() - started)))
    return 0 if all(verdict.as_expected for verdict in verdicts) else 1


def _verdicts(chosen: Sequence[Search]) -> Iterator[Verdict]:
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        yield from pool.map(search, chosen)


def _row(verdict: Verdict) -> str:
    checked, what = verdict.checked, verdict.search
    found = "holds" if checked.broken is None else f"fails in {len(checked.trace)} steps: {checked.broken}"
    unexpected = "" if verdict.as_expected else "  <- NOT EXPECTED"
    return _COLUMNS.format(
        what.kind, what.protocol.name, what.scope.name,
        checked.states, checked.transitions, f"{checked.seconds:.1f}", found + unexpected,
    )  # fmt: skip


def _print_scopes(chosen: Sequence[Search]) -> None:
    print("\nScopes")
    for name, scope in {what.scope.name: what.scope for what in chosen}.items():
        print(f"  {name}: {scope.sought} (users {scope.users}, connections by process {scope.lanes})")


def _print_traces(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        protocol, checked = verdict.search.protocol, verdict.checked
        if checked.broken is None:
            continue
        print(f"\n{protocol.name}: {protocol.explanation}")
        for number, step in enumerate(checked.trace, start=1):
            print(f"  {number:>2}. {step.words}{'  [fault]' if step.fault else ''}")
        print(f"  => {checked.broken}")


def _summary(verdicts: Sequence[Verdict], seconds: float) -> dict[str, object]:
    real = [verdict.checked for verdict in verdicts if verdict.search.kind == "real"]
    failing = [verdict for verdict in verdicts if not verdict.search.expected_to_hold]
    return {
        "states": sum(checked.states for checked in real),
        "transitions": sum(checked.transitions for checked in real),
        "real_holds": all(checked.holds for checked in real),
        "must_fail": len(failing),
        "failed": sum(not verdict.checked.holds for verdict in failing),
        "as_expected": all(verdict.as_expected for verdict in verdicts),
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
