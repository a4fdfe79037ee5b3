"""Patched copies of the package: the sender without one of its parts, to see what that part costs.

The package has no switches for this. Each patch names the text that it replaces; a text that does not stand
exactly once in the package is an error, so that no variant is measured that is none.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lifecycle_emails

PACKAGE = Path(lifecycle_emails.__file__).parent


@dataclass(frozen=True)
class Replacement:
    """One text of a file, by path in the package, and what stands there in the copy."""

    file: str
    old: str
    new: str

    def apply(self, package: Path) -> None:
        """Change the copy. Raises RuntimeError where the text does not stand exactly once."""
        file = package / self.file
        text = file.read_text()
        if text.count(self.old) != 1:
            raise RuntimeError(
                f"{self.file} holds {text.count(self.old)} times what a variant of the sender replaces; "
                f"bring bench/variants.py in step with it: {self.old.strip().splitlines()[0]}"
            )
        file.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Variant:
    """The sender with some texts replaced.

    ``unguarded``: it goes past the ledger's rules, whose triggers are therefore off in its database.
    """

    replacements: tuple[Replacement, ...]
    unguarded: bool = False

    def copy(self, folder: Path) -> Path:
        """Copy the package into ``folder``, patched; returns the folder to import it from."""
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        for replacement in self.replacements:
            replacement.apply(folder / PACKAGE.name)
        return folder


# Everybody passes, and nothing is written; the outcome then finds its row still ready.
_WITHOUT_UPDATE = (
    Replacement(
        "sql/queries/pass_gate.sql",
        "    FROM judged AS j\n    WHERE s.ctid = j.row_at AND s.state = 'ready'"
        " AND (j.hold IS NOT NULL OR j.held_back IS NOT TRUE)\n",
        "    FROM judged AS j\n    WHERE false AND s.ctid = j.row_at\n",
    ),
    Replacement("sql/queries/pass_gate.sql", "        ELSE 'lost'\n", "        ELSE 'passed'\n"),
    Replacement(
        "sql/queries/record_outcomes.sql",
        "      WHEN o.attempt IS NULL THEN s.state = 'ready'\n"
        "      -- also where a person gave it up and had it sent again: that is not needed any more\n"
        "      WHEN o.verdict = 'sent' THEN s.attempt = o.attempt AND s.state NOT IN ('sent', 'rejected')\n"
        "      ELSE s.attempt = o.attempt AND s.state IN ('sending', 'in_doubt')\n"
        "           AND NOT (s.state = 'in_doubt' AND o.verdict = 'in_doubt')\n",
        "      WHEN true THEN s.state = 'ready'\n",
    ),
    Replacement(
        "sql/queries/record_outcomes.sql",
        "    queue_id = coalesce(o.queue_id, s.queue_id),\n",
        "    queue_id = coalesce(o.queue_id, s.queue_id),\n    attempt = o.attempt,\n",
    ),
)

_GATE = "ledger/gate.py"

_ONE_BY_ONE = (
    Replacement(
        _GATE,
        "                questions, records = self._questions, self._records\n"
        "                self._questions, self._records = [], []\n",
        "                questions, records = self._questions[:1], self._records[:1]\n"
        "                self._questions, self._records = self._questions[1:], self._records[1:]\n",
    ),
    Replacement(
        _GATE,
        "                if self.gather_seconds and not self._closing:\n",
        "                if False and self.gather_seconds:\n",
    ),
)

_BY_STANDARD_LIBRARY = (
    Replacement(
        "message.py",
        "            content=self.skeleton.fill([*headers, subject], text, html),\n",
        "            content=_by_standard_library([*_common, *headers, subject], text, html),\n",
    ),
    Replacement(
        "message.py",
        "        headers = _common_headers(campaign)\n",
        "        headers = _common_headers(campaign)\n        _common[:] = headers\n",
    ),
    Replacement(
        "message.py",
        "@lru_cache(maxsize=1)\ndef _date_line(",
        """\
_common: list[bytes] = []


def _by_standard_library(headers, text, html):
    from email import message_from_bytes, policy
    from email.message import EmailMessage

    mail = EmailMessage(policy=policy.SMTP)
    for name, value in message_from_bytes(b"".join(headers)).items():
        mail[name] = value.replace("\\r\\n", "")
    mail.set_content(text)
    mail.add_alternative(html, subtype="html")
    return mail.as_bytes()


@lru_cache(maxsize=1)
def _date_line(""",
    ),
)

# As fast as rendering could ever be made: one mail is rendered, and everybody gets its octets.
_RENDERS_ONCE = (
    Replacement(
        "delivery/mails.py",
        "            message = tools.templates.render(profile, recipient, name, datetime.now(UTC))\n",
        "            message = _rendered_once(tools.templates, profile, recipient, name)\n",
    ),
    Replacement(
        "delivery/mails.py",
        "_Profile = tuple[str, dict[str, Any] | None]\n",
        """\
_Profile = tuple[str, dict[str, Any] | None]
_once = []


def _rendered_once(templates, profile, recipient, name):
    from dataclasses import replace

    if not _once:
        _once.append(templates.render(profile, recipient, name, datetime.now(UTC)))
    return replace(_once[0], recipient=recipient)
""",
    ),
)

WITHOUT_UPDATE = "sender without the gate's UPDATE"
NEVER_WAITS = "sender that never waits at the gate"
ONE_BY_ONE = "sender without group commit"
BY_STANDARD_LIBRARY = "sender with the standard library's messages"
RENDERS_ONCE = "sender that renders one mail for everybody"

VARIANTS: Mapping[str, Variant] = {
    WITHOUT_UPDATE: Variant(_WITHOUT_UPDATE, unguarded=True),
    NEVER_WAITS: Variant(
        (
            *_WITHOUT_UPDATE,
            Replacement(
                _GATE,
                "        question = _Question(",
                "        return Passage.PASSED\n        question = _Question(",
            ),
        ),
        unguarded=True,
    ),
    ONE_BY_ONE: Variant(_ONE_BY_ONE),
    BY_STANDARD_LIBRARY: Variant(_BY_STANDARD_LIBRARY),
    RENDERS_ONCE: Variant(_RENDERS_ONCE),
}
"""The variants, by the name under which they stand in the table."""
