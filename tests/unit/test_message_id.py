"""One Message-ID per send, whatever the attempt, different from every other's."""

from uuid import UUID

from lifecycle_emails.message_id import message_id, message_key

NAMESPACE = UUID("00000000-0000-4000-8000-000000000001")


def test_message_id_is_the_key_at_the_senders_domain() -> None:
    key = message_key(NAMESPACE, "day4_follow_up", "42")
    assert message_id(NAMESPACE, "day4_follow_up", "42", "example.com") == f"<{key}@example.com>"


def test_message_key_differs_by_ledger_campaign_and_user() -> None:
    other = UUID("00000000-0000-4000-8000-000000000002")
    keys = {
        message_key(namespace, campaign, user)
        for namespace in (NAMESPACE, other)
        for campaign in ("a", "b")
        for user in ("1", "2")
    }
    assert len(keys) == 8
    assert message_key(NAMESPACE, "a", "1") in keys
