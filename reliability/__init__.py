"""Tools that show the promises kept under faults: each prints a table and, last, one JSON object."""
