-- Halts in force that stop a campaign, or anything for NULL; of all campaigns first.
SELECT campaign, format('by %%s since %%s (%%s)', halted_by, since::timestamptz(0), reason)
FROM lifecycle.halts
WHERE lifted_at IS NULL AND (campaign IS NULL OR %(campaign)s::text IS NULL OR campaign = %(campaign)s)
ORDER BY campaign NULLS FIRST
