from datetime import timedelta
from pathlib import Path

import pytest

from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.frequency_cap import CapRule, load_cap_rule_sets, load_cap_rules
from tests.factories import INCLUDE


def write_caps(folder: Path, text: str) -> Path:
    (folder / "frequency_caps.yaml").write_text(text)
    return folder


def mistakes(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        load_cap_rules(write_caps(folder, text), "default")
    return str(error.value)


def test_cap_rules_of_the_example() -> None:
    assert load_cap_rules(INCLUDE, "default") == (
        CapRule("three_per_week", 3, timedelta(days=7)),
        CapRule("one_per_20_hours", 1, timedelta(hours=20)),
    )


@pytest.mark.parametrize(
    ("written", "window"),
    [
        ("1 minute", timedelta(minutes=1)),
        ("90 minutes", timedelta(minutes=90)),
        ("1 hour", timedelta(hours=1)),
        ("20 hours", timedelta(hours=20)),
        ("1 day", timedelta(hours=24)),
        ("7 days", timedelta(days=7)),
        ("2 weeks", timedelta(days=14)),
    ],
)
def test_cap_rule_window_is_read_in_words(tmp_path: Path, written: str, window: timedelta) -> None:
    write_caps(tmp_path, f"default:\n  a_rule:\n    max_sends: 1\n    window: {written}\n")
    assert load_cap_rules(tmp_path, "default") == (CapRule("a_rule", 1, window),)


@pytest.mark.parametrize(
    "written", ["", "7", "0 days", "-1 days", "7 dayss", "1.5 days", "P7D", "168:00:00", "[7, days]"]
)
def test_cap_rule_window_of_another_form_is_an_error(tmp_path: Path, written: str) -> None:
    error = mistakes(tmp_path, f"default:\n  a_rule:\n    max_sends: 1\n    window: {written}\n")
    assert (
        "line 4, default.a_rule.window: is not a length of time. Write for example `window: 7 days`" in error
    )


def test_cap_rules_with_many_mistakes_say_each_with_its_line(tmp_path: Path) -> None:
    error = mistakes(
        tmp_path,
        "default:\n"
        "  a_rule:\n"
        "    max_sends: 0\n"
        "    window: 400 days\n"
        "  Other-Rule:\n"
        "    max_sends: 1\n"
        "    windows: 7 days\n"
        "none_at_all: {}\n",
    )
    assert (
        error.removeprefix(tmp_path.name)
        == """\
/frequency_caps.yaml has 6 mistakes:
  line 3, default.a_rule.max_sends: should be greater than or equal to 1.
  line 4, default.a_rule.window: is longer than 366 days. Write a shorter window.
  line 5, default.Other-Rule: is not a usable name. Write 3 to 63 of a-z, 0-9 and _, a letter first.
  line 5, default.Other-Rule.window: is missing.
  line 7, default.Other-Rule.windows: is not a known field. Remove it.
  line 8, none_at_all: holds no rules, so it would limit nothing. Write at least one."""
    )


def test_cap_rule_set_that_is_unknown_names_the_nearest(tmp_path: Path) -> None:
    write_caps(tmp_path, "default:\n  a_rule:\n    max_sends: 1\n    window: 7 days\n")
    with pytest.raises(ConfigurationError, match=r"has no rule set `defalt`. Did you mean `default`"):
        load_cap_rules(tmp_path, "defalt")


def test_cap_rules_without_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        load_cap_rule_sets(tmp_path)
