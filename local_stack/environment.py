"""The project's virtual environment: made from the hashed lock, made again when the lock changes.

Runs on a bare Python before anything is installed, so it knows the standard library only:
``python3.11 local_stack/environment.py``.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = PROJECT / ".venv"
LOCK = PROJECT / "requirements.lock"
INSTALLED = ENVIRONMENT / "installed.lock"  # a copy of the lock, written when everything of it is in place
LOG = ENVIRONMENT / "install.log"
SECONDS_BETWEEN_LINES = 10
LOG_LINES_SHOWN = 8


def main() -> int:
    """Make the environment unless it is there as the lock wants it; return the exit code."""
    if not (3, 11) <= sys.version_info < (3, 13):
        return _failed(f"Python 3.11 is needed, this is {sys.version.split()[0]}. Set PYTHON=<a python3.11>.")
    if _is_current():
        return 0
    if (ENVIRONMENT / "bin").exists() and not _answers():
        shutil.rmtree(ENVIRONMENT)  # made on another machine, or for a Python that is gone
    if not (ENVIRONMENT / "bin" / "pip").exists() and not _create():
        return 1
    packages = sum("==" in line for line in LOCK.read_text().splitlines())
    print(f"Installing {packages} packages into {ENVIRONMENT.name} (a minute or two, once) ...", flush=True)
    started = time.monotonic()
    ok = _pip(["install", "--no-deps", "--require-hashes", "--requirement", str(LOCK)], packages) and _pip(
        ["install", "--no-deps", "--no-build-isolation", "--editable", str(PROJECT)]
    )
    if not ok:
        words = "".join(LOG.read_text(errors="replace").splitlines(keepends=True)[-LOG_LINES_SHOWN:])
        return _failed(f"The packages could not be installed. pip's log, {LOG}, closes with:\n{words}")
    shutil.copy(LOCK, INSTALLED)
    print(f"Installed in {time.monotonic() - started:.0f} s.", flush=True)
    return 0


def _is_current() -> bool:
    return INSTALLED.exists() and INSTALLED.read_bytes() == LOCK.read_bytes() and _answers()


def _answers() -> bool:
    """Whether the environment's Python still runs, and from this very folder."""
    try:
        said = subprocess.run(
            [ENVIRONMENT / "bin" / "python", "-c", "import sys; print(sys.prefix)"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return said.returncode == 0 and Path(said.stdout.strip()).resolve() == ENVIRONMENT.resolve()


def _create() -> bool:
    made = subprocess.run(
        [sys.executable, "-m", "venv", ENVIRONMENT], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        _failed(f"{sys.executable} -m venv failed:\n{(made.stdout + made.stderr).strip()}")
    return made.returncode == 0


def _pip(arguments: list[str], packages: int = 0) -> bool:
    """Run pip, its output in the log, and print how far it is now and then."""
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    collected, printed = 0, time.monotonic()
    with (
        LOG.open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip,
    ):
        assert pip.stdout is not None  # noqa: S101  (for the type checker)
        for line in pip.stdout:
            log.write(line)
            collected += line.startswith(("Collecting ", "Processing ", "Requirement already satisfied: "))
            if packages and line.startswith("Installing collected"):
                packages = 0
                print(f"  all {collected} at hand, unpacking (half a minute) ...", flush=True)
            elif packages and time.monotonic() - printed > SECONDS_BETWEEN_LINES:
                printed = time.monotonic()
                print(f"  {collected} of {packages} at hand ...", flush=True)
    return pip.returncode == 0


def _failed(reason: str) -> int:
    print(reason, file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
