"""Show what a throttle keeps to: `python -m bench.throttle --seconds 120 --rate 14 --workers 4`.

So many worker processes send through one throttled SMTP connection. In the middle each is killed (SIGKILL),
one after another, and a new one takes its place. The server writes down when each mail's dot arrived. Printed
are the mails of every tenth of the time, and the largest excess over rate x t in any span of t seconds, which
may be as high as there are connections. The last line is one JSON object; the exit code is 1 where more came,
where somebody got two, or where less than nine tenths of the rate were reached.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.arguments import MOST_CONNECTIONS, real_number, whole_number
from lifecycle_emails.ledger.migration import migrate
from local_stack import example_app
from local_stack.interruption import sigterm_interrupts
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer
from tests.daily_run import DailyRun
from tests.scripted_smtp_server import Accepted, ScriptedSmtpServer

ROOT = Path(__file__).parents[1]
PARTS = 10


@dataclass(frozen=True)
class Figures:
    """What arrived at the server; `largest_excess` is in mails beyond rate x t."""

    rate: float
    seconds: float
    workers: int
    kills: int
    connections: int
    arrived: int
    arrived_per_second: float
    largest_excess: float
    most_copies: int

    @property
    def kept(self) -> bool:
        """Whether the throttle kept its word, and was used."""
        within = self.largest_excess <= self.connections and self.most_copies <= 1
        return within and self.arrived_per_second >= 0.9 * self.rate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = PostgresServer(folder / "postgres", free_port(), {})
        try:
            server.start()
            return _report(*run(folder, server, options))
        finally:
            server.remove()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.throttle", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=real_number(1), default=120)
    parser.add_argument("--rate", type=real_number(0.1, 10_000), default=14, help="mails per second")
    parser.add_argument("--workers", type=whole_number(1, 16), default=4)
    parser.add_argument(
        "--connections",
        type=whole_number(1, MOST_CONNECTIONS),
        default=4,
        help="SMTP connections of each worker",
    )
    options = parser.parse_args(arguments)
    if options.rate * options.seconds < PARTS:
        parser.error(
            f"argument --seconds: it is at least {PARTS / options.rate:g} with this rate, so that every tenth"
            " of the time has a mail"
        )
    return options


def run(folder: Path, server: PostgresServer, options: argparse.Namespace) -> tuple[Figures, list[Accepted]]:
    """Plan users enough, let the workers at them, kill each once, and read what the server saw."""
    for database in ("throttle_ledger", "throttle_source"):
        server.create_database(database)
    with server.connect("throttle_source") as source:
        example_app.create_table(source)
    with server.connect("throttle_ledger") as ledger:
        migrate(ledger)
    with ScriptedSmtpServer() as smtp:
        urls = server.url("throttle_ledger"), server.url("throttle_source")
        # Half more users than can be mailed in the time, in batches enough for those that start anew, too.
        users = int(options.rate * options.seconds * 1.5) + 100
        batch_size = max(10, users // (3 * options.workers))
        daily_run = DailyRun(folder, *urls, smtp.port, connections=options.connections, batch_size=batch_size)
        try:
            _plan(daily_run, users, options)
            kills = _work(daily_run, smtp, options)
        finally:
            daily_run.close()
        accepted = list(smtp.accepted)
        most = max(smtp.copies().values(), default=0)
    times = [mail.at for mail in accepted]
    spent = max(times) - min(times)
    figures = Figures(
        options.rate, round(spent, 1), options.workers, kills, options.workers * options.connections,
        len(times), round((len(times) - 1) / spent, 2), round(largest_excess(times, options.rate), 3), most,
    )  # fmt: skip
    return figures, accepted


def largest_excess(arrived: Sequence[float], mails_per_second: float) -> float:
    """The most mails beyond rate x t in any span of t seconds.

    ``arrived`` are times in seconds. The worst span begins and ends with a mail. One pass does: what mails
    i..j are over is how far number - rate x time rose from i to j, and one for the first.
    """
    worst, lowest = 0.0, float("inf")
    for number, at in enumerate(sorted(arrived)):
        over = number - mails_per_second * at
        lowest = min(lowest, over)
        worst = max(worst, over - lowest + 1)
    return worst


def _plan(daily_run: DailyRun, users: int, options: argparse.Namespace) -> None:
    # Those of the killed are held for a minute more, and nobody uses them.
    most = 2 * options.workers * options.connections
    daily_run.include.write(
        "throttles.yaml",
        f"lifecycle_smtp:\n  mails_per_second: {options.rate}\n  connections: {most}\n",
    )
    with daily_run.source.cursor() as cursor:
        daily_run.add_users(1)
        cursor.execute(
            "INSERT INTO users (user_id, email, full_name, created_at)"
            " SELECT n, 'user' || n || '@example.com', u.full_name, u.created_at"
            " FROM users AS u, generate_series(2, %s) AS n",
            [users],
        )
    daily_run.plan()


def _work(daily_run: DailyRun, smtp: ScriptedSmtpServer, options: argparse.Namespace) -> int:
    """Keep the workers running for the time from the first mail on; kill each once in its middle."""
    workers = [_worker(daily_run, smtp) for _ in range(options.workers)]
    kills = 0
    try:
        smtp.wait_until("dot", seconds=120)
        began = time.monotonic()
        while (spent := time.monotonic() - began) < options.seconds:
            if kills < options.workers and spent > options.seconds * (0.3 + 0.4 * kills / options.workers):
                workers[kills].kill()
                workers[kills].wait()
                workers[kills] = _worker(daily_run, smtp)
                kills += 1
            for number, worker in enumerate(workers):
                if worker.poll() is not None:  # as Airflow would start a rescheduled task again
                    workers[number] = _worker(daily_run, smtp)
            time.sleep(0.05)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return kills


def _worker(daily_run: DailyRun, smtp: ScriptedSmtpServer) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "tests.integration.delivery.sender_process", str(daily_run.include.path),
        daily_run.ledger_url, daily_run.source_url, str(smtp.port),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'plugins'}{os.pathsep}{ROOT}"}
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def _report(figures: Figures, accepted: Sequence[Accepted]) -> int:
    first = min(mail.at for mail in accepted)
    length = figures.seconds / PARTS
    print(f"{figures.workers} workers, {figures.kills} kills, throttle {figures.rate:g} mails/s\n")
    print(f"{'from s':>8}{'mails':>8}{'mails/s':>9}")
    for part in range(PARTS):
        mails = sum(part * length <= mail.at - first < (part + 1) * length for mail in accepted)
        print(f"{part * length:8.1f}{mails:8d}{mails / length:9.2f}")
    print(
        f"\nlargest excess over rate x t in any span: {figures.largest_excess}"
        f" (allowed: {figures.connections}, the connections)"
    )
    print(json.dumps({**asdict(figures), "kept": figures.kept}))
    return 0 if figures.kept else 1


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
