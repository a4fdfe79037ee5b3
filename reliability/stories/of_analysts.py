"""Stories of whoever fills in the past: a paused week, thirty days once more, a year that is late."""

from __future__ import annotations

import csv
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta

import psycopg
from psycopg import sql

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.delivery.sender import SendingTools, send_group
from lifecycle_emails.delivery.smtp_settings import SmtpSettings
from lifecycle_emails.frequency_cap import load_cap_rules
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.planning import extract_cohort
from lifecycle_emails.message import MessageTemplates
from local_stack.airflow_api import Run
from reliability.fault_bench.airflow_campaign import RUN_SECONDS, AirflowCampaign, airflow_campaign
from reliability.fault_bench.airflow_endings import must_be
from reliability.fault_bench.airflow_reruns import all_green, logical_date
from reliability.fault_bench.airflow_stack import airflow_stack
from reliability.fault_bench.fault import Setting
from reliability.stories.story import Person, Story, Told, log_of, one_copy_each, says

WEEK = 7
LATE_FROM, THROUGH_AIRFLOW, A_YEAR = 5, 30, 365
"""Its newest cohort was due five days ago; the newest thirty go through Airflow's own backfill first."""
SUPPRESSED = 7
BACKFILL_SECONDS = 600


def paused(setting: Setting) -> Told:
    """The DAG was paused for a week. Unpaused, it mails what is not too late, and the rest after `extend`."""
    with airflow_campaign(airflow_stack(setting.postgres), setting, max_lateness_days=2) as campaign:
        person = Person(campaign)
        users = {days_ago: campaign.add_users(5, days_ago) for days_ago in range(WEEK + 1)}
        campaign.add_dag(days_back=-1)
        campaign.api.wait_for_dags([campaign.id], RUN_SECONDS)
        before = campaign.api.trigger(campaign.id, conf={"cohort_date": campaign.cohort(WEEK).isoformat()})
        campaign.wait(before)
        campaign.wait(campaign.api.trigger(campaign.add_maintenance()))
        missed = {campaign.cohort(days_ago).isoformat() for days_ago in range(1, WEEK)}
        problems = [
            f"no alert says that {day} was missed" for day in sorted(missed - campaign.missing_cohorts())
        ]
        campaign.add_dag(days_back=WEEK + 1)
        run = campaign.scheduled()
        problems += must_be(campaign, run, "success", "the newest run takes the week along")
        in_time = [user for days_ago in (0, 1) for user in users[days_ago]]
        late = [user for days_ago in range(2, WEEK) for user in users[days_ago]]
        problems += one_copy_each(campaign, in_time)
        problems += says(log_of(campaign, run, "reconcile"), "stale")
        states = Counter(campaign.states()[user] for user in late)
        if states != {"held/stale": len(late)}:
            problems.append(f"the late ones are {dict(states)}, must be held as stale")
        first, last = campaign.cohort(WEEK - 1), campaign.cohort(2)
        person.lifecycle(
            "extend", campaign.id, *_cohorts(first, last), "--days", "2", "--yes", "--reason", "paused"
        )
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "the longer deadlines count")
        return Told(problems + person.problems + one_copy_each(campaign, [*in_time, *late]))


