"""The incident, replayed: mails as scheduled Celery tasks on Redis, and the same users mailed by us."""
