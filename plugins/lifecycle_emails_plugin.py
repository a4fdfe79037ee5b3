"""Register the package with Airflow, under the name that the list of plugins in the UI shows.

Registration only: what the package does is in ``lifecycle_emails``, which Airflow does not execute as a
plugin (see ``.airflowignore``).
"""

from airflow.plugins_manager import AirflowPlugin


class LifecycleEmailsPlugin(AirflowPlugin):
    """Lifecycle e-mail that mails nobody twice."""

    name = "lifecycle_emails"
