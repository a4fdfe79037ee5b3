import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle_emails.campaign import campaign_ids, load_campaign
from lifecycle_emails.errors import ConfigurationError, RenderFailed
from lifecycle_emails.message import MessageTemplates, RenderedMessage
from tests.factories import INCLUDE, IncludeFolder, make_campaign

DATE = datetime(2026, 5, 5, 6, 0, 1, tzinfo=UTC)
MESSAGE_ID = "<5f0c3e2e-6d0c-5d0c-9d0c-5f0c3e2e6d0c@example.com>"
PROFILE = {"user_id": 42, "email": "ann@example.com", "full_name": "Ann Lee"}
UNSUBSCRIBE = "https://example.com/u/{{ user_id | urlencode }}"


@pytest.fixture
def include(tmp_path: Path) -> IncludeFolder:
    return IncludeFolder(tmp_path)


def render(
    include: IncludeFolder,
    profile: dict[str, Any] | None = None,
    recipient: str = "ann@example.com",
    **campaign: Any,
) -> RenderedMessage:
    templates = MessageTemplates.load(include.path, make_campaign(**campaign))
    return templates.render(PROFILE | (profile or {}), recipient, MESSAGE_ID, DATE)


def parsed(message: RenderedMessage) -> EmailMessage:
    """The message as a mail program reads it."""
    found = message_from_bytes(message.content, policy=policy.default)
    assert isinstance(found, EmailMessage)
    assert [part.defects for part in found.walk()] == [[], [], []]
    return found


def bodies(message: RenderedMessage) -> tuple[str, str]:
    found = []
    for subtype in ("plain", "html"):
        part = parsed(message).get_body((subtype,))
        assert part is not None
        found.append(part.get_content().replace("\r\n", "\n"))
    return found[0], found[1]


def test_message_has_the_headers_and_both_bodies(include: IncludeFolder) -> None:
    message = render(
        include, reply_to="Help <help@example.com>", list_unsubscribe=UNSUBSCRIBE, feedback_id="a:b:c"
    )
    assert {name: str(value) for name, value in parsed(message).items()} == {
        "Date": "Tue, 05 May 2026 06:00:01 +0000",
        "To": "ann@example.com",
        "Message-ID": MESSAGE_ID,
        "List-Unsubscribe": "<https://example.com/u/42>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Subject": "Hello Ann Lee",
        "From": "The team <hello@example.com>",
        "Auto-Submitted": "auto-generated",
        "Reply-To": "Help <help@example.com>",
        "Feedback-ID": "a:b:c",
        "Content-Type": 'multipart/alternative; boundary="=_lifecycle"',
        "MIME-Version": "1.0",
    }
    assert bodies(message) == (
        "Hello Ann Lee,\nyour id is 42.\n",
        "<p>Hello Ann Lee, your id is 42.</p>\n",
    )
    assert (message.sender, message.recipient, message.needs_smtputf8) == (
        "hello@example.com",
        "ann@example.com",
        False,
    )


def test_message_leaves_out_headers_that_the_campaign_does_not_set(include: IncludeFolder) -> None:
    names = set(parsed(render(include)).keys())
    assert names == {
        "Date", "To", "Message-ID", "Subject", "From", "Auto-Submitted", "Content-Type", "MIME-Version"
    }  # fmt: skip


def test_message_offers_one_click_only_over_https(include: IncludeFolder) -> None:
    message = parsed(render(include, list_unsubscribe="mailto:u@example.com?subject=stop%20{{ user_id }}"))
    assert message["List-Unsubscribe"] == "<mailto:u@example.com?subject=stop%2042>"
    assert message["List-Unsubscribe-Post"] is None


def test_message_is_the_same_for_the_same_arguments(include: IncludeFolder) -> None:
    assert render(include) == render(include)


