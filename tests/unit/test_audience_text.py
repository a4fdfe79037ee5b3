from pathlib import Path

import pytest

from lifecycle_emails.audience_text import read_audience_text
from lifecycle_emails.errors import ConfigurationError
from tests.factories import INCLUDE

WHERE = "WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s"
BOUND = "WHERE created_at >= $1 AND created_at < $2"


def read(folder: Path, text: str) -> str:
    (folder / "audiences").mkdir()
    (folder / "audiences/users.sql").write_text(text, encoding="utf-8")
    return read_audience_text(folder, "users.sql")


def test_audience_text_has_the_window_as_positional_parameters(tmp_path: Path) -> None:
    assert read(tmp_path, f"SELECT user_id FROM users\n{WHERE}\n") == f"SELECT user_id FROM users\n{BOUND}\n"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 7 % 3",
        "SELECT name LIKE '%s%%(cohort_start)s'",
        "SELECT 'a;b', 'it''s; $1', E'\\'; $2', \"a;b\", \"$1\"",
        "SELECT $$a;b$$, $tag$ $$; $1 $tag$",
        "SELECT 1 -- first; second, it's $1",
        "SELECT 1 /* first; second, it's $1 */",
        "SELECT column$1, caf\u00e9",
        "SELECT '\u2028' || '\u4f8b'",
        "SELECT a %(b)s",
    ],
)
def test_audience_text_is_otherwise_left_as_it_is(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"{text}\nFROM users {WHERE}") == f"{text}\nFROM users {BOUND}"


@pytest.mark.parametrize("end", [";", " ;\n", ";; -- done\n", "; /* done; really */ "])
def test_audience_text_may_end_in_a_semicolon(tmp_path: Path, end: str) -> None:
    read_text = read(tmp_path, f"SELECT 1 {WHERE}{end}")
    assert read_text.startswith(f"SELECT 1 {BOUND}")
    assert ";" not in read_text.split("--")[0].split("/*")[0]


@pytest.mark.parametrize("second", ["DELETE FROM users", "SELECT 2", "'a string'", ")"])
def test_audience_text_with_a_second_statement_is_an_error(tmp_path: Path, second: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"audiences/users.sql holds a second statement; write one query"
    ):
        read(tmp_path, f"SELECT 1 {WHERE};\n{second}")


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("SELECT user_id FROM users", "cohort_start"),
        ("SELECT user_id FROM users WHERE created_at >= %(cohort_start)s", "cohort_end"),
        (f"SELECT user_id FROM users -- {WHERE}", "cohort_start"),
        (WHERE.replace("%(cohort_end)s", "'%(cohort_end)s'"), "cohort_end"),
        ("", "cohort_start"),
    ],
)
def test_audience_text_that_ignores_the_window_is_an_error(tmp_path: Path, text: str, parameter: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"does not use %\({parameter}\)s"):
        read(tmp_path, text)


def test_audience_text_with_positional_parameters_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"uses \$1; write %\(cohort_start\)s and %\(cohort_end\)s"):
        read(tmp_path, f"SELECT 1 {BOUND}")


def test_audience_text_that_is_missing_or_not_utf8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*/audiences/users.sql"):
        read_audience_text(tmp_path, "users.sql")
    (tmp_path / "audiences").mkdir()
    (tmp_path / "audiences/users.sql").write_bytes(b"SELECT 'caf\xe9'")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        read_audience_text(tmp_path, "users.sql")


@pytest.mark.parametrize("path", sorted((INCLUDE / "audiences").glob("*.sql")), ids=lambda path: path.name)
def test_audience_text_of_the_examples_is_valid(path: Path) -> None:
    assert "$1" in read_audience_text(INCLUDE, path.name)
