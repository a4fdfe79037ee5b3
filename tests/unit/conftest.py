"""Settings of the unit tests."""

from hypothesis import HealthCheck, settings

# A deadline of hypothesis is a wall clock's, and a busy machine is not a failure.
if settings.get_current_profile_name() == "default":
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
