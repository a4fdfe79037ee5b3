"""Every row of the table "Reading an outcome", and what an outcome keeps of a reply."""

import pytest

from lifecycle_emails.delivery.reply import REPLY_LENGTH, Phase, Verdict, classify, no_answer

SENT, REJECTED, RETRY = Verdict.SENT, Verdict.REJECTED, Verdict.RETRY
SLOW_DOWN, IN_DOUBT = Verdict.SLOW_DOWN, Verdict.IN_DOUBT

BEFORE_DOT = [phase for phase in Phase if phase is not Phase.DOT]
NOT_ABOUT_RECIPIENT = [phase for phase in BEFORE_DOT if phase is not Phase.RCPT]

ANY_REPLY = [
    (220, "ready"),
    (250, "2.0.0 Ok: queued as 4Q000001z"),
    (354, "go on"),
    (421, "closing"),
    (421, "4.3.2 shutting down"),
    (450, "4.1.1 try again"),
    (451, "4.4.2 time-out"),
    (500, "what?"),
    (535, "5.7.8 authentication failed"),
    (550, "no such user"),
    (550, "5.1.1 no such user"),
    (551, "not local"),
    (552, "5.2.2 mailbox full"),
    (553, "not allowed"),
    (554, "5.7.1 policy"),
]


@pytest.mark.parametrize("phase", NOT_ABOUT_RECIPIENT)
@pytest.mark.parametrize(("code", "text"), ANY_REPLY)
def test_reply_before_the_dot_and_not_to_rcpt_is_retried(phase: Phase, code: int, text: str) -> None:
    assert classify(phase, code, text).verdict is RETRY


@pytest.mark.parametrize("phase", BEFORE_DOT)
def test_reply_421_with_4_7_asks_to_slow_down_in_every_phase_before_the_dot(phase: Phase) -> None:
    assert classify(phase, 421, "4.7.28 unusual rate of mail").verdict is SLOW_DOWN


# Replies of providers, by the pages and logs where they stand.
TOO_FAST = [
    # docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html
    (454, "Throttling failure: Maximum sending rate exceeded."),
    (454, "4.7.0 Throttling failure: Maximum sending rate exceeded."),
    # learn.microsoft.com, "Non-delivery report codes in Exchange Online", and senders' logs
    (451, "4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)"),
    (451, "4.7.501 Message throttled, please try again later"),
    (451, "4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation."),
    (421, "RP-001 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed."),
    # support.google.com/a/answer/3726730
    (421, "4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP."),
    (450, "4.7.28 Gmail has detected an unusual rate of mail\n4.7.28 originating from your IP."),
    # Postfix, smtpd_client_message_rate_limit in smtpd.c
    (450, "4.7.1 Error: too much mail from 192.0.2.1"),
    # policyd (Cluebringer), its quota per minute
    (450, "4.7.1 Sender address rejected: Deferring: Too many messages from sender in last 60"),
    # As administrators of Exim write their own (its specification, "Rate limiting incoming messages")
    (451, "Sender rate overlimit - 12.3 / 1m"),
    (451, "Sender rate limit exceeded"),
    (450, "You are sending too fast\nslow down please"),
]
NOT_TOO_FAST = [
    # A slower rate opens no spent day: the provider is stopped, and probed until it takes mail again.
    (454, "Throttling failure: Daily message quota exceeded."),
    (454, "4.7.0 Throttling failure: Daily message quota exceeded."),
    (452, "4.7.1 Daily sending rate limit reached"),
    # Greylisting, of Postgrey and milter-greylist: about one recipient's first mail
    (450, "4.7.1 Greylisted, see http://postgrey.example.com/help"),
    (451, "4.7.1 Greylisting in action, you come back too fast"),
    (451, "4.7.1 Please try again later"),
    # support.google.com/a/answer/3726730: what one user receives, whoever sends it
    (450, "4.2.1 The user you are trying to contact is receiving mail too quickly."),
    (450, "4.2.1 The user you are trying to contact is receiving mail at a rate\n4.2.1 that prevents more."),
    (450, "4.2.2 mailbox is throttled"),
    (450, "4.1.1 too many messages"),
    # mx.yandex.ru
    (451, "4.5.1 The recipient has exceeded their message rate limit. Try again later."),
    # Not about mails: recipients of one, log-ins, TLS, a full disk
    (452, "4.5.3 Too many recipients"),
    (454, "4.7.0 Too many login attempts, please try again later."),
    (454, "4.7.0 TLS not available due to local problem"),
    (452, "4.3.1 Insufficient system storage"),
    # For good: a slower rate cannot be the answer
    (550, "5.7.1 rate limit exceeded"),
    (250, "2.0.0 fine, too fast"),
]


