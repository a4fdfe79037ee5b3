import smtplib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import sinks
from bench.contest import Contestant, Run
from bench.sinks import Sink, recipients, running_sink
from local_stack.loopback_certificate import make_certificate
from local_stack.ports import LOOPBACK

BODY = b"Subject: x\r\n\r\n..\r\n" + 2000 * b"hello\r\n"
NAMES = {"smtp-sink": True, "the built-in sink": False}


@pytest.fixture(params=NAMES)
def kept_by(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sink]:
    """Give a sink of each kind that keeps its mails in tmp_path / kept."""
    if NAMES[request.param] and not sinks.postfix_program("smtp-sink"):
        pytest.skip("Postfix's smtp-sink is not installed")
    if not NAMES[request.param]:
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(sinks, "_PLACES", "/nowhere")
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    with running_sink(keep=tmp_path / "kept") as sink:
        assert sink.name == request.param
        yield sink


def send(sink: Sink, addresses: list[str], certificate: Path | None = None) -> Run:
    with smtplib.SMTP(LOOPBACK, sink.port, timeout=60) as client:
        if certificate:
            client.starttls(context=ssl.create_default_context(cafile=certificate))
        for address in addresses:
            client.sendmail("team@example.com", [address], BODY)
    return Run(len(addresses), 1.0)


def wait_for_mails(sink: Sink, mails: int) -> None:
    deadline = time.monotonic() + 60
    while sink.mails() != mails:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sink_counts_mails_and_the_copies_of_each_recipient(kept_by: Sink, tmp_path: Path) -> None:
    send(kept_by, ["one@example.com", "two@example.com"])
    send(kept_by, ["two@example.com"])

    wait_for_mails(kept_by, 3)
    assert recipients(tmp_path / "kept") == {"one@example.com": 1, "two@example.com": 2}


def test_sink_with_a_certificate_takes_mail_after_starttls_only(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "sink.pem")
    with running_sink(certificate=certificate) as sink:
        with pytest.raises(smtplib.SMTPException, match="STARTTLS"):
            send(sink, ["one@example.com"])
        send(sink, ["one@example.com", "two@example.com"], certificate)

        wait_for_mails(sink, 2)
    assert sink.tls


@pytest.mark.parametrize(("told", "recorded"), [(2, None), (1, 2)], ids=["sent", "recorded"])
def test_contestant_whose_count_differs_from_the_sinks_is_refused(
    told: int, recorded: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.contest.LATE_SECONDS", 0.5)
    with running_sink() as sink:

        def one_mail() -> Run:
            send(sink, ["one@example.com"])
            wait_for_mails(sink, 1)
            return Run(told, 1.0, recorded=recorded)

        contestant = Contestant("liar", one_mail)
        with pytest.raises(RuntimeError, match=r"liar: .* 1 at the sink"):
            contestant.compete(sink)
    assert contestant.runs == []
