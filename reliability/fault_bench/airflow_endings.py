"""Rows of the fault bench: tasks and runs that are stopped, time out, fail, or have to tell somebody."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from datetime import timedelta

from local_stack.airflow_api import Run
from reliability.fault_bench.airflow_campaign import AirflowCampaign, airflow_campaign, until_noted
from reliability.fault_bench.airflow_probe import Kill
from reliability.fault_bench.airflow_reruns import all_green, nobody_in_doubt
from reliability.fault_bench.airflow_stack import airflow_stack
from reliability.fault_bench.airflow_without import (
    DEAF,
    EASILY_PLEASED,
    IMPATIENT,
    LENIENT_TEMPLATES,
    MARKED_BEFORE_TOLD,
)
from reliability.fault_bench.fault import Fault, Faults, Observation, Setting
from tests.integration.ledger.rows import add_cohort, add_sends
from tests.smtp_script import Accept, Eof

CAP_OF_ONE = "default:\n  one_per_day:\n    max_sends: 1\n    window: 1 days\n"
ANSWER_SECONDS = 1.8
"""How long the server takes for its answer to the dot, where it must be shown that answers are waited for."""


def terminate_supervisor(setting: Setting, rng: random.Random) -> Observation:
    """The supervisor gets SIGTERM in mid-send, as in a warm shutdown, and hands it on to the task."""
    with airflow_campaign(
        airflow_stack(setting.postgres), setting, dot_delay=ANSWER_SECONDS, connections=8
    ) as campaign:
        campaign.add_users(80)
        campaign.add_dag(retries=30)
        until_noted(campaign, "recorded", rng.randint(2, 6))
        os.kill(campaign.notes("began")[-1]["supervisor"], signal.SIGTERM)
        run = campaign.scheduled()
        campaign.wait(run)
        problems = all_green(campaign, run) + nobody_in_doubt(campaign) + gated_after_stop(campaign)
        if not campaign.notes("stop"):
            problems.append("the signal did not reach the task")
        return campaign.observe(campaign.tries(run), problems)


def time_out(setting: Setting, _rng: random.Random) -> Observation:
    """The task's `execution_timeout` strikes in mid-send, again and again until everything is sent."""
    with airflow_campaign(
        airflow_stack(setting.postgres), setting, dot_delay=ANSWER_SECONDS, connections=8
    ) as campaign:
        campaign.add_users(60)
        campaign.add_dag(retries=30, send_timeout=timedelta(seconds=6))
        run = campaign.scheduled()
        campaign.wait(run)
        tries = campaign.tries(run)
        problems = all_green(campaign, run) + nobody_in_doubt(campaign)
        if tries < 2:
            problems.append("the time-out did not strike")
        return campaign.observe(tries, problems)


def out_of_retries(setting: Setting, _rng: random.Random) -> Observation:
    """One of two batches has no retry left: the run is red; cleared by a person, the rest is sent."""
    with airflow_campaign(airflow_stack(setting.postgres), setting, batch_size=10) as campaign:
        campaign.add_users(20)
        campaign.plan_kills([Kill("offered")])
        campaign.add_dag(retries=0)
        run = campaign.scheduled()
        problems = must_be(campaign, run, "failed", "a batch is out of retries")
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "the rest was sent")
        return campaign.observe(campaign.tries(run), problems)


def in_doubt(setting: Setting, _rng: random.Random) -> Observation:
    """The server takes a mail and leaves without an answer: the run is red, also when it is cleared."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        campaign.server.on("dot", Accept(), Eof(), times=1)
        campaign.add_users(10)
        campaign.add_dag()
        run = campaign.scheduled()
        problems = must_be(campaign, run, "failed", "somebody is in doubt")
        campaign.api.clear(run)
        problems += must_be(campaign, run, "failed", "somebody is in doubt still")
        return campaign.observe(campaign.tries(run), problems)


def mend_template(setting: Setting, _rng: random.Random) -> Observation:
    """A template names a variable that nobody has; mended and cleared, everybody gets the new text."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        subject = f"templates/{campaign.id}/subject.txt.j2"
        campaign.write(subject, "Hello {{ full_nam }}")
        campaign.add_users(10)
        campaign.add_dag()
        run = campaign.scheduled()
        problems = must_be(campaign, run, "failed", "the template is broken")
        if campaign.copies():
            problems.append(f"{len(campaign.copies())} mails were sent with a broken template")
        campaign.write(subject, "Welcome {{ full_name }}")
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "the template is mended")
        old = [mail for mail in campaign.server.accepted if b"Subject: Welcome Ada" not in mail.content]
        if old or not campaign.copies():
            problems.append(f"{len(old)} of {len(campaign.server.accepted)} mails have not the new text")
        return campaign.observe(campaign.tries(run), problems)


