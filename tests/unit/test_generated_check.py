"""Generated files that are out of step are found, and said how to mend."""

from pathlib import Path

from local_stack.generated_check import GENERATED, PROJECT, differences


def _copy_generated(folder: Path) -> None:
    for name in GENERATED:
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((PROJECT / name).read_text(encoding="utf-8"), encoding="utf-8")


def test_generated_files_of_the_project_are_in_step() -> None:
    assert differences(PROJECT) == []


def test_changed_file_is_found_and_says_what_to_run(tmp_path: Path) -> None:
    _copy_generated(tmp_path)
    assert differences(tmp_path) == []
    name, (_, command) = next(iter(GENERATED.items()))
    with (tmp_path / name).open("a", encoding="utf-8") as file:
        file.write("by hand\n")
    [difference] = differences(tmp_path)
    assert "-by hand" in difference
    assert command in difference


def test_missing_file_is_found(tmp_path: Path) -> None:
    assert len(differences(tmp_path)) == len(GENERATED)
