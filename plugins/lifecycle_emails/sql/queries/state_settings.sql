-- Settings of this transaction alone. synchronous_commit: a gate that the server could forget is no gate.
SELECT
    set_config('synchronous_commit', 'on', true),
    set_config('lock_timeout', %(lock_timeout)s, true),
    set_config('statement_timeout', %(statement_timeout)s, true),
    -- whose machine is gone in mid-transaction keeps its locks no longer than this
    set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, true),
    set_config('TimeZone', 'UTC', true),
    -- A cohort is a small part of all sends: by index, not by reading every send ever made.
    set_config('random_page_cost', '1.1', true),
    set_config('lifecycle.actor', %(actor)s, true)
