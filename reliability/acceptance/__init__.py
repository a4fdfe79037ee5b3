"""Acceptance: a whole daily run on Celery, with the commands and environment of docker-compose.yaml."""