def failing_callback(setting: Setting, _rng: random.Random) -> Observation:
    """The callback fails twice and then works; the mail does not wait for it."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        campaign.let_callback_fail(2)
        return tell_of_capped(campaign, failures=2, told=3)


def kill_callback(setting: Setting, _rng: random.Random) -> Observation:
    """The process dies before the callback has told, then between its return and its mark."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        campaign.plan_kills([Kill("telling"), Kill("told")])
        return tell_of_capped(campaign, failures=0, told=2)


def tell_of_capped(campaign: AirflowCampaign, *, failures: int, told: int) -> Observation:
    """Run a campaign whose cap refuses some users, and count what the callback was told."""
    campaign.write("frequency_caps.yaml", CAP_OF_ONE)
    capped = campaign.add_users(4)
    campaign.add_users(10)
    with campaign.ledger() as ledger:
        add_cohort(ledger, "another_campaign", campaign.cohort())
        add_sends(ledger, capped, "another_campaign", campaign.cohort(), state="sent")
    campaign.add_dag(retries=6)
    run = campaign.scheduled()
    problems = must_be(campaign, run, "success", "the callback works again")
    alerts = Counter(note["alert"] for note in campaign.notes("told"))
    if len(alerts) != 1 or alerts.total() != told:
        problems.append(f"told {dict(alerts)}, must be {told} times of one alert, {failures} of them failed")
    states = campaign.states()
    if [states[user] for user in capped] != ["held/capped"] * len(capped):
        problems.append(f"the capped are {[states[user] for user in capped]}")
    return campaign.observe(campaign.tries(run), problems)


def must_be(campaign: AirflowCampaign, run: Run, state: str, why: str) -> list[str]:
    """Wait for the end of a run, and say when it is another than it must be."""
    (ended,) = campaign.wait(campaign.api.run(run.dag_id, run.run_id))
    return [] if ended.state == state else [f"the run is a {ended.state}, must be a {state}: {why}"]


def gated_after_stop(campaign: AirflowCampaign) -> list[str]:
    """Say who was gated by a process that had been asked to stop."""
    stopped: set[int] = set()
    late: list[str] = []
    for note in campaign.notes("stop", "asking"):
        if note["event"] == "stop":
            stopped.add(note["pid"])
        elif note["pid"] in stopped:
            late += note["users"]
    return [f"asked the gate after SIGTERM: {late[:5]}, {len(late)} in all"] if late else []


FAULTS: Faults = (
    Fault(
        name="SIGTERM to Airflow's supervisor in mid-send (a deploy, a warm shutdown)",
        expected="nothing in doubt when the server answers in 2 s, no gate after the signal, 1 each",
        protection="on_kill stops the gate and collects answers",
        play=terminate_supervisor,
        without=(DEAF,),
        slow=True,
    ),
    Fault(
        name="execution_timeout of the sending task in mid-send",
        expected="nothing in doubt when the server answers in 2 s, 1 each after the retries",
        protection="sending in a thread that is asked to stop and waited for",
        play=time_out,
        without=(IMPATIENT,),
        slow=True,
    ),
    Fault(
        name="one batch out of retries",
        expected="the run is red; cleared, the rest is sent, 1 each",
        protection="reconcile looks at its siblings, and behind that at the ledger",
        play=out_of_retries,
        without=(EASILY_PLEASED,),
        slow=True,
    ),
    Fault(
        name="a row in doubt",
        expected="the run is red, also after a clear; never resent",
        protection="reconcile names who is in doubt",
        play=in_doubt,
        without=(EASILY_PLEASED,),
        slow=True,
    ),
    Fault(
        name="a broken template, mended, then the run cleared",
        expected="nothing is sent before, then the new text, 1 each",
        protection="strict variables, checked before the first mail",
        play=mend_template,
        without=(LENIENT_TEMPLATES,),
        slow=True,
    ),
    Fault(
        name="an alert's callback fails, then works",
        expected="mail not stopped, the alert told again under the same id",
        protection="an alert is a row, marked when its callback has returned",
        play=failing_callback,
        without=(MARKED_BEFORE_TOLD,),
        slow=True,
    ),
    Fault(
        name="SIGKILL before an alert's callback has told, and between its return and its mark",
        expected="mail not stopped, none lost, the repeat carries the same id",
        protection="an alert is a row, marked when its callback has returned",
        play=kill_callback,
        without=(MARKED_BEFORE_TOLD,),
        slow=True,
    ),
)
