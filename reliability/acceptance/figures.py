"""What a whole day on Celery counted, and which promises these figures break."""

from collections.abc import Mapping
from dataclasses import dataclass

SUPPRESSED_OF_HUNDRED = 1
WITHOUT_ADDRESS_OF_HUNDRED = 1
OPEN_STATES = ("planned", "ready", "sending")


@dataclass(frozen=True)
class Figures:
    """`states` are the ledger's, held ones by their reason; `copies` the catcher's, by user id.

    `sent_by_worker` counts the send tasks that each Celery worker set out to run.
    """

    users: int
    states: Mapping[str, int]
    copies: Mapping[str, int]
    sent_by_worker: Mapping[str, int]
    run_state: str
    seconds: float = 0.0

    @property
    def sent(self) -> int:
        """Users whose mail was accepted, by the ledger."""
        return self.states.get("sent", 0)

    @property
    def max_copies(self) -> int:
        """The most copies that one user got, by the catcher."""
        return max(self.copies.values(), default=0)

    def as_json(self) -> dict[str, int | float | str]:
        """Give the figures of the last line."""
        held = {name: count for name, count in self.states.items() if name.startswith("held")}
        return {
            "users": self.users,
            "sent": self.sent,
            "held": sum(held.values()),
            "rejected": self.states.get("rejected", 0),
            "in_doubt": self.states.get("in_doubt", 0),
            "caught": sum(self.copies.values()),
            "max_copies": self.max_copies,
            "workers": len([worker for worker, tasks in self.sent_by_worker.items() if tasks]),
            "run": self.run_state,
            "seconds": self.seconds,
        }

    def broken_promises(self) -> list[str]:
        """Say which promises these figures break; none when all is well."""
        hundreds = self.users // 100
        promises = {
            f"the run is a success (it is {self.run_state})": self.run_state == "success",
            f"the states of all {self.users} users are known": sum(self.states.values()) == self.users,
            "nobody is left open": not any(self.states.get(state) for state in OPEN_STATES),
            "who cannot be written to is held": self.states.get("held: invalid_address")
            == WITHOUT_ADDRESS_OF_HUNDRED * hundreds,
            "who is suppressed is held": self.states.get("held: suppressed")
            == SUPPRESSED_OF_HUNDRED * hundreds,
            "everybody else is sent the mail": self.sent
            == self.users - (WITHOUT_ADDRESS_OF_HUNDRED + SUPPRESSED_OF_HUNDRED) * hundreds,
            f"the catcher's count equals the ledger's ({len(self.copies)}, {self.sent})": len(self.copies)
            == self.sent,
            "nobody got a second copy": self.max_copies == 1,
            f"every worker sends {dict(self.sent_by_worker)}": len(self.sent_by_worker) >= 2
            and all(self.sent_by_worker.values()),
        }
        return [promise for promise, kept in promises.items() if not kept]

    def table(self) -> str:
        """Show users by state, copies, and tasks by worker."""
        rows = {
            "users": self.users,
            **dict(sorted(self.states.items())),
            "mails at the catcher": sum(self.copies.values()),
            "most copies to one user": self.max_copies,
            **{f"send tasks of {worker}": tasks for worker, tasks in self.sent_by_worker.items()},
        }
        width = max(map(len, rows))
        return "\n".join(f"{name.ljust(width)}  {count:>6,}" for name, count in rows.items())
