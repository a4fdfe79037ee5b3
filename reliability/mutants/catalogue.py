"""All mutants, in the order of the table."""

from reliability.mutants.of_classifier import CLASSIFIER
from reliability.mutants.of_limiter import LIMITER
from reliability.mutants.of_protocol import PROTOCOL

MUTANTS = PROTOCOL + CLASSIFIER + LIMITER
