"""All mutants, in the order of the table."""

from reliability.mutants.of_classifier import CLASSIFIER
from reliability.mutants.of_limiter import LIMITER
from reliability.mutants.of_protocol import PROTOCOL
from reliability.mutants.of_throttle import THROTTLE

MUTANTS = PROTOCOL + CLASSIFIER + LIMITER + THROTTLE
