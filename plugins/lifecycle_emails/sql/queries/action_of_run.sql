SELECT action, arguments, reason, result FROM lifecycle.actions WHERE run_key = %(run_key)s
