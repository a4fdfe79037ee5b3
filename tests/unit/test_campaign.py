from pathlib import Path
from typing import Any

import pytest

from lifecycle_emails.campaign import VolumeBreaker, campaign_ids, load_campaign
from lifecycle_emails.errors import ConfigurationError
from tests.factories import INCLUDE, IncludeFolder, make_campaign


@pytest.fixture
def include(tmp_path: Path) -> IncludeFolder:
    return IncludeFolder(tmp_path)


def mistakes(include: IncludeFolder) -> str:
    """The error that loading the campaign ``welcome`` raises."""
    with pytest.raises(ConfigurationError) as error:
        load_campaign(include.path, "welcome")
    return str(error.value)


def test_campaign_defaults_are_the_documented_ones(include: IncludeFolder) -> None:
    campaign = load_campaign(include.path, "welcome")
    assert campaign == make_campaign(
        description="",
        template="welcome",
        reply_to=None,
        frequency_cap="default",
        on_cap="defer",
        max_lateness_days=3,
        volume={
            "factor": 3,
            "floor": 100,
            "without_history": 10_000,
            "freshness": None,
            "approvers": [],
            "approve_within_hours": 12,
        },
        batch_size=500,
        connections=8,
        list_unsubscribe=None,
        feedback_id=None,
        source_timezone="UTC",
        source_conn_id="lifecycle_source",
        smtp_conn_id="lifecycle_smtp",
        owner="lifecycle",
        tags=[],
    )
    assert (campaign.time_of_day.hour, campaign.time_of_day.minute) == (6, 0)


@pytest.mark.parametrize("campaign_id", campaign_ids(INCLUDE))
def test_campaign_examples_are_valid(campaign_id: str) -> None:
    assert load_campaign(INCLUDE, campaign_id).id == campaign_id


def test_campaign_examples_share_their_cohorts() -> None:
    assert campaign_ids(INCLUDE) == ("day4_follow_up", "day4_setup_help")
    assert {load_campaign(INCLUDE, name).offset_days for name in campaign_ids(INCLUDE)} == {4}


def test_campaign_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_campaign().offset_days = 5


def test_campaign_with_many_mistakes_says_each_with_its_line(include: IncludeFolder) -> None:
    include.write(
        "campaigns/welcome.yaml",
        "id: goodbye\n"
        "schedule: 0 6 * * 1\n"
        "timezone: Europe/Berln\n"
        "offset_days: 0\n"
        "audience: user.sql\n"
        "template: welcom\n"
        "sender: x\n"
        "frequency_cap: defalt\n"
        "max_lateness_day: 3\n",
    )
    assert (
        mistakes(include)
        == """\
include/campaigns/welcome.yaml has 10 mistakes:
  from: is missing. Write for example `from: The team <hello@example.com>`.
  line 1, id: differs from the file's name, welcome.yaml. Write `id: welcome`.
  line 2, schedule: does not fire once per calendar day. Write `M H * * *` in numbers, such as `0 6 * * *`.
  line 3, timezone: is not the name of a time zone. Did you mean `Europe/Berlin`?
  line 4, offset_days: should be greater than or equal to 1. Write for example `offset_days: 4`.
  line 5, audience: there is no file include/audiences/user.sql. Did you mean `users.sql`?
  line 6, template: there is no folder include/templates/welcom. Did you mean `welcome`?
  line 7, sender: is not a known field. Did you mean `from`?
  line 8, frequency_cap: is no rule set of include/frequency_caps.yaml. Did you mean `default`?
  line 9, max_lateness_day: is not a known field. Did you mean `max_lateness_days`?"""
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("id", "Welcome!", "is not a usable id"),
        ("schedule", "@daily", "does not fire once per calendar day"),
        ("schedule", "0 */6 * * *", "does not fire once per calendar day"),
        ("schedule", "0 6,18 * * *", "does not fire once per calendar day"),
        ("schedule", "0 6 1 * *", "does not fire once per calendar day"),
        ("schedule", "0 24 * * *", "does not fire once per calendar day"),
        ("schedule", "60 6 * * *", "does not fire once per calendar day"),
        ("schedule", "0 6 * * * *", "does not fire once per calendar day"),
        ("schedule", "\u0660 6 * * *", "does not fire once per calendar day"),
        ("timezone", "Mars/Olympus", "is not the name of a time zone"),
        ("timezone", "localtime", "is not the name of a time zone"),
        ("timezone", "../UTC", "is not the name of a time zone"),
        ("timezone", "", "is not the name of a time zone"),
        ("source_timezone", "Europe/Berln", "Did you mean `Europe/Berlin`?"),
        ("offset_days", 0, "should be greater than or equal to 1"),
        ("offset_days", "4", "should be a valid integer"),
        ("offset_days", True, "should be a valid integer"),
        ("max_lateness_days", 0, "should be greater than or equal to 1"),
        ("batch_size", 0, "should be greater than or equal to 1"),
        ("connections", 1000, "should be less than or equal to 256"),
        ("audience", "../users.sql", "is not a file name"),
        ("template", "/etc", "is not a file name"),
        ("on_cap", "skip", "should be 'defer' or 'drop'. Write for example `on_cap: defer`"),
        ("from", "The team", "must be one mailbox"),
        ("from", "a@example.com, b@example.com", "it is not exactly one mailbox"),
        ("from", "team: a@example.com;", "it is not exactly one mailbox"),
        ("from", "The team <hello@example.com> and more", "something stands beside the mailbox"),
        ("from", "The team <hello@localhost>", "no full domain name"),
        ("from", "The team <h\u00e9llo@example.com>", "not ASCII before the @"),
        ("from", "The team\r\nBcc: <b@example.com>", "control character"),
        ("reply_to", "nobody", "must be one mailbox"),
        ("list_unsubscribe", "http://example.com/u", "is neither a mailto: nor an https: address"),
        ("list_unsubscribe", "unsubscribe@example.com", "is neither a mailto: nor an https: address"),
        ("feedback_id", "two words", "must be ASCII without spaces"),
        ("smtp_conn_id", "", "is not the id of an Airflow connection"),
        ("tags", "growth", "should be a valid tuple. Write for example `tags: [growth]`"),
        ("owner", "", "should have at least 1 character"),
    ],
)
def test_campaign_field_with_a_mistake_says_what_is_wrong(
    include: IncludeFolder, field: str, value: Any, says: str
) -> None:
    include.write_campaign(**{field: value})
    error = mistakes(include)
    assert error.startswith("include/campaigns/welcome.yaml")
    assert f"{field}: " in error
    assert says in error


