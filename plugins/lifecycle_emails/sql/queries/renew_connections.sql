-- A lease that has ended is not renewed: others may hold its connections by now.
UPDATE lifecycle.throttle_connections
SET leased_until = now() + make_interval(secs => %(seconds)s)
WHERE holder = %(holder)s AND leased_until > now()
