"""The inbox page shows what was caught, and nothing in a mail can act on the page."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import httpx
import pytest

from local_stack.inbox import inbox_app
from local_stack.mail_store import Arrival, MailStore

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> MailStore:
    return MailStore(tmp_path / "mails.sqlite")


class Page:
    """The inbox as a browser asks for it, without a socket between."""

    def __init__(self, store: MailStore) -> None:
        self._transport = httpx.ASGITransport(inbox_app(store))

    def get(self, path: str, **query: str | int) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://localhost") as client:
                return await client.get(path, params=query or None)

        return asyncio.run(ask())


@pytest.fixture
def page(store: MailStore) -> Page:
    return Page(store)


def mail(
    text: str, *, html: str | None = None, subject: str = "Hi", recipient: str = "a@example.com"
) -> Arrival:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = "The team <team@example.com>", recipient, subject
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return Arrival(NOON, "team@example.com", (recipient,), message.as_bytes())


def write(store: MailStore, *arrivals: Arrival) -> None:
    with store.writing() as writer:
        writer.write(arrivals)


def test_inbox_says_that_it_is_empty(page: Page) -> None:
    assert "No mail yet" in page.get("/").text


def test_inbox_counts_one_in_the_singular(store: MailStore, page: Page) -> None:
    write(store, mail("Too many\n"), mail("Reference: day4/1\n"))
    text = page.get("/").text
    for words in ("<strong>1</strong> alert to", "<strong>1</strong> user<", "<strong>2</strong> mails<"):
        assert words in text


def test_inbox_lists_newest_first_with_links(store: MailStore, page: Page) -> None:
    write(store, mail("Reference: day4/1\n", subject="First"), mail("Reference: day4/2\n", subject="Second"))
    text = page.get("/").text
    assert text.index("Second") < text.index("First")
    assert 'href="/messages/2"' in text
    assert "05 May 12:00:00" in text


def test_inbox_searches_and_filters(store: MailStore, page: Page) -> None:
    write(
        store,
        mail("Reference: day4/17\n", subject="Seventeen", recipient="bo@example.org"),
        mail("Two users\n", subject="Too many"),
    )
    for name, value in (("q", "17"), ("q", "bo@"), ("campaign", "day4")):
        text = page.get("/", **{name: value}).text
        assert "Seventeen" in text
        assert "Too many" not in text
    text = page.get("/", alerts="true").text
    assert "Too many" in text
    assert "Seventeen" not in text
    assert "No mail matches" in page.get("/", q="nobody").text


def test_inbox_pages_through_twenty_thousand_mails(store: MailStore, page: Page) -> None:
    arrival = mail("Reference: day4/7\n", recipient="many@example.com")
    write(store, *[arrival] * 20_000)
    last = page.get("/", q="many", page=400)
    assert "20,000 found, page 400 of 400" in last.text
    assert "q=many&amp;campaign=&amp;alerts=false&amp;page=399" in last.text
    assert last.elapsed < timedelta(seconds=1)
    assert "page 400 of 400" in page.get("/", page=999).text


def test_inbox_shows_each_view_of_a_mail(store: MailStore, page: Page) -> None:
    write(store, mail("Plain words\nReference: day4/1\n", html="<h1>Rich words</h1>", subject="Grüße"))
    assert '<iframe sandbox src="/messages/1/html"' in page.get("/messages/1").text
    assert page.get("/messages/1/html").text.strip() == "<h1>Rich words</h1>"
    assert "Plain words" in page.get("/messages/1?view=text").text
    headers = page.get("/messages/1?view=headers").text
    assert "Grüße" in headers
    assert "The team &lt;team@example.com&gt;" in headers
    assert "Subject: =?utf-8?" in page.get("/messages/1?view=source").text
    assert page.get("/messages/1/source").content == store.content(1)


def test_inbox_shows_text_where_there_is_no_html(store: MailStore, page: Page) -> None:
    write(store, mail("Plain words\n"))
    text = page.get("/messages/1").text
    assert "Plain words" in text
    assert "iframe" not in text
    assert page.get("/messages/1/html").status_code == 404


def test_inbox_lets_nothing_of_a_mail_act_on_the_page(store: MailStore, page: Page) -> None:
    hostile = "<script>alert(1)</script>{{ 7*7 }}"
    write(store, mail(f"{hostile}\nReference: day4/<b>x\n", html=hostile, subject=hostile))
    for path in ("/", "/messages/1?view=text", "/messages/1?view=headers", "/messages/1?view=source"):
        answer = page.get(path)
        assert "<script" not in answer.text
        assert "<b>x" not in answer.text
        assert "{{ 7*7 }}" in answer.text
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    framed = page.get("/messages/1/html")
    assert framed.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


def test_inbox_says_which_mail_is_missing(page: Page) -> None:
    answer = page.get("/messages/9")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "There is no mail 9 in this inbox."}


def test_inbox_gives_counts_as_json(store: MailStore, page: Page) -> None:
    day4, other = mail("Reference: day4/1\n"), mail("Reference: help/2\n")
    write(store, day4, day4, other, mail("Alert\n"))
    assert page.get("/api/messages").json() == {
        "messages": 4,
        "alerts": 1,
        "users": 2,
        "max_copies": 2,
        "campaigns": {"day4": 2, "help": 1},
        "copies": [
            {"campaign": "day4", "user_id": "1", "copies": 2},
            {"campaign": "help", "user_id": "2", "copies": 1},
        ],
    }
    assert page.get("/api/messages", campaign="help").json()["copies"] == [
        {"campaign": "help", "user_id": "2", "copies": 1}
    ]
