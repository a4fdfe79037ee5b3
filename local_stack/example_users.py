"""Made-up users, the same for the same seed and day: international, and some of them awkward on purpose.

Every address is at example.com, example.org, example.net or below: nobody real could ever be written to.
"""

import json
import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path

FIRST_DAY = date(2020, 1, 1)
IDS_PER_DAY = 10_000
SHARE_SETUP_OPEN = 0.10
SHARE_OPTED_OUT = 0.02
WEEKDAY_WEIGHTS = (1.1, 1.15, 1.15, 1.1, 1.0, 0.75, 0.75)
DOMAINS = ("example.com", "example.org", "example.net", "mail.example.com", "students.example.org")

_CULTURES = json.loads(Path(__file__).with_name("example_names.json").read_text(encoding="utf-8"))
_CULTURE_WEIGHTS = list(accumulate(culture["share"] for culture in _CULTURES))
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class User:
    """One row of the users table."""

    user_id: int
    email: str | None
    full_name: str
    locale: str
    timezone: str
    created_at: datetime
    setup_done: bool
    email_opt_out: bool


def users_of_day(day: date, count: int, seed: int) -> list[User]:
    """Make up the users created on a UTC day, in order of creation; about `count`, fewer on weekends.

    One is created at the day's first microsecond and one at its last. Where there is room, one in twenty or
    more is awkward (see ODDITIES), so that every cohort shows how such users are treated.
    """
    chance = random.Random(f"{seed} {day}")  # noqa: S311  (made-up data, not a secret)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    size = max(3, min(round(count * WEEKDAY_WEIGHTS[day.weekday()]), IDS_PER_DAY - 1))
    inside = sorted(midnight + _DAY * _time_of_day(chance) for _ in range(size - 2))
    times = [midnight, *inside, midnight + _DAY - timedelta(microseconds=1)]
    first_id = (day - FIRST_DAY).days * IDS_PER_DAY + 1
    users = [_user(chance, first_id + n, created_at) for n, created_at in enumerate(times)]
    turn = day.toordinal() % len(ODDITIES)
    awkward = (*ODDITIES[turn:], *ODDITIES[:turn])[: size // 20]
    for oddity, place in zip(awkward, chance.sample(range(1, size - 1), k=len(awkward)), strict=True):
        # Neither opted out nor half set up: whatever becomes of this user comes from the oddity.
        users[place] = replace(oddity(users[place], users), setup_done=True, email_opt_out=False)
    return users


def _time_of_day(chance: random.Random) -> float:
    """Share of the day that has passed: most people sign up around the afternoon."""
    return min(chance.triangular(0, 1, 0.6), 0.999999)


def _user(chance: random.Random, user_id: int, created_at: datetime) -> User:
    culture = chance.choices(_CULTURES, cum_weights=_CULTURE_WEIGHTS)[0]
    given, family = chance.choice(culture["given"]), chance.choice(culture["family"])
    in_order = (family, given) if culture.get("family_first") else (given, family)
    return User(
        user_id=user_id,
        email=f"{_local_part(given, family)}{user_id}@{chance.choice(DOMAINS)}",
        full_name=" ".join(in_order),
        locale=culture["locale"],
        timezone=chance.choice(culture["timezones"]),
        created_at=created_at,
        setup_done=chance.random() >= SHARE_SETUP_OPEN,
        email_opt_out=chance.random() < SHARE_OPTED_OUT,
    )


def _local_part(given: str, family: str) -> str:
    plain = unicodedata.normalize("NFKD", f"{given}.{family}.".lower())
    letters = "".join(c for c in plain if c.isascii() and (c.isalpha() or c == "."))
    return letters.lstrip(".").replace("..", ".") or "user."


Oddity = Callable[[User, list[User]], User]


def _named(name: str) -> Oddity:
    return lambda user, _day: replace(user, full_name=name)


def _addressed(address: str | None) -> Oddity:
    """Give an address; {id} in it becomes the user's id."""
    return lambda user, _day: replace(
        user, email=None if address is None else address.replace("{id}", str(user.user_id))
    )


def _sharing(user: User, day: list[User]) -> User:
    """Give the address of the day's first user, as a couple or a family does."""
    return replace(user, email=day[0].email)


NAMES = (
    "<script>alert('hello')</script> & Sons",
    "<b>Bold</b> <img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% for x in y %}",
    "${name} %(name)s {0} %s",
    "Eve\r\nBcc: everybody@example.com",
    "Bell \x07 Escape \x1b[31m Tab\there",
    "Reader\nReference: another_campaign/1",
    "Łukasz 🎉 👩‍👩‍👧‍👦",
    "Right \u202eot tfel\u202c",
    "e\u0301 composed later",
    "Robert'); DROP TABLE users;--",
    '“Quoted”, "Comma, Inc." <ceo@example.com>',
    "Wolfeschlegelsteinhausenbergerdorff " * 8,
    "",
)
"""Names to be mailed literally, or held one by one; never to break a mail or anybody else's."""

UNUSUAL_ADDRESSES = ("zoë{id}@example.com", "ann{id}@bücher.example.com", "o'hara+news{id}@example.org")
"""Valid addresses that careless code refuses or mangles."""

BROKEN_ADDRESSES = (
    None,
    "",
    "nobody{id}.example.com",
    "two@@example.com",
    "space in{id}@example.com",
    "first{id}@example.com, second{id}@example.com",
    "first{id}@example.com;second{id}@example.com",
    "Name <named{id}@example.com>",
    "line{id}@example.com\r\nBcc: everybody@example.com",
    "x" * 65 + "{id}@example.com",
    "@example.com",
    "dangling{id}@",
)
"""Addresses nobody can be written to: the user is held, and the rest of the batch goes on."""

ODDITIES: tuple[Oddity, ...] = (
    *map(_named, NAMES),
    *map(_addressed, UNUSUAL_ADDRESSES),
    *map(_addressed, BROKEN_ADDRESSES),
    _sharing,
)


def newest_users(now: datetime, count: int, seed: int) -> list[User]:
    """Make up the `count` newest users as of `now`, oldest first; they spread over about thirty days."""
    per_day = max(1, round(count / 29.4))
    found: list[User] = []
    for day in _days_back(now.astimezone(UTC).date()):
        found[:0] = [user for user in users_of_day(day, per_day, seed) if user.created_at <= now]
        if len(found) >= count:
            return found[-count:]
    raise AssertionError("days never end")


def _days_back(day: date) -> Iterator[date]:
    while True:
        yield day
        day -= _DAY
