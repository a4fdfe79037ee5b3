"""Rows: what the SMTP server answers, or does not."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from reliability.fault_bench import variants
from reliability.fault_bench.fault import Fault, Faults, Observation, Setting
from reliability.fault_bench.processes import BenchError
from reliability.fault_bench.schedules import SILENT_SECONDS, observe
from reliability.fault_bench.sink import DOUBTFUL_MODES, EARLY_MODES, REJECTING_MODES, SinkPlan
from reliability.fault_bench.stage import CAMPAIGN, DAILY, Stage
from reliability.fault_bench.staging import staged


def _no_answer_to_the_dot(setting: Setting, chance: random.Random) -> Observation:
    """One user for each way not to be answered, some after acceptance and some not."""
    modes = list(DOUBTFUL_MODES)
    chance.shuffle(modes)
    with staged(setting) as stage:
        stage.write_campaign(CAMPAIGN, connections=3)
        stage.smtp = {"dot_timeout": SILENT_SECONDS}
        users = stage.add_users(2 * len(modes))
        plan = {user: ({"dot": mode},) for user, mode in zip(users, modes, strict=False)}
        stage.open_sink(SinkPlan.of_users(plan))
        stage.run_until_done()
        stage.run(*DAILY)
        return observe(stage, users)


def _late_answer(setting: Setting, chance: random.Random) -> Observation:
    """A 250 that comes when the sweep has called the send in doubt; others were in the same groups."""
    with staged(setting) as stage:
        stage.write_campaign(CAMPAIGN, connections=3)
        users = stage.add_users(6)
        late = chance.choice(users)
        stage.smtp = {"dot_timeout": 120}
        stage.open_sink(SinkPlan.of_users({late: ({"dot": "accept, answer when told"},)}))
        process = stage.start()
        _wait_until_sent(stage, len(users) - 1)
        stage.let_time_pass()
        swept = stage.run("sweep").outcome["done"]["sweep"]["in_doubt"]
        stage.sink("tell")
        stage.finish(process)
        problems = () if swept == 1 else (f"the sweep found {swept} sends without an answer, not 1",)
        return observe(stage, users, problems=problems)


def _wait_until_sent(stage: Stage, number: int) -> None:
    deadline = time.monotonic() + 60
    while stage.count("sent") < number:
        if time.monotonic() > deadline:
            raise BenchError("the other lanes did not send")
        time.sleep(0.01)


def _refusals_at_every_phase(setting: Setting, chance: random.Random) -> Observation:
    """4xx, 5xx and broken connections at every phase, among mails that are accepted."""
    offers = [{phase: mode} for phase in ("rcpt", "data", "body", "dot") for mode in _modes_at(phase)]
    chance.shuffle(offers)
    with staged(setting) as stage:
        users = stage.add_users(2 * len(offers))
        by_id = sorted(users)  # they are offered in this order: a refusal, then an accepted mail, and so on
        plan = {user: (offer,) for user, offer in zip(by_id[::2], offers, strict=True)}
        mails = {str(number): mode for number, mode in zip(range(3, 60, 7), _modes_at("mail"), strict=False)}
        greetings = {"2": "450", "4": "EOF"}
        connections = {"3": "554 5.7.1", "6": "reset"}
        stage.open_sink(
            replace(SinkPlan.of_users(plan), mails=mails, greetings=greetings, connections=connections)
        )
        stage.run_until_done()
        mails_now = stage.mails()
        named = {
            user for user, offer in zip(by_id[::2], offers, strict=True) if "550 5.1.1" in offer.values()
        }
        problems = [
            f"user {user} does not exist, and is {mails_now.states[CAMPAIGN, user]}"
            for user in sorted(named - mails_now.in_state("rejected"))
        ]
        return observe(stage, users, problems=tuple(problems))


def _modes_at(phase: str) -> list[str]:
    if phase == "dot":
        return ["451 4.3.0", "421 4.7.0", "554 5.7.1", "550 5.1.1", "accept slowly", "accept in two lines"]
    if phase == "body":
        return ["421", "reset", "EOF", "slow"]
    left_out = ("silence",) if phase == "rcpt" else ("silence", *REJECTING_MODES)
    return [mode for mode in EARLY_MODES if mode not in left_out]


def _refuses_everything(setting: Setting, chance: random.Random) -> Observation:
    """554 to every MAIL, or a wave of bare 550 to every RCPT; later the provider works again."""
    phase, mode = chance.choice((("mail", "554 5.7.1"), ("rcpt", "550")))
    problems = []
    with staged(setting) as stage:
        stage.write_campaign(CAMPAIGN, connections=2)
        users = stage.add_users(60)
        stage.open_sink(SinkPlan.always_at(phase, mode))
        stage.run(*DAILY)
        offers = stage.sink("reached")["mail"]
        if offers > 50:
            problems.append(f"the batch did not stop: {offers} mails were offered")
        stops = stage.ledger.execute("SELECT count(*) FROM lifecycle.alerts WHERE kind = 'provider_stopped'")
        if stops.fetchone() != (1,):
            problems.append("no alert tells of the provider")
        if stage.count("rejected"):
            problems.append("users were rejected for their provider's fault")
        stage.let_time_pass()
        stage.run(*DAILY)
        stage.sink("always", phase=phase, mode=None)
        stage.let_time_pass()
        if stage.run("probe").outcome["done"].get("probe") is not True:
            problems.append("the probe did not find the provider well again")
        stage.run_until_done()
        return observe(stage, users, problems=tuple(problems))


def _server_down(setting: Setting, _: random.Random) -> Observation:
    """Nobody listens for a whole run, then the server is back."""
    problems = []
    with staged(setting) as stage:
        stage.write_campaign(CAMPAIGN, connections=2)
        users = stage.add_users(12)
        error = stage.run(*DAILY).outcome["error"]
        if error is None or not error.startswith("ConnectionFailed"):
            problems.append(f"the run does not say that the server is down: {error}")
        stage.open_sink()
        stage.run_until_done()
        return observe(stage, users, problems=tuple(problems))


FAULTS: Faults = (
    Fault(
        "reset, EOF, silence, garbled or half a reply after the dot; accepted or not",
        "in doubt, at most 1",
        "no readable answer to the dot is a doubt, not a failure",
        _no_answer_to_the_dot,
        (variants.SILENCE_IS_FAILURE,),
    ),
    Fault(
        "a 250 that comes after the sweep",
        "sent; the other lanes lose nothing",
        "a late answer settles a doubt",
        _late_answer,
        (variants.LATE_ANSWER_IGNORED,),
    ),
    Fault(
        "4xx, 5xx, reset, EOF, garbled at every phase; 421 on an idle connection",
        "by phase: retried, or rejected on evidence",
        "a reply is read by the phase it comes in",
        _refusals_at_every_phase,
        (variants.ANY_5XX_REJECTS,),
    ),
    Fault(
        "the provider refuses everything, then recovers",
        "0 rejected, the batch stops, alert, all sent later",
        "the refusal watch and the probe",
        _refuses_everything,
        (variants.NO_REFUSAL_WATCH,),
    ),
    Fault(
        "SMTP is down for a whole run",
        "0 rejected, one clear error, all sent later",
        "nothing is gated before a server has the body",
        _server_down,
        (variants.GATE_BEFORE_OFFER,),
    ),
)
