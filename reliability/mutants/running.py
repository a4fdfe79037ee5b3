"""Plants mutants in copies of the repository and runs the tests that must notice them.

Knows pytest's command line. Must not know what a mutant changes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reliability.mutants.catalogue import MUTANTS
from reliability.mutants.mutant import Mutant, MutantError

REPOSITORY = Path(__file__).parents[2]
AT_ONCE = 2
GIVE_UP_AFTER_SECONDS = 300

_FAILED = re.compile(r"^FAILED (\S+?)::(.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class MutantResult:
    """``killed_by`` is the test that noticed it, '' where none did."""

    name: str
    kind: str
    killed_by: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether a test noticed it."""
        return bool(self.killed_by)


def run_mutants(
    mutants: Sequence[Mutant] = MUTANTS,
    *,
    at_once: int = AT_ONCE,
    told: Callable[[MutantResult], None] = lambda _: None,
) -> list[MutantResult]:
    """Run every mutant, ``at_once`` at a time; ``told`` hears of each as it ends.

    First all their tests are run without a mutant, in one go, and must pass: else a red test would prove
    nothing. Raises MutantError when they do not, when a mutant's text is gone, or when its tests cannot run.
    """
    for mutant in mutants:
        mutant.changed((REPOSITORY / "plugins" / "lifecycle_emails" / mutant.file).read_text())
    with _copy() as tree:
        code, output = _run_tests(tree, sorted({test for mutant in mutants for test in mutant.tests}))
    if code != 0:
        raise MutantError(f"the mutants' tests do not pass without a mutant:\n{output[-3000:]}")
    results = []
    with ThreadPoolExecutor(at_once) as pool:
        for result in pool.map(_run, mutants):
            told(result)
            results.append(result)
    return results


def _run(mutant: Mutant) -> MutantResult:
    started = time.monotonic()
    with _copy() as tree:
        mutant.apply(tree)
        code, output = _run_tests(tree, mutant.tests)
    failed = _FAILED.search(output)
    # An error while a test is set up is no failure: it may be that the mutant is not even valid SQL.
    if code not in (0, 1) or (code == 1 and failed is None):
        raise MutantError(f"mutant {mutant.name!r}: its tests could not run:\n{output[-3000:]}")
    killed_by = failed.group(2) if failed and code == 1 else ""
    return MutantResult(mutant.name, mutant.kind, killed_by, round(time.monotonic() - started, 1))


def _run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rf", "-p", "no:cacheprovider", *tests]
    try:
        ended = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, check=False, timeout=GIVE_UP_AFTER_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise MutantError(f"{' '.join(tests)}: no end after {GIVE_UP_AFTER_SECONDS} s") from error
    return ended.returncode, ended.stdout + ended.stderr


@contextmanager
def _copy() -> Iterator[Path]:
    """Copy what the tests need of the repository, as it is now, committed or not."""
    with tempfile.TemporaryDirectory(prefix="lifecycle-mutant-") as folder:
        tree = Path(folder)
        for path in REPOSITORY.glob("[!.]*"):
            if path.is_dir():
                shutil.copytree(path, tree / path.name)  # with its bytecode, so that little is compiled
            else:
                shutil.copy(path, tree)
        yield tree
