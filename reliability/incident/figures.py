"""What the replay counted, which promises these figures break, and the two ways side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

from reliability.incident.new_way import CONNECTIONS, NewWay
from reliability.incident.old_way import OldWay


@dataclass(frozen=True)
class Figures:
    """Copies by user id, counted at the SMTP catchers; `in_doubt` and `unfinished` are the ledger's word."""

    users: int
    old: Mapping[str, int]
    new: Mapping[str, int]
    old_redelivered: int
    new_redelivered: int
    refused_by_airflow: int
    send_tasks_started: int
    tasks_killed: int
    tasks_cleared: int
    in_doubt: int
    unfinished: int
    run_state: str
    seconds: float = 0.0

    @classmethod
    def of(cls, users: int, old: OldWay, new: NewWay) -> "Figures":
        """Take the figures out of what came of both ways."""
        return cls(
            users=users,
            old=old.copies,
            new=new.copies,
            old_redelivered=old.deliveries.redelivered,
            new_redelivered=new.deliveries.redelivered,
            refused_by_airflow=new.deliveries.refused,
            send_tasks_started=new.deliveries.started["send_batch"],
            tasks_killed=new.tasks_killed,
            tasks_cleared=new.tasks_cleared,
            in_doubt=new.states.get("in_doubt", 0),
            run_state=new.run_state,
            unfinished=users - new.states.get("sent", 0) - new.states.get("in_doubt", 0),
        )

    @property
    def legacy_max_copies(self) -> int:
        """The most copies that one user got the old way."""
        return max(self.old.values(), default=0)

    @property
    def pipeline_max_copies(self) -> int:
        """The most copies that one user got from this package."""
        return max(self.new.values(), default=0)

    def as_json(self) -> dict[str, int | float]:
        """Give the figures of the last line."""
        names = ("legacy_max_copies", "pipeline_max_copies", "users", "in_doubt", "seconds")
        return {name: getattr(self, name) for name in names}

    def broken_promises(self) -> list[str]:
        """Say which promises these figures break; none when all is well."""
        bound = CONNECTIONS * (self.tasks_killed + self.tasks_cleared)
        promises = {
            "the old way sends copies": self.legacy_max_copies > 1,
            "this package sends nobody a second copy": self.pipeline_max_copies == 1,
            "this package sends everybody the mail": len(self.new) == self.users,
            "every user is sent or in doubt in the ledger": self.unfinished == 0,
            f"at most {bound} users are in doubt, as many as the ended tasks had connections": self.in_doubt
            <= bound,
            "the broker redelivered to the old way": self.old_redelivered > 0,
            "the broker redelivered to Airflow": self.new_redelivered > 0,
            "a worker was killed in mid-send": self.tasks_killed > 0,
            f"the run, a {self.run_state}, is red exactly when somebody is in doubt": self.run_state
            == ("failed" if self.in_doubt else "success"),
        }
        return [promise for promise, kept in promises.items() if not kept]

    def table(self) -> str:
        """Show the two ways side by side."""
        rows = [
            ("", "scheduled Celery task", "this package on CeleryExecutor"),
            ("users", self.users, self.users),
            ("mails that the server accepted", sum(self.old.values()), sum(self.new.values())),
            ("most copies to one user", self.legacy_max_copies, self.pipeline_max_copies),
            ("fewest copies to one user", _fewest(self.old, self.users), _fewest(self.new, self.users)),
            ("tasks the broker delivered again", self.old_redelivered, self.new_redelivered),
            ("refused by Airflow: known to be running", "-", self.refused_by_airflow),
            ("send tasks a worker set out to run", "-", self.send_tasks_started),
            ("tasks killed (-9) in mid-send", "-", self.tasks_killed),
            ("tasks cleared while they ran", "-", self.tasks_cleared),
            ("users in doubt, for a person to settle", "-", self.in_doubt),
            ("the run, red while somebody is in doubt", "-", self.run_state),
        ]
        widths = [max(len(str(row[at])) for row in rows) for at in range(3)]
        return "\n".join(
            "  ".join([str(row[0]).ljust(widths[0]), *(str(row[at]).rjust(widths[at]) for at in (1, 2))])
            for row in rows
        )


def _fewest(copies: Mapping[str, int], users: int) -> int:
    return min(copies.values(), default=0) if len(copies) == users else 0
