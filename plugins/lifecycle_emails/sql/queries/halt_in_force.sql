-- Who has halted exactly this: one campaign, or all for NULL.
SELECT format('by %%s since %%s (%%s)', halted_by, since::timestamptz(0), reason)
FROM lifecycle.halts
WHERE lifted_at IS NULL AND campaign IS NOT DISTINCT FROM %(campaign)s
