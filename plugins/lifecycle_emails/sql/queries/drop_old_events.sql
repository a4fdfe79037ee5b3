-- What was ever in doubt is found through its history, so that stays.
DELETE FROM lifecycle.send_events WHERE happened_at < now() - %(keep)s::interval AND to_state <> 'in_doubt'
