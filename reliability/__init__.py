"""Tools that show the promises kept under faults and load, and by how much: each prints a table and a JSON line."""
