"""Plays schedules: killed runs, then runs until nobody is left; compares with what must have come of it."""

from __future__ import annotations

from reliability.fault_bench.fault import Observation
from reliability.fault_bench.schedule import Schedule
from reliability.fault_bench.stage import CAMPAIGN, DAILY, Stage

SILENT_SECONDS = 6.0
"""Time limits where the sink keeps somebody waiting."""


def play_schedule(stage: Stage, schedule: Schedule) -> Observation:
    """Play it on an emptied stage and say what was seen."""
    stage.clear()
    stage.write_campaign(CAMPAIGN, connections=schedule.connections, batch_size=schedule.batch_size)
    if schedule.is_silent:
        stage.smtp = {"dot_timeout": SILENT_SECONDS, "command_timeout": SILENT_SECONDS}
    users = stage.add_users(schedule.users)
    stage.open_sink(schedule.sink)
    problems = []
    for kill in schedule.kills:
        left_before = set(stage.left_open)
        stage.run(*DAILY, kill=(kill.point, kill.passage))
        left = stage.left_open - left_before
        if len(left) > schedule.connections:
            problems.append(
                f"one SIGKILL left {len(left)} users open with {schedule.connections} connections: {left}"
            )
        stage.let_time_pass()
        if schedule.sweeps_between:
            stage.run("sweep")
    if schedule.workers > 1:
        stage.run("extract", "filter", "limit")
        stage.run_all(schedule.workers, "send")
    stage.run_until_done()
    return observe(stage, users, problems=tuple(problems))


def observe(
    stage: Stage, users: list[str], *, campaign: str = CAMPAIGN, problems: tuple[str, ...] = ()
) -> Observation:
    """Compare copies, states and doubts with what the sink's files and the kill points say they must be."""
    mails = stage.mails()
    # a body that the sink ended is a doubt only where the sender had not noticed and wrote the dot
    expected = mails.doubtful_dots | stage.left_open | (mails.broken_bodies & stage.unanswered)
    in_doubt = mails.in_state("in_doubt")
    lost = mails.lost((campaign, user) for user in users)
    found = list(problems) + lost
    if in_doubt != expected:
        found.append(
            f"in doubt without a reason: {stage.details(in_doubt - expected)}, "
            f"and not in doubt with one: {sorted(expected - in_doubt)}"
        )
    found += [
        f"user {user} is rejected, and the server never said so"
        for user in sorted(mails.in_state("rejected") - mails.rejections)
    ]
    found += [
        f"user {user} of {key} got {copies} copies"
        for (key, user), copies in mails.copies.items()
        if copies > 1
    ]
    return Observation(
        runs=stage.runs,
        kills=sum(stage.kills.values()),
        max_copies=mails.max_copies,
        lost=len(lost),
        in_doubt=len(in_doubt),
        in_doubt_expected=len(expected),
        problems=tuple(found),
        kill_points=dict(stage.kills),
    )
