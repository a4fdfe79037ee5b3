DELETE FROM lifecycle.throttle_connections WHERE holder = %(holder)s