@pytest.mark.parametrize("phase", NOT_ABOUT_RECIPIENT)
@pytest.mark.parametrize(("code", "text"), TOO_FAST)
def test_reply_of_a_provider_that_takes_less_mail_a_second_asks_to_slow_down(
    phase: Phase, code: int, text: str
) -> None:
    assert classify(phase, code, text).verdict is SLOW_DOWN


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA])
@pytest.mark.parametrize(("code", "text"), NOT_TOO_FAST)
def test_reply_about_a_day_or_a_recipient_does_not_ask_to_slow_down(
    phase: Phase, code: int, text: str
) -> None:
    assert classify(phase, code, text).verdict is RETRY


@pytest.mark.parametrize("text", ["too fast", "Sender rate limit exceeded"])
def test_words_take_no_doubt_away_after_the_dot(text: str) -> None:
    assert classify(Phase.DOT, 421, text).verdict is IN_DOUBT
    assert classify(Phase.DOT, 451, f"4.4.5 {text}").verdict is IN_DOUBT
    assert classify(Phase.DOT, 250, text).verdict is SENT


@pytest.mark.parametrize(
    ("code", "text", "verdict"),
    [
        (550, "5.1.1 no such user", REJECTED),
        (550, "5.1.10 null MX", REJECTED),
        (554, "5.1.2 no such domain", REJECTED),
        (553, "5.1.3 bad syntax", REJECTED),
        (551, "5.1.6 moved", REJECTED),
        (550, "5.2.1 mailbox disabled", REJECTED),
        (552, "5.2.2 mailbox full", REJECTED),
        (550, "no such user", REJECTED),
        (551, "user not local", REJECTED),
        (553, "mailbox name not allowed", REJECTED),
        (550, "sorry, no mailbox here by that name (#5.1.1)", REJECTED),
        # The sender's address and domain: Postfix says so at RCPT, and it would hold for a whole cohort.
        (550, "5.1.7 sender address rejected", RETRY),
        (550, "5.1.8 sender address rejected: domain not found", RETRY),
        # Policy, quota, routing: about the sender or the provider.
        (550, "5.7.1 relaying denied", RETRY),
        (553, "sorry, that domain is not in my list of allowed rcpthosts (#5.7.1)", RETRY),
        (550, "5.4.1 no answer from host", RETRY),
        (552, "5.3.4 too big", RETRY),
        (550, "5.0.0 no", RETRY),
        (550, "4.1.1 class and code disagree", RETRY),
        (552, "exceeded storage", RETRY),
        (554, "no", RETRY),
        (501, "syntax", RETRY),
        (503, "sequence", RETRY),
        # For now.
        (450, "4.2.1 greylisted", RETRY),
        (450, "4.1.1 unverified", RETRY),
        (451, "5.1.1 code and class disagree", RETRY),
        (452, "too many", RETRY),
        (421, "closing", RETRY),
        (421, "4.4.2 idle", RETRY),
        (250, "fine", RETRY),
    ],
)
def test_reply_to_rcpt_rejects_only_with_evidence_about_the_recipient(
    code: int, text: str, verdict: Verdict
) -> None:
    assert classify(Phase.RCPT, code, text).verdict is verdict