def test_message_date_is_utc(include: IncludeFolder) -> None:
    templates = MessageTemplates.load(include.path, make_campaign())
    date = datetime.fromisoformat("2026-05-05T08:00:01+02:00")
    assert parsed(templates.render(PROFILE, "ann@example.com", MESSAGE_ID, date))["Date"] == (
        "Tue, 05 May 2026 06:00:01 +0000"
    )


def reference(name: str) -> EmailMessage:
    """The test campaign's mail, built by the standard library out of objects."""
    message = EmailMessage(policy=policy.SMTP)
    message["To"] = "ann@example.com"
    message.set_content(f"Hello {name},\nyour id is 42.\n")
    escaped = (
        name.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("'", "&#39;")
        .replace('"', "&#34;")
    )
    message.add_alternative(f"<p>Hello {escaped}, your id is 42.</p>\n", subtype="html")
    return message


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> MessageTemplates:
    """The test campaign's templates, compiled once for many mails."""
    return MessageTemplates.load(IncludeFolder(tmp_path_factory.mktemp("mail")).path, make_campaign())


@given(
    name=st.text(
        st.characters(exclude_categories=["C", "Z"], include_characters=" <>&'\"{}%=?_\\,;:@"), min_size=1
    )
)
@settings(deadline=None)
def test_message_holds_any_name_as_it_is(templates: MessageTemplates, name: str) -> None:
    message = templates.render(PROFILE | {"full_name": name}, "ann@example.com", MESSAGE_ID, DATE)
    found = parsed(message)
    assert found["Subject"] == f"Hello {name}".strip()
    expected = reference(name)
    for subtype, body in zip(("plain", "html"), bodies(message), strict=True):
        part = expected.get_body((subtype,))
        assert part is not None
        assert body == part.get_content().replace("\r\n", "\n")
    assert message.content.isascii()
    assert message.content.endswith(b"\r\n")
    assert not re.search(rb"[^\r]\n|\r[^\n]", message.content)
    assert max(map(len, message.content.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    "name", ["{{ 7*7 }}", "<script>x</script>", "=?utf-8?q?x?=", "--=_lifecycle--", "Zo\u00eb"]
)
def test_message_takes_a_name_for_nothing_but_a_name(include: IncludeFolder, name: str) -> None:
    message = render(include, {"full_name": name})
    assert parsed(message)["Subject"] == f"Hello {name}"
    assert bodies(message)[0].startswith(f"Hello {name},")
    assert "<script>" not in bodies(message)[1]
    assert "49" not in message.content.decode()


@pytest.mark.parametrize(
    "name", ["Ann\r\nBcc: bob@example.com", "Ann\nLee", "Ann\x00", "Ann\u2028Lee", "Ann\tLee"]
)
def test_message_with_a_control_character_in_a_header_is_not_rendered(
    include: IncludeFolder, name: str
) -> None:
    with pytest.raises(RenderFailed) as error:
        render(include, {"full_name": name})
    assert str(error.value) == (
        "include/templates/welcome/subject.txt.j2 gives a subject that holds a line break or another control character"
    )


def test_message_body_keeps_line_breaks_in_a_name_out_of_its_structure(include: IncludeFolder) -> None:
    include.write("templates/welcome/subject.txt.j2", "Hello\n")
    name = "Ann\r\n\r\n--=_lifecycle\r\nContent-Type: text/html\r\n\r\n<b>.\r\n.\r\n"
    message = render(include, {"full_name": name})
    assert parsed(message)["Subject"] == "Hello"
    assert bodies(message)[0] == f"Hello {name},\nyour id is 42.\n".replace("\r\n", "\n")


@pytest.mark.parametrize("subject", ["", "   \n", "{{ '' }}", "{# nothing #}"])
def test_message_with_an_empty_subject_is_not_rendered(include: IncludeFolder, subject: str) -> None:
    include.write("templates/welcome/subject.txt.j2", subject)
    with pytest.raises(RenderFailed, match=r"subject.txt.j2 gives this user an empty subject"):
        render(include)


def test_message_with_a_missing_variable_is_not_rendered(include: IncludeFolder) -> None:
    include.write("templates/welcome/body.html.j2", "<p>\n{{ nickname }}</p>")
    with pytest.raises(RenderFailed, match=r"body.html.j2, line 2: `nickname` is not defined"):
        render(include)


@pytest.mark.parametrize(
    ("address", "user_id"),
    [
        ("https://example.com/{{ user_id }}", "a b"),
        ("https://example.com/{{ user_id }}", "a>, <mailto:b@example.com"),
        ("https://example.com/{{ user_id }}", "a\r\nBcc: b"),
        ("https://example.com/{{ user_id }}", "\u00e9"),
        ("https://example.com/{{ user_id }}", "x" * 900),
        ("{{ user_id }}", "javascript:alert(1)"),
        ("{{ user_id }}", "http://example.com"),
        ("{{ user_id }}", ""),
    ],
)
def test_message_with_an_unusable_unsubscribe_address_is_not_rendered(
    include: IncludeFolder, address: str, user_id: str
) -> None:
    with pytest.raises(RenderFailed) as error:
        render(include, {"user_id": user_id}, list_unsubscribe=address)
    assert str(error.value).startswith(
        "include/campaigns/welcome.yaml, list_unsubscribe gives no single mailto:"
    )


def test_message_shows_the_unsubscribe_address_to_its_templates(include: IncludeFolder) -> None:
    include.write("templates/welcome/body.txt.j2", "{{ list_unsubscribe or 'none' }}")
    assert bodies(render(include, list_unsubscribe=UNSUBSCRIBE))[0] == "https://example.com/u/42\n"
    assert bodies(render(include))[0] == "none\n"


def test_message_to_an_international_address_needs_smtputf8(include: IncludeFolder) -> None:
    message = render(include, recipient="zo\u00eb@example.com")
    assert message.needs_smtputf8
    assert "To: zo\u00eb@example.com\r\n" in message.content.decode()
    assert not render(include, recipient="zoe@xn--bcher-kva.example").needs_smtputf8


@pytest.mark.parametrize("recipient", ["ann@example.com\r\nBcc: bob@example.com", "a b@example.com"])
def test_message_to_what_is_no_address_is_not_rendered(include: IncludeFolder, recipient: str) -> None:
    with pytest.raises(RenderFailed, match="the recipient or Message-ID holds a space, a line break"):
        render(include, recipient=recipient)


def test_message_from_an_international_sender_is_encoded(include: IncludeFolder) -> None:
    message = render(include, sender='"Zo\u00eb, B\u00fccher & Co" <hello@b\u00fccher.example>')
    assert message.sender == "hello@xn--bcher-kva.example"
    (mailbox,) = parsed(message)["From"].addresses
    assert mailbox.display_name == "Zo\u00eb, B\u00fccher & Co"
    assert message.content.isascii()


def test_message_repeats_no_value_when_shown() -> None:
    message = RenderedMessage("hello@example.com", "ann@example.com", b"Hello Ann", needs_smtputf8=False)
    assert "Ann" not in repr(message)


def test_templates_that_do_not_compile_say_where(include: IncludeFolder) -> None:
    include.write("templates/welcome/body.txt.j2", "Hello\n{{ full_name")
    with pytest.raises(ConfigurationError, match=r"^include/templates/welcome/body.txt.j2, line 2: "):
        MessageTemplates.load(include.path, make_campaign())


def test_templates_check_their_variables_against_the_audience(include: IncludeFolder) -> None:
    include.write(
        "templates/welcome/body.txt.j2", "{{ city }} {{ nickname | default('') }} {{ list_unsubscribe }}"
    )
    templates = MessageTemplates.load(include.path, make_campaign(list_unsubscribe=UNSUBSCRIBE))
    templates.check_variables(("user_id", "email", "full_name", "city"))
    with pytest.raises(
        ConfigurationError, match=r"^the audience does not return `city`, needed by include/templates/welc"
    ):
        templates.check_variables(("user_id", "email", "full_name"))


def test_templates_version_changes_with_all_that_shapes_a_mail(include: IncludeFolder) -> None:
    def version(**campaign: Any) -> str:
        return MessageTemplates.load(include.path, make_campaign(**campaign)).version

    versions = [version()]
    assert version(schedule="0 7 * * *", description="x") == versions[0]
    versions.append(version(sender="Other <hello@example.com>"))
    versions.append(version(reply_to="help@example.com"))
    versions.append(version(feedback_id="a:b"))
    versions.append(version(list_unsubscribe=UNSUBSCRIBE))
    for name in ("subject.txt.j2", "body.txt.j2", "body.html.j2"):
        include.write(f"templates/welcome/{name}", "Hello again")
        versions.append(version())
    include.write("templates/footer.j2", "one")
    include.write("templates/welcome/body.txt.j2", "{% include 'footer.j2' %}")
    versions.append(version())
    include.write("templates/footer.j2", "two")
    versions.append(version())
    assert len(set(versions)) == len(versions)
    assert all(re.fullmatch(r"[0-9a-f]{12}", found) for found in versions)


EXAMPLE = {"locale": "en", "created_at": datetime(2026, 5, 1, 12, tzinfo=UTC)} | PROFILE


@pytest.mark.parametrize("campaign_id", campaign_ids(INCLUDE))
def test_example_mail_is_complete(campaign_id: str) -> None:
    templates = MessageTemplates.load(INCLUDE, load_campaign(INCLUDE, campaign_id))
    templates.check_variables(EXAMPLE)
    text, html = bodies(templates.render(EXAMPLE, "ann@example.com", MESSAGE_ID, DATE))
    for shown in (text, re.sub(r"<[^>]+>", "", html)):
        assert "Hello Ann Lee," in shown
        assert f"Reference: {campaign_id}/42" in shown.splitlines()
        assert "{{" not in shown
        assert "{%" not in shown
    unsubscribe = f"mailto:unsubscribe@example.com?subject={campaign_id}%2042"
    assert f"Unsubscribe: {unsubscribe}\n" in text
    assert f'href="{unsubscribe}"' in html
    assert 4500 < len(html) < 7000
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("campaign_id", campaign_ids(INCLUDE))
def test_example_mail_is_accessible_html(campaign_id: str) -> None:
    templates = MessageTemplates.load(INCLUDE, load_campaign(INCLUDE, campaign_id))
    html = bodies(templates.render(EXAMPLE, "ann@example.com", MESSAGE_ID, DATE))[1]
    assert html.startswith('<!doctype html>\n<html lang="en" dir="ltr">')
    assert re.search(r"<title>[^<]+</title>", html)
    assert html.count("<h1") == 1
    assert all('role="presentation"' in table for table in re.findall(r"<table[^>]*>", html))
    assert all('style="' in paragraph for paragraph in re.findall(r"<(?:p|h1|h2|a|li)\b[^>]*>", html))
    assert "<img" not in html
    for tag in (
        "html",
        "head",
        "body",
        "table",
        "tr",
        "td",
        "p",
        "a",
        "h1",
        "h2",
        "ul",
        "li",
        "div",
        "style",
    ):
        assert len(re.findall(rf"<{tag}\b", html)) == html.count(f"</{tag}>"), tag


def test_test_mail_is_marked_and_offers_no_unsubscribing_to_the_tester(include: IncludeFolder) -> None:
    templates = MessageTemplates.load(include.path, make_campaign(list_unsubscribe=UNSUBSCRIBE))
    found = parsed(templates.render(PROFILE, "tester@example.com", MESSAGE_ID, DATE, test_mark="[test] "))
    assert found["Subject"] == "[test] Hello Ann Lee"
    assert "List-Unsubscribe" not in found
    assert "List-Unsubscribe-Post" not in found