def test_campaign_mistake_repeats_no_address(include: IncludeFolder) -> None:
    include.write_campaign(
        **{"from": "Ann <ann@example.com> x", "reply_to": "bob@example.com, c@example.com"}
    )
    error = mistakes(include)
    assert "ann" not in error
    assert "bob" not in error


def test_campaign_without_file_names_the_nearest(include: IncludeFolder) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no file include/campaigns/welcom.yaml. Did you mean `welcome`"
    ):
        load_campaign(include.path, "welcom")


@pytest.mark.parametrize("campaign_id", ["../welcome", "", "Welcome", "a/b"])
def test_campaign_id_that_is_none_opens_no_file(include: IncludeFolder, campaign_id: str) -> None:
    with pytest.raises(ConfigurationError, match="is no campaign id"):
        load_campaign(include.path, campaign_id)


def test_campaign_file_that_is_no_yaml_says_the_line(include: IncludeFolder) -> None:
    include.write("campaigns/welcome.yaml", "id: welcome\ndescription: one: two\n")
    assert "line 2: this is not YAML (mapping values are not allowed here)" in mistakes(include)


@pytest.mark.parametrize("text", ["", "- id\n", "welcome", "\n# nothing\n"])
def test_campaign_file_without_fields_says_so(include: IncludeFolder, text: str) -> None:
    include.write("campaigns/welcome.yaml", text)
    assert "holds no fields" in mistakes(include)


def test_campaign_file_with_a_forbidden_character_is_an_error(include: IncludeFolder) -> None:
    include.write("campaigns/welcome.yaml", "id: welcome\ndescription: \x07\n")
    assert "is not YAML" in mistakes(include)


def test_campaign_file_that_is_not_utf8_is_an_error(include: IncludeFolder) -> None:
    (include.path / "campaigns/welcome.yaml").write_bytes(b"id: welcome\ndescription: caf\xe9\n")
    assert "is not UTF-8" in mistakes(include)


def test_campaign_field_that_stands_twice_is_an_error(include: IncludeFolder) -> None:
    path = include.path / "campaigns/welcome.yaml"
    path.write_text(path.read_text() + "offset_days: 5\n")
    assert "line 4, offset_days: stands twice, the second time on line 7. Keep one." in mistakes(include)


def test_campaign_template_folder_lacks_a_file(include: IncludeFolder) -> None:
    (include.path / "templates/welcome/body.txt.j2").unlink()
    assert "template: include/templates/welcome has no file body.txt.j2. Add it." in mistakes(include)


def test_campaign_with_broken_cap_rules_says_where_they_are_wrong(include: IncludeFolder) -> None:
    include.write("frequency_caps.yaml", "default:\n  often:\n    max_sends: 0\n    window: 7 days\n")
    error = mistakes(include)
    assert "frequency_cap: its rules cannot be read: include/frequency_caps.yaml: line 3" in error


@pytest.mark.parametrize("written", ["off", "'off'", "false"])
def test_campaign_volume_is_switched_off_by_a_word(include: IncludeFolder, written: str) -> None:
    path = include.path / "campaigns/welcome.yaml"
    include.write("campaigns/welcome.yaml", f"{path.read_text()}volume: {written}\n")
    assert load_campaign(include.path, "welcome").volume is None


def test_campaign_volume_keeps_the_defaults_of_what_it_does_not_say(include: IncludeFolder) -> None:
    include.write_campaign(volume={"factor": 2, "approvers": ["ada"]})
    volume = load_campaign(include.path, "welcome").volume
    assert volume == VolumeBreaker(factor=2, approvers=("ada",))


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        (
            {"factor": 1},
            "line 8, volume.factor: should be greater than 1. Write for example `volume: {factor: 3",
        ),
        ({"approve_within_hours": 24}, "volume.approve_within_hours: should be less than 24."),
        ({"factr": 3}, "volume.factr: is not a known field. Remove it."),
        ({"approvers": ["Ada Example"]}, "volume.approvers.0: is not an Airflow user id."),
        (
            {"freshness": "user.sql"},
            "volume.freshness: there is no file include/audiences/user.sql. Did you mean `users.sql`?",
        ),
        (True, "volume: says nothing. Leave it out for the defaults, or write `volume: off`"),
        (3, "volume: should be a valid dictionary"),
    ],
)
def test_campaign_volume_with_a_mistake_says_what_is_wrong(
    include: IncludeFolder, volume: object, said: str
) -> None:
    include.write_campaign(volume=volume)
    assert said in mistakes(include)
