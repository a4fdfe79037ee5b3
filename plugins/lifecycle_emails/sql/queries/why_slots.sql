-- The sends that count in the user's frequency caps, newest first; those in flight have no time yet.
SELECT campaign, state::text, nullif(slot_at, 'infinity')
FROM lifecycle.cap_slots
WHERE user_id = %(user_id)s AND slot_at > now() - interval '366 days'
ORDER BY slot_at DESC
