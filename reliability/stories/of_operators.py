"""Stories of whoever is called at night: half a run, no mail server, a wrong template, a restored ledger."""

from __future__ import annotations

import subprocess
from collections import Counter
from datetime import UTC, datetime

from local_stack.ports import free_port
from local_stack.postgres import programs_folder
from reliability.fault_bench.airflow_campaign import (
    RUN_SECONDS,
    AirflowCampaign,
    airflow_campaign,
    until_noted,
)
from reliability.fault_bench.airflow_endings import must_be
from reliability.fault_bench.airflow_probe import Kill
from reliability.fault_bench.airflow_stack import airflow_stack
from reliability.fault_bench.fault import Setting
from reliability.stories.story import Person, Story, Told, log_of, one_copy_each, says
from tests.scripted_smtp_server import ScriptedSmtpServer
from tests.smtp_script import Reply

BEFORE_HALT = 6
"""Mails with the wrong text that are out before somebody notices."""


def run_failed(setting: Setting) -> Told:
    """A sending task dies half-way and has no retry left. The red run is cleared."""
    with airflow_campaign(airflow_stack(setting.postgres), setting, batch_size=10) as campaign:
        users = campaign.add_users(20)
        campaign.plan_kills([Kill("offered")])
        campaign.add_dag(retries=0)
        run = campaign.scheduled()
        problems = must_be(campaign, run, "failed", "a batch is out of retries")
        problems += says(log_of(campaign, run, "reconcile"), "clear")
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "the rest was sent")
        return Told(problems + one_copy_each(campaign, users))


def smtp_down(setting: Setting) -> Told:
    """Nobody answers at the mail server all night. In the morning the next run takes everybody along."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        last_night, today = campaign.add_users(15, days_ago=1), campaign.add_users(15)
        _mail_server(campaign, free_port())
        campaign.add_dag(retries=1, days_back=-1)
        campaign.api.wait_for_dags([campaign.id], RUN_SECONDS)
        red = campaign.api.trigger(campaign.id, conf={"cohort_date": campaign.cohort(1).isoformat()})
        problems = must_be(campaign, red, "failed", "nobody answers at the mail server")
        problems += says(log_of(campaign, red, "send_batch"), "SMTP server", "cannot be used")
        _mail_server(campaign, campaign.server.port)
        campaign.add_dag()
        problems += must_be(
            campaign, campaign.scheduled(), "success", "the next run takes last night's along"
        )
        problems += one_copy_each(campaign, [*last_night, *today])
        campaign.api.clear(red)
        problems += must_be(campaign, red, "success", "nothing is left of the red run")
        return Told(problems + one_copy_each(campaign, [*last_night, *today]))


def wrong_template(setting: Setting) -> Told:
    """A wrong text goes out. Halt, mend, resume, clear: the rest gets the right one, nobody gets both."""
    with airflow_campaign(airflow_stack(setting.postgres), setting, dot_delay=0.3) as campaign:
        person, subject = Person(campaign), f"templates/{campaign.id}/subject.txt.j2"
        campaign.write(subject, "Wrong {{ full_name }}")
        users = campaign.add_users(60)
        campaign.add_dag()
        run = campaign.scheduled()
        until_noted(campaign, "recorded", BEFORE_HALT)
        person.lifecycle("halt", "--campaign", campaign.id, "--reason", "wrong template")
        campaign.wait(run)
        problems = says(log_of(campaign, run, "reconcile"), "halt")
        wrong = len(campaign.server.accepted)
        campaign.write(subject, "Right {{ full_name }}")
        person.lifecycle("resume", "--campaign", campaign.id, "--reason", "template mended")
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "the template is mended")
        texts = Counter(b"Subject: Right" in mail.content for mail in campaign.server.accepted)
        if not wrong < len(users) or texts != {False: wrong, True: len(users) - wrong}:
            problems.append(f"{wrong} wrong mails before the halt; then {dict(texts)} (True: the right text)")
        problems += _versions(campaign)
        return Told(problems + person.problems + one_copy_each(campaign, users))


def _versions(campaign: AirflowCampaign) -> list[str]:
    """The runbook tells how to find who got which text: by the template's version in the ledger."""
    with campaign.ledger() as ledger:
        rows = ledger.execute(
            "SELECT template_version, count(*) FROM lifecycle.sends WHERE campaign = %s GROUP BY 1",
            [campaign.id],
        ).fetchall()
    return [] if len(rows) == 2 else [f"template versions in the ledger: {rows}"]


