"""The Message-ID of a send: the same over all its attempts, and unguessable outside the ledger.

RFC 5322 section 3.6.4. It ties the provider's logs, bounces and copies to the row. Must not know databases.
"""

from __future__ import annotations

from uuid import UUID, uuid5


def message_key(namespace: UUID, campaign_id: str, user_id: str) -> UUID:
    """The part before the @; ``namespace`` is the ledger's own. Unique, so logs are searched by it alone."""
    return uuid5(namespace, f"{campaign_id}/{user_id}/once")


def message_id(namespace: UUID, campaign_id: str, user_id: str, domain: str) -> str:
    """The whole identifier with its angle brackets; ``domain`` in A-labels."""
    return f"<{message_key(namespace, campaign_id, user_id)}@{domain}>"
