"""The runbook, played: each of its stories on a real Airflow, by the clicks and commands that it names."""
