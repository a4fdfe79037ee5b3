-- Whom an address belonged to when it was last planned or mailed. No index serves this: it reads the whole table.
SELECT DISTINCT user_id FROM lifecycle.sends WHERE address_hash = %(address_hash)s ORDER BY user_id
