-- Settings of this transaction alone. synchronous_commit: a gate that the server could forget is no gate.
SELECT
    set_config('synchronous_commit', 'on', true),
    set_config('lock_timeout', %(lock_timeout)s, true),
    set_config('statement_timeout', %(statement_timeout)s, true),
    set_config('TimeZone', 'UTC', true),
    set_config('lifecycle.actor', %(actor)s, true)
