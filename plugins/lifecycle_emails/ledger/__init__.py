"""The sends ledger in Postgres: the only authority on who got which e-mail. Must not know Airflow or SMTP."""
