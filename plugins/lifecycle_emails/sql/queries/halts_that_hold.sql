-- Halts in force that stop a campaign, or anything for NULL, and a ledger that is not to be trusted; of all campaigns first.
SELECT campaign, format('by %%s since %%s (%%s)', halted_by, since::timestamptz(0), reason)
FROM lifecycle.halts
WHERE lifted_at IS NULL AND (campaign IS NULL OR %(campaign)s::text IS NULL OR campaign = %(campaign)s)
UNION ALL
SELECT NULL, format('by the package (%%s)', distrust) FROM lifecycle.distrust() WHERE distrust IS NOT NULL
ORDER BY campaign NULLS FIRST