@pytest.mark.parametrize(
    ("code", "text", "verdict"),
    [
        (250, "2.0.0 Ok: queued as 4Q000001z", SENT),
        (250, "", SENT),
        (200, "odd", SENT),
        (251, "will forward", SENT),
        (299, "odd", SENT),
        (250, "4.0.0 odd", SENT),
        (550, "5.1.1 no such user", REJECTED),
        (552, "5.2.2 mailbox full", REJECTED),
        (550, "5.1.8 sender", RETRY),
        (550, "no", RETRY),
        (551, "no", RETRY),
        (553, "no", RETRY),
        (554, "5.7.1 spam", RETRY),
        (554, "5.4.7 quota", RETRY),
        (552, "too big", RETRY),
        (451, "try later", RETRY),
        (450, "4.2.0 greylisted", RETRY),
        (452, "4.3.1 disk full", RETRY),
        (450, "4.7.1 policy", RETRY),
        (421, "4.3.2 shutting down", RETRY),
        (421, "4.7.0 too fast", SLOW_DOWN),
        (421, "4.7.28 too fast", SLOW_DOWN),
        (454, "Throttling failure: Maximum sending rate exceeded.", SLOW_DOWN),
        (454, "Throttling failure: Daily message quota exceeded.", RETRY),
        (451, "4.7.500 Server busy", SLOW_DOWN),
        (421, "closing", IN_DOUBT),
        (421, "", IN_DOUBT),
        (421, "5.7.0 class and code disagree", IN_DOUBT),
        (421, "4.4.2 time-out", IN_DOUBT),
        (451, "4.4.2 time-out", IN_DOUBT),
        (450, "4.4.1 no answer from host", IN_DOUBT),
        (451, "4.4.5 congestion", IN_DOUBT),
        (354, "go on", IN_DOUBT),
        (334, "challenge", IN_DOUBT),
        (100, "odd", IN_DOUBT),
        (600, "odd", IN_DOUBT),
        (25, "cut", IN_DOUBT),
        (0, "", IN_DOUBT),
        (-1, "garbled", IN_DOUBT),
    ],
)
def test_reply_to_the_dot(code: int, text: str, verdict: Verdict) -> None:
    assert classify(Phase.DOT, code, text).verdict is verdict


@pytest.mark.parametrize("text", ["closing", "4.4.2 time-out", "5.7.0 odd"])
def test_ambiguous_reply_to_the_dot_follows_the_connections_setting(text: str) -> None:
    assert classify(Phase.DOT, 421, text, ambiguous_after_dot=RETRY).verdict is RETRY


@pytest.mark.parametrize(
    ("code", "text", "verdict"), [(-1, "?", IN_DOUBT), (250, "ok", SENT), (421, "4.7.0 slow", SLOW_DOWN)]
)
def test_setting_for_ambiguous_replies_touches_no_other(code: int, text: str, verdict: Verdict) -> None:
    assert classify(Phase.DOT, code, text, ambiguous_after_dot=RETRY).verdict is verdict


@pytest.mark.parametrize("phase", BEFORE_DOT)
@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), TimeoutError("timed out"), EOFError()])
def test_no_answer_before_the_dot_is_retried(phase: Phase, error: Exception) -> None:
    outcome = no_answer(phase, error)
    assert (outcome.verdict, outcome.phase, outcome.code) == (RETRY, phase, None)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), TimeoutError("timed out"), EOFError()])
def test_no_answer_to_the_dot_is_in_doubt(error: Exception) -> None:
    assert no_answer(Phase.DOT, error).verdict is IN_DOUBT


@pytest.mark.parametrize("phase", BEFORE_DOT)
def test_unreadable_reply_before_the_dot_is_retried_and_has_no_code(phase: Phase) -> None:
    outcome = classify(phase, -1, b"\xff\xfe")
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (RETRY, None, None)


