"""Wrong changes that the fast tests must notice: in protocol, reply classifier, limiter and throttle.

Each is made in a copy of the repository, never in the package, and only the tests named for it are run there.
Cheap to import: nothing of the package is imported here.
"""

from reliability.mutants.catalogue import MUTANTS
from reliability.mutants.mutant import Mutant, MutantError
from reliability.mutants.running import MutantResult, run_mutants

__all__ = ["MUTANTS", "Mutant", "MutantError", "MutantResult", "run_mutants"]
