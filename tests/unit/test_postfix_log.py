"""What a Postfix log proves: only what it says, by the queue id that belongs to the Message-ID."""

from __future__ import annotations

import gzip
import tracemalloc
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from lifecycle_emails.delivery.postfix_log import PostfixLog
from lifecycle_emails.errors import LifecycleError
from lifecycle_emails.ledger.evidence import Doubt, Fact, Proof

KEY = UUID("0d5c1fd0-6a5c-5b1e-9a55-1e1c1f5f7a01")
OTHER = UUID("0d5c1fd0-6a5c-5b1e-9a55-1e1c1f5f7a02")
NOW = datetime(2026, 5, 5, 12, tzinfo=UTC)
RFC3339 = "2026-05-05T06:00:{:02d}.123456+00:00 mx1 postfix/"
SYSLOG = "May  5 06:00:{:02d} mx1 postfix/"

CLEANUP = f"cleanup[17]: 4QaBcD1z2y: message-id=<{KEY}@example.com>"
QUEUED = "qmgr[18]: 4QaBcD1z2y: from=<hello@example.com>, size=1912, nrcpt=1 (queue active)"
SENT = (
    "smtp[19]: 4QaBcD1z2y: to=<ada@example.org>, relay=mx.example.org[192.0.2.1]:25, delay=1.2,"
    " delays=0.1/0/0.5/0.6, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 99AA88)"
)
BOUNCED = (
    "smtp[19]: 4QaBcD1z2y: to=<ada@example.org>, relay=mx.example.org[192.0.2.1]:25, delay=1.2,"
    " delays=0.1/0/0.5/0.6, dsn=5.1.1, status=bounced (host mx.example.org said: 550 5.1.1 no such user)"
)
DEFERRED = (
    "smtp[19]: 4QaBcD1z2y: to=<ada@example.org>, relay=none, delay=30, delays=0/0/30/0, dsn=4.4.1,"
    " status=deferred (connect to mx.example.org[192.0.2.1]:25: Connection timed out)"
)
REMOVED = "qmgr[18]: 4QaBcD1z2y: removed"


def doubt(key: UUID = KEY, queue_id: str | None = None) -> Doubt:
    at = datetime(2026, 5, 5, 6, tzinfo=UTC)
    return Doubt("day4_follow_up", date(2026, 5, 1), "42", key, queue_id, at, at)


def prove(
    folder: Path, *lines: str, head: str = RFC3339, doubts: tuple[Doubt, ...] = (doubt(),)
) -> dict[Fact, Proof]:
    file = folder / "mail.log"
    file.write_text("".join(f"{head.format(second)}{line}\n" for second, line in enumerate(lines)))
    log = PostfixLog([file], now=lambda: NOW)
    return {proof.fact: proof for proof in log.prove({one.key: one for one in doubts})}


@pytest.mark.parametrize("head", [RFC3339, SYSLOG])
@pytest.mark.parametrize(
    ("lines", "facts"),
    [
        ((CLEANUP, QUEUED), {Fact.ACCEPTED}),
        ((CLEANUP, QUEUED, SENT, REMOVED), {Fact.ACCEPTED, Fact.DELIVERED}),
        ((CLEANUP, QUEUED, DEFERRED), {Fact.ACCEPTED}),
        ((CLEANUP, QUEUED, DEFERRED, BOUNCED), {Fact.ACCEPTED, Fact.BOUNCED}),
        ((CLEANUP, SENT), {Fact.ACCEPTED, Fact.DELIVERED}),
        # the whole body is written before the gate: Postfix has seen the Message-ID and forgets the message
        ((CLEANUP, "smtpd[3]: 4QaBcD1z2y: client=app[192.0.2.9]"), set()),
        ((CLEANUP,), set()),
        ((QUEUED, SENT), set()),
        ((), set()),
    ],
)
def test_log_proves_what_it_says_and_nothing_else(tmp_path: Path, head: str, lines, facts) -> None:
    assert set(prove(tmp_path, *lines, head=head)) == facts


@pytest.mark.parametrize("head", [RFC3339, SYSLOG])
def test_proof_has_the_servers_time_and_queue_id_and_no_address(tmp_path: Path, head: str) -> None:
    proof = prove(tmp_path, CLEANUP, QUEUED, SENT, head=head)[Fact.ACCEPTED]
    assert proof.at is not None
    assert proof.at.replace(microsecond=0) == datetime(2026, 5, 5, 6, 0, 1, tzinfo=UTC)
    assert proof.queue_id == "4QaBcD1z2y"
    assert "@" not in proof.words
    assert "example.org" not in proof.words


def test_traditional_time_has_the_zone_that_is_given_and_the_newest_year_that_is_over(tmp_path: Path) -> None:
    file = tmp_path / "mail.log"
    file.write_text(f"Dec 31 23:30:00 mx1 postfix/{CLEANUP}\nDec 31 23:30:01 mx1 postfix/{QUEUED}\n")
    log = PostfixLog([file], zone=ZoneInfo("Europe/Berlin"), now=lambda: datetime(2027, 1, 2, tzinfo=UTC))
    [proof] = log.prove({KEY: doubt()})
    assert proof.at == datetime(2026, 12, 31, 22, 30, 1, tzinfo=UTC)


