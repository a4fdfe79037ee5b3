-- The sends that fill these users' windows, newest first; those in flight have no time yet.
SELECT user_id, campaign, state::text, nullif(slot_at, 'infinity')
FROM lifecycle.cap_slots
WHERE user_id = ANY (%(user_ids)s) AND slot_at > now() - %(longest_window)s::interval
ORDER BY user_id, slot_at DESC
