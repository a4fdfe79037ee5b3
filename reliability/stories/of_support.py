"""Stories of whoever answers users: two mails, no mail, and a user who wants to be forgotten."""

from __future__ import annotations

from reliability.fault_bench.airflow_campaign import airflow_campaign
from reliability.fault_bench.airflow_endings import must_be
from reliability.fault_bench.airflow_stack import airflow_stack
from reliability.fault_bench.fault import Setting
from reliability.stories.story import Person, Story, Told, one_copy_each, says
from tests.smtp_script import Reply


def two_mails(setting: Setting) -> Told:
    """Somebody with two accounts and one address complains. `why` shows one send for each, and its traces."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        person = Person(campaign)
        users = campaign.add_users(6)
        first, second = users[:2]
        with campaign.source() as source:
            source.execute(
                "UPDATE users SET email = 'twice@example.com' WHERE user_id = ANY (%s)",
                [[int(first), int(second)]],
            )
        campaign.add_dag()
        problems = must_be(campaign, campaign.scheduled(), "success", "all is well")
        for user in (first, second):
            (mail,) = [mail for mail in campaign.server.accepted if mail.reference == (campaign.id, user)]
            said = person.lifecycle("why", user)
            problems += says(said, campaign.id, "sent", mail.queue_id, _message_key(mail.content))
        by_address = person.lifecycle("why", "--address", "twice@example.com")
        problems += says(
            by_address,
            *(
                _message_key(mail.content)
                for mail in campaign.server.accepted
                if mail.recipients == ("twice@example.com",)
            ),
        )
        return Told(problems + person.problems + one_copy_each(campaign, users))


def no_mail(setting: Setting) -> Told:
    """Suppressed, without an address, refused by the server: `why` says so, and `release` helps one."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        person = Person(campaign)
        suppressed, unreachable, refused, *others = campaign.add_users(30)
        person.lifecycle("suppress", "--user", suppressed, "--reason", "unsubscribed")
        with campaign.source() as source:
            source.execute("UPDATE users SET email = 'nobody' WHERE user_id = %s", [int(unreachable)])
        campaign.server.on(
            "rcpt", Reply(550, "5.1.1 no such user"), when=lambda line: f"<user{refused}@" in line, times=1
        )
        campaign.add_dag()
        run = campaign.scheduled()
        problems = must_be(campaign, run, "success", "everybody has a state with a reason")
        problems += one_copy_each(campaign, others)
        problems += says(person.lifecycle("why", suppressed), "suppressed", "unsubscribed")
        problems += says(person.lifecycle("why", unreachable), "invalid_address")
        problems += says(person.lifecycle("why", refused), "rejected", "5.1.1 no such user")
        person.lifecycle("why", "no_such_user", refused=True)
        reason = "the address works again"
        person.lifecycle("release", campaign.id, "--user", refused, "--reason", reason)
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "the released one is judged again, and mailed")
        problems += says(person.lifecycle("why", refused), reason)
        return Told(problems + person.problems + one_copy_each(campaign, [refused, *others]))


def erase(setting: Setting) -> Told:
    """A user is erased in the source and comes back under another id: the address gets nothing."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        person = Person(campaign)
        erased, *others = campaign.add_users(5)
        campaign.add_dag()
        run = campaign.scheduled()
        problems = must_be(campaign, run, "success", "all is well")
        address = f"user{erased}@example.com"
        person.lifecycle("suppress", "--address", address, "--reason", "erased on request")
        with campaign.source() as source:
            source.execute("DELETE FROM users WHERE user_id = %s", [int(erased)])
        (again,) = campaign.add_users(1)
        with campaign.source() as source:
            source.execute("UPDATE users SET email = %s WHERE user_id = %s", [address, int(again)])
        campaign.api.clear(run)
        problems += must_be(campaign, run, "success", "the address is suppressed")
        if campaign.states()[again] != "held/suppressed" or campaign.copies()[again]:
            problems.append(f"under the new id the user is {campaign.states()[again]}")
        problems += says(person.lifecycle("why", erased), "sent")
        with campaign.ledger() as ledger:
            found = ledger.execute(
                "SELECT count(*) FROM lifecycle.sends AS s WHERE s::text LIKE '%%@example.com%%'"
            )
            if found.fetchone() != (0,):
                problems.append("the ledger's rows hold an address")
        return Told(problems + person.problems + one_copy_each(campaign, [erased, *others]))


def _message_key(content: bytes) -> str:
    """The part of the Message-ID before the @, by which logs are searched."""
    head = content.partition(b"\r\n\r\n")[0].decode()
    return next(
        line.partition(": <")[2].partition("@")[0]
        for line in head.splitlines()
        if line.startswith("Message-ID:")
    )


STORIES = (
    Story("a user complains of two mails", two_mails, "two-mails"),
    Story("a user got none", no_mail, "no-mail"),
    Story("a user is erased", erase, "erase"),
)
