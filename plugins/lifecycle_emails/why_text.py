"""Why somebody got a mail or not, in plain sentences.

Knows what states and reasons mean for people. Must not know databases.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from lifecycle_emails.address import scrub_addresses
from lifecycle_emails.ledger.history import InForce, SendHistory, UserHistory

_HELD = {
    "suppressed": "the user, or the address, is on the suppression list",
    "capped": "the frequency cap allows no more mails now",
    "stale": "the cohort's deadline, or the run's own, had passed",
    "invalid_address": "the address in the source is no usable one",
    "left_audience": "the audience's query no longer returns this user",
    "render_failed": "the template fails for this user",
    "daily_limit": "the day's limit of mails was reached",
}
_TO_DO = {
    "suppressed": "Judged again by each scheduled run until then, once the suppression is lifted",
    "capped": "With on_cap: defer, judged again by each scheduled run until then; with drop, only after "
    "lifecycle release",
    "invalid_address": "Judged again by each scheduled run until then, once the address is mended",
    "left_audience": "Judged again by each scheduled run until then, once the query returns the user again",
    "render_failed": "Mend the template or the user's data: each scheduled run until then tries again",
    "daily_limit": "Judged again by each scheduled run until then",
}


def why_text(user: UserHistory) -> str:
    """Tell everything about a user, a paragraph for each campaign."""
    return "\n\n".join("\n".join(lines) for lines in _paragraphs(user))


def in_one_sentence(user: UserHistory, send: SendHistory) -> str:
    """Why the user got this mail or not, and what happens next."""
    day = f"{send.campaign}, cohort {send.cohort_date}: user {user.user_id}"
    if send.state == "sent":
        return (
            f"{day} got this mail: the server accepted it at {_time(send.sent_at)}. It is never sent again."
        )
    if send.state == "rejected":
        return (
            f"{day} got nothing: the mail server refused for good ({_words(send.detail)}). Nothing more "
            "happens, unless a person releases the user (lifecycle release)."
        )
    if send.state == "in_doubt":
        return (
            f"{day} may have got this mail or not: the server never answered. It is not sent again by "
            f"itself; a person settles it: lifecycle settle {send.campaign} --user {user.user_id} --as ..."
        )
    if send.state == "sending":
        return (
            f"{day} is being mailed now: the dot was allowed at {_time(send.gate_at)}. Without an answer by "
            f"{_time(send.answer_due)} it becomes in doubt."
        )
    if send.state == "held":
        return f"{day} got nothing: {_held(send)}. {_after_hold(user, send)}"
    return f"{day} has not got it yet: {_waiting(user, send)}."


def _held(send: SendHistory) -> str:
    reason = send.held_reason or ""
    return f"held as {reason}, since {_HELD[reason]}" + (f" ({_words(send.detail)})" if send.detail else "")


def _after_hold(user: UserHistory, send: SendHistory) -> str:
    if send.deadline <= user.now:
        return (
            f"Nothing more happens: the deadline was {_time(send.deadline)}. lifecycle extend lengthens it "
            "for a range of cohorts."
        )
    if send.held_reason == "stale":
        return "The cohort's own deadline is later: the next scheduled run judges the user again."
    return f"{_TO_DO[send.held_reason or '']} ({_time(send.deadline)})."


def _waiting(user: UserHistory, send: SendHistory) -> str:
    if send.deadline <= user.now:
        return f"the deadline was {_time(send.deadline)}, so the next sweep holds the user as stale"
    if send.volume_verdict == "awaiting_approval":
        return "the cohort is of an unusual size and awaits approval, under required actions of its run"
    if send.volume_verdict == "refused":
        return "the cohort is of an unusual size, and a person refused to let it go out"
    if send.state == "planned":
        return (
            "planned, and not yet judged by limit_rate; the next scheduled run does it, or clear limit_rate"
        )
    return _ready(user, send)


def _ready(user: UserHistory, send: SendHistory) -> str:
    for stop in _stops(user, send):
        why = f"{stop.kind} since {_time(stop.since)} by {stop.by} ({_words(stop.reason)})"
        return f"ready, but there is a {why}; afterwards it goes out"
    if send.not_before and send.not_before > user.now:
        refused = f"the mail server refused for now ({_words(send.detail)})"
        return f"{refused}; tried again from {_time(send.not_before)}"
    waits = "ready, holds its slot of the frequency cap, and waits for send_batch of its run or of the next"
    return "; ".join([waits, *_throttled(user)])


def _throttled(user: UserHistory) -> Iterator[str]:
    for name, throttle in user.throttles.items():
        if throttle.day_is_used_up:
            yield (
                f"the daily maximum of {name}'s throttle is reached, so nothing goes over it before "
                f"{_time(throttle.day_ends)}"
            )
        elif throttle.next_free_at is not None and throttle.next_free_at > user.now:
            yield f"{name}'s throttle gives its next turn at {_time(throttle.next_free_at)}"


def _stops(user: UserHistory, send: SendHistory) -> Iterator[InForce]:
    return (halt for halt in user.halts if halt.campaign in (None, send.campaign))


def _paragraphs(user: UserHistory) -> Iterator[list[str]]:
    if user.user_id is None:
        yield ["The ledger knows nobody by this address (hashes of long finished cohorts are dropped)."]
    elif not user.sends:
        yield [f"No run has found user {user.user_id} in an audience."]
    for send in user.sends:
        yield [in_one_sentence(user, send), *_facts(user, send)]
    for title, stops in (("Suppressions in force", user.suppressions), ("Sending is stopped", user.halts)):
        if stops:
            yield [f"{title}:", *(f"  {_in_force(stop)}" for stop in stops)]
    if user.throttles and any(send.state == "ready" for send in user.sends):
        throttles = (throttle.words(name) for name, throttle in user.throttles.items())
        yield [
            "Throttles, as tasks last read throttles.yaml:",
            *(f"  {_words(words)}" for words in throttles),
        ]


def _facts(user: UserHistory, send: SendHistory) -> Iterator[str]:
    yield f"  planned  {_time(send.planned_at)}{_by(send.planned_by)}, batch {send.batch}"
    if send.ready_at:
        yield f"  ready    {_time(send.ready_at)}{_by(send.ready_by)}"
    if send.gate_at:
        yield (
            f"  gate     {_time(send.gate_at)}{_by(send.sent_by)}, template {send.template_version}, "
            f"code {send.code_version}, Message-ID <{send.message_key}@...>"
        )
    if send.sent_at:
        reply = f"queue id {send.queue_id}" if send.queue_id else _words(send.detail)
        yield f"  sent     {_time(send.sent_at)}, server: {reply or 'accepted'}"
    yield f"  deadline {_time(send.deadline)}; refused for now {send.attempts} times"
    for event in send.events:
        reason = f" {event.held_reason}" if event.held_reason else ""
        detail = f": {_words(event.detail)}" if event.detail else ""
        yield (
            f"  history  {_time(event.happened_at)} {event.from_state} -> {event.to_state}{reason}{detail}"
            f" (by {event.actor}{_by(event.run)})"
        )
    for refusal in send.refusals:
        at, rule = _time(refusal.refused_at), refusal.rule
        yield f"  cap      {at} rule {rule}: {refusal.slots_taken} slots were taken"
    if send.held_reason == "capped":
        for slot in user.slots:
            since = _time(slot.since) if slot.since else "under way"
            yield f"  slot     taken by {slot.campaign} ({slot.state}), {since}"


def _in_force(stop: InForce) -> str:
    where = stop.campaign or "all campaigns"
    return f"{stop.kind}, {where}, since {_time(stop.since)} by {stop.by}: {_words(stop.reason)}"


def _by(run: str | None) -> str:
    return f", run {run}" if run else ""


def _words(text: str | None) -> str:
    return scrub_addresses(text or "")


def _time(at: datetime | None) -> str:
    return at.isoformat(sep=" ", timespec="seconds") if at else "unknown"