def test_rotated_and_compressed_files_are_read_in_the_order_of_their_lines(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "mail.log.2.gz", "wt") as old:
        old.write(f"{RFC3339.format(1)}{CLEANUP}\n")
    (tmp_path / "mail.log").write_text(f"{RFC3339.format(3)}{SENT}\n")
    (tmp_path / "mail.log.1").write_text(f"{RFC3339.format(2)}{QUEUED}\n")
    files = [tmp_path / "mail.log", tmp_path / "mail.log.1", tmp_path / "mail.log.2.gz"]
    proofs = PostfixLog(files, now=lambda: NOW).prove({KEY: doubt()})
    assert {proof.fact for proof in proofs} == {Fact.ACCEPTED, Fact.DELIVERED}


def test_queue_id_used_again_by_another_message_proves_nothing(tmp_path: Path) -> None:
    other = f"cleanup[17]: 4QaBcD1z2y: message-id=<{OTHER}@example.com>"
    assert prove(tmp_path, CLEANUP, other, QUEUED, SENT) == {}


def test_stored_queue_id_is_enough_but_older_lines_are_about_older_mails(tmp_path: Path) -> None:
    known = doubt(queue_id="4QaBcD1z2y")
    assert set(prove(tmp_path, QUEUED, SENT, doubts=(known,))) == {Fact.ACCEPTED, Fact.DELIVERED}
    assert (
        prove(tmp_path, QUEUED, SENT, head="2026-05-05T05:00:{:02d}+00:00 mx1 postfix/", doubts=(known,))
        == {}
    )


def test_mail_handed_to_a_filter_and_back_is_judged_by_its_last_queue(tmp_path: Path) -> None:
    to_filter = SENT.replace("queued as 99AA88", "queued as 5ZZZZZ1z2y")
    back = [line.replace("4QaBcD1z2y", "5ZZZZZ1z2y") for line in (CLEANUP, QUEUED, BOUNCED)]
    assert set(prove(tmp_path, CLEANUP, QUEUED, to_filter, *back)) == {Fact.ACCEPTED, Fact.BOUNCED}


def test_several_recipients_of_one_message_are_all_heard(tmp_path: Path) -> None:
    copy = SENT.replace("to=<ada@example.org>", "to=<archive@example.com>, orig_to=<ada@example.org>")
    assert set(prove(tmp_path, CLEANUP, QUEUED, copy, BOUNCED)) == set(Fact)


@pytest.mark.parametrize(
    "line",
    [
        SENT.replace("ada@example.org", '"x>, relay=x, delay=1, delays=1, dsn=5.1.1, status=bounced (y"@example.org'),
        SENT.replace("250 2.0.0 Ok", "relay=x, delay=1, delays=1, dsn=5.1.1, status=bounced (550"),
    ],
)  # fmt: skip
def test_strangers_words_in_a_line_are_not_its_verdict(tmp_path: Path, line: str) -> None:
    assert set(prove(tmp_path, CLEANUP, line)) == {Fact.ACCEPTED, Fact.DELIVERED}


def test_address_probe_and_garbage_prove_nothing(tmp_path: Path) -> None:
    probe = BOUNCED.replace("status=bounced", "status=undeliverable")
    assert (
        prove(tmp_path, CLEANUP, probe, "smtp[1]: \udcff\x00 status=sent".encode("utf-8", "replace").decode())
        == {}
    )


@pytest.mark.parametrize(
    "head", ["2026-13-45T06:00:00.000000+00:00 mx1 postfix/", "Feb 30 06:00:00 mx1 postfix/"]
)
def test_line_of_an_impossible_time_proves_nothing(tmp_path: Path, head: str) -> None:
    assert prove(tmp_path, CLEANUP, QUEUED, SENT, head=head) == {}


def test_delivery_without_a_further_queue_id_is_a_delivery(tmp_path: Path) -> None:
    to_a_mailbox = SENT.replace("queued as 99AA88", "delivered to mailbox")
    assert set(prove(tmp_path, CLEANUP, QUEUED, to_a_mailbox)) == {Fact.ACCEPTED, Fact.DELIVERED}


def test_unreadable_log_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        LifecycleError, match=r"mail\.log cannot be read, so nothing was settled: No such file"
    ):
        list(PostfixLog([tmp_path / "mail.log"], now=lambda: NOW).prove({KEY: doubt()}))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(LifecycleError, match=r"cut\.gz cannot be read"):
        list(PostfixLog([tmp_path / "cut.gz"], now=lambda: NOW).prove({KEY: doubt()}))


def test_long_log_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "mail.log"
    noise = CLEANUP.replace(str(KEY), str(OTHER)).replace("4QaBcD1z2y", "6NOISE1z2y")
    with file.open("w") as lines:
        lines.write(f"{RFC3339.format(1)}{CLEANUP}\n")
        lines.writelines(f"{RFC3339.format(2)}{noise}\n" for _ in range(20_000))
        lines.write(f"{RFC3339.format(3)}{QUEUED}\n")
    tracemalloc.start()
    proofs = list(PostfixLog([file], now=lambda: NOW).prove({KEY: doubt()}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(proofs) == 1
    assert peak < file.stat().st_size / 10
