"""A hundred thousand mails are on their way, and somebody pulls the brake."""

from __future__ import annotations

from reliability.fault_bench.airflow_campaign import airflow_campaign
from reliability.fault_bench.airflow_stack import airflow_stack, until
from reliability.fault_bench.fault import Setting
from reliability.stories.story import Person, Story, Told, log_of, one_copy_each, says

USERS = 100_000
HALTED_AFTER = 15_000
"""So many mails are out when the brake is pulled."""
WITHIN_SECONDS = 5.0
RUN_SECONDS = 1200


def halt_a_large_send(setting: Setting) -> Told:
    """Halt in the middle, from a terminal; resume and clear: the rest arrives, once."""
    with airflow_campaign(
        airflow_stack(setting.postgres), setting, connections=16, batch_size=10_000
    ) as campaign:
        person = Person(campaign)
        users = campaign.add_users(USERS)
        campaign.add_dag(retries=30)
        run = campaign.scheduled()
        accepted = campaign.server.accepted
        until(lambda: len(accepted) >= HALTED_AFTER, RUN_SECONDS, f"{HALTED_AFTER} mails are not out")
        person.lifecycle("halt", "--reason", "stop everything")
        run = campaign.api.wait_for_run(run, RUN_SECONDS)
        with campaign.ledger() as ledger:
            halted_at = next(since for (since,) in ledger.execute("SELECT since FROM lifecycle.halts"))
        seconds = max(0.0, max(mail.at for mail in accepted) - halted_at.timestamp())
        out = len(accepted)
        problems = says(log_of(campaign, run, "reconcile"), "halt")
        if seconds > WITHIN_SECONDS or out == USERS:
            problems.append(f"{seconds:.1f} s after the halt the last mail of {out} was accepted")
        person.lifecycle("resume", "--reason", "go on")
        campaign.api.clear(run)
        ended = campaign.api.wait_for_run(campaign.api.run(run.dag_id, run.run_id), RUN_SECONDS)
        if ended.state != "success":
            problems.append(f"after resuming the run is a {ended.state}")
        problems += one_copy_each(campaign, users)
        figures = {"halt_seconds": round(seconds, 2), "resumed_copies": max(campaign.copies().values())}
        return Told(problems + person.problems, figures)


STORIES = (Story("a send of 100,000 is halted and resumed", halt_a_large_send),)
