"""The lock is compared with the requirements without a network."""

from pathlib import Path

import pytest

from local_stack.lock_check import PROJECT, differences

REQUIREMENTS = "# why\nairflow[all]==3.3.2\n"
DEVELOPMENT = "-r requirements.txt\nPytest_Tools==9.2.0\n"
LOCK = """\
# made by: make lock
airflow==3.3.2 \\
    --hash=sha256:00
    # via -r requirements.txt
pytest-tools==9.2.0 ; python_version < '4' \\
    --hash=sha256:11
    # via
    #   -r requirements-dev.txt
    #   airflow
six==1.17.0 \\
    --hash=sha256:22
    # via airflow
"""


def write(folder: Path, requirements: str = REQUIREMENTS, lock: str = LOCK) -> Path:
    (folder / "requirements.txt").write_text(requirements)
    (folder / "requirements-dev.txt").write_text(DEVELOPMENT)
    (folder / "requirements.lock").write_text(lock)
    return folder


def test_lock_check_finds_this_project_in_step() -> None:
    assert differences(PROJECT) == []


def test_lock_check_accepts_extras_markers_and_other_spellings(tmp_path: Path) -> None:
    assert differences(write(tmp_path)) == []


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ("airflow==3.3.3\n", "requirements.txt asks for airflow==3.3.3, requirements.lock has 3.3.2"),
        ("airflow==3.3.2\nnew==1\n", "requirements.txt asks for new==1, requirements.lock has none"),
        ("", "requirements.lock has airflow for requirements.txt, which no longer asks for it"),
        (
            "airflow==3.3.2\nloose>=1\n",
            "requirements.txt: 'loose>=1' is not pinned; write it as name==version",
        ),
    ],
)
def test_lock_check_names_a_changed_requirement(tmp_path: Path, requirements: str, expected: str) -> None:
    assert differences(write(tmp_path, requirements)) == [expected]


def test_lock_check_refuses_a_pin_without_hash_and_an_index_address(tmp_path: Path) -> None:
    lock = "--index-url https://packages.example.com/simple\n" + LOCK.replace("\n    --hash=sha256:22", "")
    assert differences(write(tmp_path, lock=lock)) == [
        "requirements.lock: six==1.17.0 has no hash",
        "requirements.lock names an address that packages come from",
    ]
