"""How to reach one SMTP server. It must not know where the values come from."""

import functools
import ssl
from dataclasses import dataclass, field
from typing import Literal

from lifecycle_emails.delivery.reply import Verdict
from lifecycle_emails.errors import DeliveryError


@dataclass(frozen=True)
class SmtpSettings:
    """Address, login and time limits (seconds) of one SMTP server.

    `security` is `starttls` (the server must offer it), `tls` (from the first byte) or `none`. A login
    without TLS is refused unless `auth_without_tls` is set: only for a server on the same machine.

    `connect_timeout` is for each of connecting, TLS and greeting; `command_timeout` for each command and for
    the body; `dot_timeout` for the answer to the dot: RFC 5321 section 4.5.3.2.6 wants ten minutes, for a
    server that answers late has often accepted.

    `ambiguous_after_dot` is the verdict on a bare 421 and on x.4.x after the dot. `RETRY` is only for a
    server known never to accept what it answers so. `tls_context` replaces the default one, which checks
    certificate and host name against the system's roots.

    Raises DeliveryError where the settings contradict one another.
    """

    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    security: Literal["none", "starttls", "tls"] = "starttls"
    connect_timeout: float = 30.0
    command_timeout: float = 300.0
    dot_timeout: float = 600.0
    local_hostname: str | None = None
    auth_without_tls: bool = False
    ambiguous_after_dot: Verdict = Verdict.IN_DOUBT
    tls_context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        problem = self._contradiction()
        if problem:
            raise DeliveryError(f"SMTP settings for {self.host}:{self.port}: {problem}")

    def trust(self) -> ssl.SSLContext:
        """Give the context that decides which certificates are believed."""
        return self.tls_context or _system_trust()

    def _contradiction(self) -> str | None:
        if self.security not in ("none", "starttls", "tls"):
            return f"security is {self.security!r}; write 'starttls', 'tls' or 'none'"
        if (self.username is None) != (self.password is None):
            return "a login needs both a user name and a password; set both or neither"
        if self.username is not None and self.security == "none" and not self.auth_without_tls:
            return (
                "the password would cross the network in clear; set security to 'starttls' or 'tls', "
                "or auth_without_tls for a server on this machine"
            )
        if self.ambiguous_after_dot not in (Verdict.IN_DOUBT, Verdict.RETRY):
            return f"ambiguous_after_dot is {self.ambiguous_after_dot}; write 'in_doubt' or 'retry'"
        if min(self.connect_timeout, self.command_timeout, self.dot_timeout) <= 0:
            return "connect_timeout, command_timeout and dot_timeout must be above 0 seconds"
        return None


@functools.cache
def _system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()
