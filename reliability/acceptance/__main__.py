"""``make acceptance``: Airflow on Celery as docker-compose.yaml describes it, through a whole day.

PostgreSQL, Redis, API server, scheduler, DAG processor, triggerer and two Celery workers are real processes
of this machine. The scheduler runs the day of 10,000 users; the SMTP catcher, which records every mail before
it answers, is the judge. The last line is one JSON object. Exit status 0 only when every promise was kept.
"""

import json
import sys
import time
from dataclasses import replace

from lifecycle_emails.ledger.orders import suppress
from reliability.acceptance.figures import Figures
from reliability.celery_run import run_on_celery
from reliability.celery_stack import CeleryStack
from reliability.worker_log import read_deliveries

USERS = 10_000
RUN_SECONDS = 600
_STATES = """
SELECT concat_ws(': ', state, held_reason), count(*) FROM lifecycle.sends GROUP BY 1
"""


def main() -> int:
    """Run the day; return the exit code."""
    return run_on_celery("acceptance", _play)


def _play(stack: CeleryStack) -> int:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)

    stack.start_servers()
    stack.build_image({})
    day = stack.add_users(USERS)
    say(f"PostgreSQL, Redis and the SMTP catcher are up; {USERS:,} users were created on {day}")
    stack.begin()
    stack.finish(say)
    with stack.ledger() as ledger:
        for user_id in range(50, USERS + 1, 100):
            suppress(ledger, user_id=str(user_id), reason="unsubscribed", actor="acceptance")
    run = stack.run_day()
    with stack.api() as api:
        run = api.wait_for_run(run, RUN_SECONDS, say)
    figures = replace(_count(stack, run.state), seconds=round(time.monotonic() - started, 1))
    print(f"\n{figures.table()}\n")
    broken = figures.broken_promises()
    for promise in broken:
        print(f"BROKEN: {promise}")
    print(json.dumps(figures.as_json()))
    return 1 if broken else 0


def _count(stack: CeleryStack, run_state: str) -> Figures:
    with stack.ledger() as ledger:
        states = {str(state): int(count) for state, count in ledger.execute(_STATES)}
    return Figures(
        users=USERS,
        states=states,
        copies={user_id: count for (_, user_id), count in stack.mails().copies().items()},
        sent_by_worker={
            worker: read_deliveries([stack.processes.log(worker)]).started["send_batch"]
            for worker in stack.workers
        },
        run_state=run_state,
    )


if __name__ == "__main__":
    sys.exit(main())
