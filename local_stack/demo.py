"""``make demo``: the whole promise in three minutes, on the real scheduler, Postgres and SMTP.

Sends a day, sends the same day again, clears it, backfills a week, and counts what the SMTP catcher accepted.
The catcher is the judge: the ledger's figures only count when they equal its own. The last line is one JSON
object.
"""

import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from local_stack.airflow_api import AirflowApi, Run
from local_stack.demo_figures import Figures, read_figures
from local_stack.errors import StackError
from local_stack.interruption import INTERRUPTED, sigterm_interrupts
from local_stack.processes import only_one
from local_stack.settings import Settings
from local_stack.stack import CAMPAIGNS, LocalStack, send_one_day

FOLLOW_UP = CAMPAIGNS[0]
BACKFILL_DAYS = 7


def main() -> int:
    """Run the demo; exit status 0 only when every promise was kept."""
    try:
        settings = Settings.from_environment()
        with only_one(settings.state):
            own = replace(settings, state=settings.state / "demo")
            LocalStack(own).erase()  # of an earlier demo, however it ended
            return _demo(LocalStack(own))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


def _demo(stack: LocalStack) -> int:
    started = time.monotonic()
    try:
        _title("1. Start PostgreSQL, an SMTP catcher, 20,000 example users and Airflow")
        stack.start()
        with stack.api() as api:
            figures = _play(stack, api)
    except KeyboardInterrupt:
        print("\nStopping ...", file=sys.stderr)
        return INTERRUPTED
    finally:
        stack.stop()
    figures = replace(figures, seconds=round(time.monotonic() - started, 1))
    broken = figures.broken_promises()
    print()
    for promise in broken:
        print(f"BROKEN: {promise}")
    if not broken:
        print("Every figure was counted at the SMTP catcher and equals the ledger's. Now try: make up")
    print(json.dumps(figures.as_json()))
    return 1 if broken else 0


def _play(stack: LocalStack, api: AirflowApi) -> Figures:
    _title("2. Unpause the campaigns: the scheduler runs the newest day of each")
    runs = send_one_day(api, print, maintenance=False)
    day = read_figures(stack)
    _say(day, "the day is sent")

    _title(f"3. Run the same day of {FOLLOW_UP} again, by hand")
    _again(api, runs[0])
    again = read_figures(stack)
    _say(again, f"{again.caught - day.caught} mails more")

    _title("4. Clear every task of both runs, as an operator would at night")
    for run in runs:
        api.clear(run)
    rerun = [api.run(run.dag_id, run.run_id) for run in runs]
    _succeeded(api.wait_for_runs(rerun, 300, _progress))
    cleared = read_figures(stack)
    _say(cleared, f"{cleared.caught - again.caught} mails more")

    _title(
        f"5. Backfill the {BACKFILL_DAYS} days before; past its deadline of 3 days, a cohort is held as stale"
    )
    tick = _logical_date(runs[0])
    backfill = api.backfill(
        FOLLOW_UP, tick - timedelta(days=BACKFILL_DAYS), tick - timedelta(days=1), max_active_runs=4
    )
    _succeeded(api.wait_for_runs(backfill, 300, _progress))
    figures = read_figures(stack, backfilled_before=tick)
    _say(
        figures, f"{figures.caught - cleared.caught} mails more, {figures.expected_backfill} expected by SQL"
    )
    print(figures.table)
    return replace(
        figures,
        rerun_sent=cleared.caught - day.caught,
        backfill_sent=figures.caught - cleared.caught,
    )


def _again(api: AirflowApi, run: Run) -> None:
    cohort_date = _logical_date(run).date() - timedelta(days=4)
    manual = api.trigger(run.dag_id, datetime.now(UTC), {"cohort_date": cohort_date.isoformat()})
    _succeeded([api.wait_for_run(manual, 300, _progress)])


def _logical_date(run: Run) -> datetime:
    if run.logical_date is None:
        raise StackError(f"the scheduled run {run.run_id} has no logical date")
    return run.logical_date


def _succeeded(runs: list[Run]) -> None:
    failed = [run.run_id for run in runs if run.state != "success"]
    if failed:
        raise StackError(f"These runs have failed, their logs are in the demo's folder: {', '.join(failed)}")


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)


def _progress(line: str) -> None:
    print(f"         {line}", flush=True)


def _say(figures: Figures, text: str) -> None:
    print(
        f"         -> {text}; the catcher has {figures.caught} mails, at most {figures.max_copies} per user "
        f"and campaign, and {figures.alerts} alerts",
        flush=True,
    )


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
