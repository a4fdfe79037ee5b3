"""How time is scaled in the replay: an hour of the incident is a second here."""

HOUR_SECONDS = 1
DELAY_HOURS = 96
"""The mails were scheduled four days ahead."""
VISIBILITY_TIMEOUT_HOURS = 1
"""After this time without an acknowledgement, Redis hands a task to another worker."""

DELAY_SECONDS = DELAY_HOURS * HOUR_SECONDS
VISIBILITY_TIMEOUT_SECONDS = VISIBILITY_TIMEOUT_HOURS * HOUR_SECONDS
TRANSPORT_OPTIONS = {
    "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
    # How often a worker looks for tasks past their time: every second, as everything else is scaled down.
    "unacked_restore_interval": HOUR_SECONDS,
    "unacked_restore_throttle": 1,
}
"""Celery's broker_transport_options, the same for the old way and for Airflow."""
USERS = 40
CAMPAIGN = "day4_follow_up"