def test_no_answer_names_the_error_behind_the_error() -> None:
    try:
        try:
            raise ConnectionResetError(104, "reset by peer")
        except OSError:
            raise ConnectionError("server not connected")  # noqa: B904  (as smtplib does)
    except ConnectionError as error:
        outcome = no_answer(Phase.MAIL, error)
    assert outcome.reply == "server not connected ([Errno 104] reset by peer)"


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("5.1.1 no such user", "5.1.1"),
        ("5.1.1", "5.1.1"),
        ("5.7.509 access denied", "5.7.509"),
        ("no such user (#5.1.1)", "5.1.1"),
        ("no such user", None),
        ("5.1 no", None),
        ("5.1.1.1 no", None),
        ("5.1.1234 no", None),
        ("see 5.1.1 for help", None),
        ("3.1.1 no", None),
    ],
)
def test_enhanced_code_is_read_where_servers_put_it(text: str, enhanced: str | None) -> None:
    assert classify(Phase.RCPT, 550, text).enhanced == enhanced


@pytest.mark.parametrize(
    ("text", "queue_id"),
    [
        ("2.0.0 Ok: queued as 4QkJxT3LMbz1234", "4QkJxT3LMbz1234"),
        ("Ok: queued as YhB-d4_TQ1.x", "YhB-d4_TQ1.x"),
        ("OK id=1rABCD-0003aB-1K", "1rABCD-0003aB-1K"),
        (
            "2.6.0 <a1b2@mail.example.com> [InternalId=12345678, Hostname=X] Queued mail for delivery",
            "12345678",
        ),
        ("2.0.0 q9BHCxKM029872 Message accepted for delivery", "q9BHCxKM029872"),
        ("2.0.0 OK  1700000000 d9443c01a7336-1d4e8d2a.12 - gsmtp", "d9443c01a7336-1d4e8d2a.12"),
        ("Ok 0100018f3c0a1b2c-5d6e-7f80-000000", "0100018f3c0a1b2c-5d6e-7f80-000000"),
        ("Ok: 0100018f3c0a1b2c", "0100018f3c0a1b2c"),
        ("Message Queued (8E5C9D6F-1.1)", "8E5C9D6F-1.1"),
        ("2.0.0 Ok: queued as\n2.0.0 4QkJxT", "4QkJxT"),
        ("Ok", None),
        ("OK", None),
        ("", None),
        ("2.0.0 fine", None),
        ("2.0.0 Ok: queued as someone@example.com", None),
        ("2.0.0 Ok: queued as " + "x" * 300, "x" * 100),
    ],
)
def test_queue_id_is_found_in_the_replies_of_common_servers(text: str, queue_id: str | None) -> None:
    assert classify(Phase.DOT, 250, text).queue_id == queue_id


def test_queue_id_is_only_kept_for_what_was_accepted() -> None:
    assert classify(Phase.DOT, 451, "4.3.0 not queued as 4QkJxT").queue_id is None


def test_reply_is_one_line_without_control_characters_and_repeated_codes() -> None:
    outcome = classify(Phase.RCPT, 550, b"5.1.1 no such\r\n5.1.1 user\x1b[31m \x00here\xe2\x80\xa8")
    assert outcome.reply == "5.1.1 no such user [31m here"


@pytest.mark.parametrize("text", ["<jane.doe@example.com> unknown", "unknown: jane.doe@example.com"])
def test_reply_loses_addresses(text: str) -> None:
    assert "jane" not in classify(Phase.RCPT, 550, text).reply
    assert "jane" not in no_answer(Phase.RCPT, text).reply


def test_reply_is_cut_after_addresses_are_gone() -> None:
    text = "x" * (REPLY_LENGTH - 6) + " jane.doe@example.com " + "y" * 100
    reply = classify(Phase.RCPT, 550, text).reply
    assert len(reply) == REPLY_LENGTH
    assert "jan" not in reply


def test_reply_that_is_no_text_is_kept_readable() -> None:
    assert classify(Phase.DOT, 250, b"\xff\xfe fine").reply == "\ufffd\ufffd fine"
