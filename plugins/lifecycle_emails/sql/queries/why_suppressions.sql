-- Suppressions in force of a user, or of an address that the user had.
SELECT CASE WHEN x.user_id IS NULL THEN 'address' ELSE 'user' END, x.campaign, x.since, x.reason, x.suppressed_by
FROM lifecycle.suppressions AS x
WHERE x.lifted_at IS NULL
  AND (
      x.user_id = %(user_id)s
      OR x.address_hash = %(address_hash)s
      OR x.address_hash IN (SELECT s.address_hash FROM lifecycle.sends AS s WHERE s.user_id = %(user_id)s)
  )
ORDER BY x.since
