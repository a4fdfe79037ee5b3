"""The catcher judges how many copies somebody got: it must neither lose nor invent nor miscount a mail."""

import os
import signal
import smtplib
import socket
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest

from local_stack.catcher import Catcher
from local_stack.mail_store import MailStore, Search
from local_stack.ports import free_port


def make_message(text: str = "Hello\n", html: str | None = None, **headers: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    for name, value in {
        "From": "team@example.com",
        "To": "ann@example.com",
        "Subject": "Hi",
        **headers,
    }.items():
        message[name] = value
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


def send(smtp_catcher: Catcher, content: bytes | EmailMessage, recipient: str = "ann@example.com") -> None:
    raw = content.as_bytes() if isinstance(content, EmailMessage) else content
    with smtplib.SMTP("127.0.0.1", smtp_catcher.port) as client:
        client.sendmail("team@example.com", [recipient], raw)


def test_catcher_records_envelope_content_and_reference(smtp_catcher: Catcher) -> None:
    before = datetime.now(UTC)
    message = make_message(
        "Hello\n\nReference: day4_follow_up/42\n", Subject="Grüße, Zoë", **{"Message-ID": "<1@example.com>"}
    )
    send(smtp_catcher, message)
    (mail,) = smtp_catcher.store.mails()
    assert before <= mail.received_at <= before + timedelta(minutes=1)
    assert (mail.sender, mail.recipient) == ("team@example.com", "ann@example.com")
    assert (mail.campaign, mail.user_id, mail.is_alert) == ("day4_follow_up", "42", False)
    assert (mail.subject, mail.message_id) == ("Grüße, Zoë", "<1@example.com>")
    assert smtp_catcher.store.content(mail.number) == message.as_bytes()


@pytest.mark.parametrize("encoding", ["7bit", "quoted-printable", "base64"])
def test_catcher_reads_the_reference_of_the_decoded_body(smtp_catcher: Catcher, encoding: str) -> None:
    message = EmailMessage(policy=SMTP)
    message.set_content(f"{'long ' * 40}\nReference: day4_setup_help/a=b\n", cte=encoding)
    send(smtp_catcher, message)
    assert smtp_catcher.store.copies() == {("day4_setup_help", "a=b"): 1}


def test_catcher_reads_an_html_body_where_there_is_no_text(smtp_catcher: Catcher) -> None:
    message = EmailMessage(policy=SMTP)
    message.set_content("<p>Hello</p><p>Reference: <b>day4/x&amp;y</b></p>", subtype="html")
    send(smtp_catcher, message)
    assert smtp_catcher.store.copies() == {("day4", "x&y"): 1}


def test_catcher_trusts_the_last_reference_not_what_a_user_wrote_above_it(smtp_catcher: Catcher) -> None:
    send(smtp_catcher, make_message("Dear Ann,\nReference: other/1\nhow are you?\n\nReference: day4/2\n"))
    assert smtp_catcher.store.copies() == {("day4", "2"): 1}


def test_catcher_takes_a_mail_without_reference_for_an_alert_whatever_its_headers_say(
    smtp_catcher: Catcher,
) -> None:
    send(smtp_catcher, make_message("Three users\n", Reference="day4/1", **{"X-Campaign": "day4"}))
    (mail,) = smtp_catcher.store.mails()
    assert mail.is_alert
    assert smtp_catcher.store.copies() == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b".\r\n",
        b"..\r\n",
        b"a\r\n.\r\nb\r\n",
        b"Ends in a dot.\r\n",
        b"\r\n.\r\n",
        b".hidden\r\n...\r\n",
    ],
)
def test_catcher_takes_exactly_the_bytes_that_were_meant(smtp_catcher: Catcher, body: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", smtp_catcher.port) as client:
        client.ehlo()
        client.mail("team@example.com")
        client.rcpt("ann@example.com")
        client.putcmd("DATA")
        client.getreply()
        client.send((b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
        assert client.getreply()[0] == 250
    assert smtp_catcher.store.content(1) == body


def test_catcher_refuses_lines_that_smtp_does_not_allow(smtp_catcher: Catcher) -> None:
    with smtplib.SMTP("127.0.0.1", smtp_catcher.port) as client:
        with pytest.raises(smtplib.SMTPDataError, match="Line too long"):
            client.sendmail("team@example.com", ["ann@example.com"], b"x" * 999 + b"\r\n")
        client.sendmail("team@example.com", ["ann@example.com"], b"x" * 998 + b"\r\n")
    assert smtp_catcher.store.count() == 1


def test_catcher_takes_nothing_before_the_whole_final_dot(smtp_catcher: Catcher) -> None:
    message = b"Subject: cut\r\n\r\nReference: day4/1\r\n"
    for cut in (message, message + b".", message + b".\r"):
        with smtplib.SMTP("127.0.0.1", smtp_catcher.port) as client:
            client.ehlo()
            client.mail("team@example.com")
            client.rcpt("ann@example.com")
            client.putcmd("DATA")
            assert client.getreply()[0] == 354
            client.send(cut)
            assert client.sock is not None
            client.sock.shutdown(socket.SHUT_WR)
            assert client.sock.recv(1) == b""  # the server gave up on the message, without a reply
            client.close()
    assert smtp_catcher.store.count() == 0


def test_catcher_speaks_smtputf8(smtp_catcher: Catcher) -> None:
    with smtplib.SMTP("127.0.0.1", smtp_catcher.port) as client:
        client.ehlo()
        assert client.has_extn("smtputf8")
        client.mail("team@example.com", ["SMTPUTF8"])
        assert client.rcpt("zoë@exämple.example.com")[0] == 250
        client.data("Subject: ü\r\n\r\nReference: day4/ü\r\n".encode())
    assert smtp_catcher.store.copies() == {("day4", "ü"): 1}
    assert smtp_catcher.store.mails()[0].recipient == "zoë@exämple.example.com"


def test_catcher_answers_451_when_it_cannot_record(
    smtp_catcher: Catcher, capfd: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(smtp_catcher.store.path) as connection:
        connection.execute("ALTER TABLE contents RENAME TO gone")
    with pytest.raises(smtplib.SMTPDataError) as refused:
        send(smtp_catcher, make_message("Reference: day4/1\n"))
    assert refused.value.smtp_code == 451
    assert smtp_catcher.store.count() == 0
    assert "could not be recorded" in capfd.readouterr().err


def test_catcher_records_every_mail_of_many_connections(smtp_catcher: Catcher) -> None:
    def connection(number: int) -> None:
        with smtplib.SMTP("127.0.0.1", smtp_catcher.port) as client:
            for n in range(20):
                content = make_message(f"Reference: day4/{number}-{n}\n").as_bytes()
                client.sendmail("team@example.com", ["ann@example.com"], content)

    threads = [threading.Thread(target=connection, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    copies = smtp_catcher.store.copies()
    assert len(copies) == 320
    assert set(copies.values()) == {1}


def test_catcher_has_recorded_every_answered_mail_when_it_is_killed(tmp_path: Path) -> None:
    store, port = tmp_path / "mails.sqlite", free_port()
    command = [
        sys.executable,
        "-m",
        "local_stack.catcher",
        f"--smtp-port={port}",
        f"--inbox-port={free_port()}",
    ]
    with subprocess.Popen([*command, f"--store={store}"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Catching mail on port {port}.\n"
        with smtplib.SMTP("127.0.0.1", port) as client:
            for n in range(50):
                content = make_message(f"Reference: day4/{n}\n").as_bytes()
                client.sendmail("team@example.com", ["ann@example.com"], content)
            os.kill(process.pid, signal.SIGKILL)
            client.close()
    assert MailStore(store).copies() == {("day4", str(n)): 1 for n in range(50)}


def test_store_finds_by_recipient_campaign_user_and_alert(smtp_catcher: Catcher) -> None:
    send(smtp_catcher, make_message("Reference: day4/1\n", Subject="First"), "ann@example.com")
    send(smtp_catcher, make_message("Reference: day4/2\n", Subject="100% _sure_"), "bob@example.org")
    send(smtp_catcher, make_message("Reference: help/1\n", Subject="Third"), "ann@example.com")
    send(smtp_catcher, make_message("Three users\n", Subject="Alert"), "team@example.net")

    def subjects(search: Search) -> list[str]:
        found = [mail.subject for mail in smtp_catcher.store.mails(search)]
        assert smtp_catcher.store.count(search) == len(found)
        return found

    assert subjects(Search()) == ["Alert", "Third", "100% _sure_", "First"]
    assert subjects(Search("ANN@")) == ["Third", "First"]
    assert subjects(Search("1")) == ["Third", "100% _sure_", "First"]
    assert subjects(Search("% _")) == ["100% _sure_"]
    assert subjects(Search("help")) == ["Third"]
    assert subjects(Search(campaign="day4")) == ["100% _sure_", "First"]
    assert subjects(Search(alerts_only=True)) == ["Alert"]
    assert [mail.subject for mail in smtp_catcher.store.mails(limit=2, offset=1)] == ["Third", "100% _sure_"]
    assert smtp_catcher.store.campaigns() == {"day4": 2, "help": 1}
    assert [(user, campaign) for user, campaign, _ in smtp_catcher.store.times()] == [
        ("1", "day4"),
        ("1", "help"),
        ("2", "day4"),
    ]