def restored(setting: Setting) -> Told:
    """The ledger is restored from a backup that is older than today's mails."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        person = Person(campaign)
        users = campaign.add_users(12)
        backup = setting.folder / "ledger.dump"
        taken_at = datetime.now(UTC)
        _run("pg_dump", "-Fc", "-f", str(backup), campaign.ledger_url)
        campaign.add_dag()
        run = campaign.scheduled()
        problems = must_be(campaign, run, "success", "all is well before the restore")
        with campaign.ledger() as ledger:
            ledger.execute("DROP SCHEMA lifecycle CASCADE")
        _run("pg_restore", "-d", campaign.ledger_url, str(backup))
        campaign.api.clear(run)
        problems += must_be(campaign, run, "failed", "a ledger that went back sends nothing")
        problems += says(log_of(campaign, run, "reconcile"), "lifecycle restored --since")
        problems += one_copy_each(campaign, users)
        said = person.lifecycle(
            "restored", "--since", taken_at.isoformat(), "--reason", "restored the backup"
        )
        campaign.api.clear(run)
        campaign.wait(campaign.api.run(run.dag_id, run.run_id))
        listed = person.lifecycle("settle", campaign.id)
        problems += [f"settle names {word} not" for word in users if word not in listed]
        person.lifecycle(
            "settle", campaign.id, "--as", "sent", "--all", "--reason", "the provider's log says so"
        )
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "every doubt is settled")
        left = set(campaign.states().values()) - {"sent"}
        if left:
            problems.append(f"after settling there is also {sorted(left)}; restored said {said!r}")
        return Told(problems + person.problems + one_copy_each(campaign, users))


def provider_refuses(setting: Setting) -> Told:
    """The provider refuses everything. Exchanged for another; nobody is lost or rejected for good."""
    with (
        airflow_campaign(airflow_stack(setting.postgres), setting) as campaign,
        ScriptedSmtpServer(record=setting.folder / "accepted.jsonl") as another,
    ):
        campaign.server.on("rcpt", Reply(550, "5.7.1 your account is blocked"))
        users = campaign.add_users(60)
        campaign.add_dag()
        run = campaign.scheduled()
        campaign.wait(run)
        problems = says(log_of(campaign, run, "reconcile"), "stopped")
        rejected = [user for user, state in campaign.states().items() if state == "rejected"]
        if rejected or campaign.copies():
            problems.append(f"{len(rejected)} users rejected for good, {len(campaign.copies())} mailed")
        _mail_server(campaign, another.port)
        maintenance = campaign.add_maintenance()
        campaign.wait(campaign.api.trigger(maintenance))
        _let_pauses_end(campaign)
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "the other provider takes the mails")
        return Told(problems + one_copy_each(campaign, users))


def _mail_server(campaign: AirflowCampaign, port: int) -> None:
    """As in the UI under Admin, Connections: the campaign's mail server is at this port from now on."""
    extra = '{"disable_tls": true, "disable_ssl": true, "dot_timeout": 60}'
    campaign.stack.api.set_connection(f"{campaign.id}_smtp", "smtp", host="127.0.0.1", port=port, extra=extra)


def _let_pauses_end(campaign: AirflowCampaign) -> None:
    """Whoever was refused for now is due again after a pause; here it passes at once."""
    with campaign.ledger() as ledger:
        ledger.execute("UPDATE lifecycle.sends SET not_before = now() WHERE not_before > now()")


def _run(program: str, *arguments: str) -> None:
    subprocess.run([programs_folder() / program, *arguments], check=True, capture_output=True)


STORIES = (
    Story("the run failed half-way", run_failed, "run-failed"),
    Story("SMTP was down all night", smtp_down, "smtp-down"),
    Story("a campaign went out with a wrong template", wrong_template, "wrong-template"),
    Story("the database was restored from yesterday's backup", restored, "restored"),
    Story("the provider refuses everything, and is exchanged", provider_refuses, "provider-refuses"),
)
