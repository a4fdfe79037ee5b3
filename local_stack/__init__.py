"""The local stack: everything the pipeline needs around it, on one machine and from pip alone.

An embedded PostgreSQL, an SMTP catcher with an inbox page, an example application's users, and Airflow as
separate processes. It is tooling: the product in ``plugins/`` must never import it.
"""
