"""Whether requirements.lock is in step with requirements.txt and requirements-dev.txt, without a network.

``python -m local_stack.lock_check`` prints every difference and exits with 1 when there is one.
"""

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
SOURCES = ("requirements.txt", "requirements-dev.txt")
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)")


def differences(folder: Path) -> list[str]:
    """List, in words, where the lock of a folder differs from what the requirements ask for."""
    found: list[str] = []
    wanted = _requirements(folder, found)
    text = (folder / LOCK).read_text()
    locked, asked_for = _locked(text, found)
    for (source, name), version in wanted.items():
        if version not in locked.get(name, ()):
            has = " and ".join(sorted(locked.get(name, ()))) or "none"
            found.append(f"{source} asks for {name}=={version}, {LOCK} has {has}")
    found += [
        f"{LOCK} has {name} for {source}, which no longer asks for it"
        for source, name in sorted(asked_for - set(wanted))
    ]
    if re.search(r"https?://|--(extra-)?index-url|--find-links", text):
        found.append(f"{LOCK} names an address that packages come from")
    return found


def _requirements(folder: Path, found: list[str]) -> dict[tuple[str, str], str]:
    """Map (file, package) to the version asked for."""
    wanted = {}
    for source in SOURCES:
        for line in (folder / source).read_text().splitlines():
            if not line.strip() or line.startswith(("#", "-r ")):
                continue
            pin = _PIN.fullmatch(line.strip())
            if pin is None:
                found.append(f"{source}: '{line}' is not pinned; write it as name==version")
            else:
                wanted[source, _normal(pin[1])] = pin[2]
    return wanted


def _locked(text: str, found: list[str]) -> tuple[dict[str, set[str]], set[tuple[str, str]]]:
    """Read a lock: the versions of each package, and the (file, package) pairs it was made for."""
    locked: dict[str, set[str]] = {}
    asked_for = set()
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        pin = _PIN.match(entry)
        if pin is None:
            continue
        name = _normal(pin[1])
        locked.setdefault(name, set()).add(pin[2])
        asked_for |= {(source, name) for source in re.findall(r"-r (\S+)", entry)}
        if "--hash=sha256:" not in entry:
            found.append(f"{LOCK}: {pin[0]} has no hash")
    return locked, asked_for


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Print the differences of this project; return the exit code."""
    found = differences(PROJECT)
    for difference in found:
        print(difference, file=sys.stderr)
    if found:
        print("Run: make lock", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