def late_year(setting: Setting) -> Told:
    """A year of cohorts, all too late: nothing goes out before `extend`; then one run mails everybody."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        person = Person(campaign)
        days = range(LATE_FROM, LATE_FROM + A_YEAR)
        users = [user for days_ago in days for user in campaign.add_users(2, days_ago)]
        for user in users[:SUPPRESSED]:
            person.lifecycle("suppress", "--user", user, "--reason", "unsubscribed")
        campaign.add_dag(days_back=LATE_FROM + THROUGH_AIRFLOW + 5)
        newest = campaign.scheduled()
        campaign.wait(newest)
        tick = logical_date(newest)
        by_hand = [campaign.cohort(days_ago) for days_ago in days[THROUGH_AIRFLOW:]]

        runs = _backfill(campaign, tick, "none")
        _send_without_airflow(campaign, by_hand)
        before = campaign.copies().total()
        first, last = campaign.cohort(days[-1]), campaign.cohort(days[0])
        person.lifecycle(
            "extend", campaign.id, *_cohorts(first, last), "--days", "2", "--yes", "--reason", "late"
        )
        rows, changed, would_be_sent = _dry_run(campaign, person, first, last)
        campaign.api.clear(newest)
        runs += campaign.api.wait_for_runs([campaign.api.run(newest.dag_id, newest.run_id)], BACKFILL_SECONDS)
        after = campaign.copies().total()
        expected = _created_between(campaign, first, last) - SUPPRESSED
        runs += _backfill(campaign, tick, "completed")
        again = campaign.copies().total() - after

        problems = all_green(campaign, *runs) + one_copy_each(campaign, users[SUPPRESSED:])
        if (before, after, again) != (0, expected, 0):
            problems.append(
                f"{before} mails before the approval, {after} after it, must be {expected}; then {again}"
            )
        if (rows, changed, would_be_sent) != (len(users), 0, expected):
            problems.append(
                f"dry run: {rows} rows, {changed} changed in the ledger, {would_be_sent} would be sent"
            )
        figures = {
            "dry_run_rows": rows,
            "dry_run_rows_changed": changed,
            "extended_before": before,
            "extended_after": after,
            "extended_expected": expected,
            "backfill_accepted": again,
        }
        return Told(problems + person.problems, figures)


def _backfill(campaign: AirflowCampaign, tick: datetime, reprocess: str) -> list[Run]:
    """Airflow's own backfill over the newest cohorts of the year; returns its ended runs."""
    first, last = (tick - timedelta(days=LATE_FROM + back) for back in (THROUGH_AIRFLOW - 1, 0))
    runs = campaign.backfill(campaign.id, first, last, reprocess)
    return campaign.api.wait_for_runs(runs, BACKFILL_SECONDS)


def _send_without_airflow(campaign: AirflowCampaign, cohort_dates: Sequence[date]) -> None:
    """The steps of a daily run for each cohort, called as the tasks call them."""
    settings = load_campaign(campaign.include, campaign.id)
    rules = load_cap_rules(campaign.include, settings.frequency_cap)
    audience = Audience.load(campaign.include, settings)
    tools = SendingTools(
        campaign=settings,
        audience=audience,
        templates=MessageTemplates.load(campaign.include, settings),
        smtp=SmtpSettings("127.0.0.1", campaign.server.port, security="none"),
        connect_ledger=lambda: psycopg.connect(campaign.ledger_url),
        connect_source=campaign.source,
    )
    with campaign.ledger() as ledger, campaign.source() as source:
        for day in cohort_dates:
            extract_cohort(ledger, source, settings, audience, day, with_earlier=False)
            filter_ledger(ledger, settings, [day])
            limited = limit_rate(ledger, settings, rules, [day], callbacks=(), run="by hand", max_groups=100)
            for group in limited.groups:
                send_group(tools, group, stop=threading.Event())


def _dry_run(campaign: AirflowCampaign, person: Person, first: date, last: date) -> tuple[int, int, int]:
    """The command over the whole range: rows in its file, rows changed in the ledger, who would be sent."""
    file = campaign.folder / "dry_run.csv"
    before = _ledger_rows(campaign)
    person.lifecycle("dry-run", campaign.id, *_cohorts(first, last), "--csv", str(file))
    changed = len(before ^ _ledger_rows(campaign))
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    return len(rows), changed, sum(row["outcome"] == "would_be_sent" for row in rows)


def _ledger_rows(campaign: AirflowCampaign) -> set[tuple[str, str]]:
    """Every row that a run reads, as text."""
    tables = ("sends", "cohorts", "batches", "suppressions", "alerts", "halts")
    with campaign.ledger() as ledger:
        return {
            (table, text)
            for table in tables
            for (text,) in ledger.execute(
                sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier("lifecycle", table))
            )
        }


def _created_between(campaign: AirflowCampaign, first: date, last: date) -> int:
    """How many users were created on these days in the campaign's zone, by the source alone."""
    with campaign.source() as source:
        (count,) = source.execute(
            "SELECT count(*) FROM users WHERE (created_at AT TIME ZONE %s)::date BETWEEN %s AND %s",
            [campaign.zone, first, last],
        ).fetchone() or (0,)
    return int(count)


def _cohorts(first: date, last: date) -> tuple[str, ...]:
    return ("--cohort-from", first.isoformat(), "--cohort-to", last.isoformat())


STORIES = (
    Story("the DAG was paused for a week", paused, "paused"),
    Story("a year that is late, thirty days of it by backfill", late_year),
)
