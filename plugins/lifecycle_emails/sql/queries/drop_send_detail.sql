-- Retention drops detail, never a key: who got what, when and from which cohort stays. So does the queue id of what was
-- not sent: it says that the server has accepted the mail, and nobody may send it again.
WITH old AS (
    UPDATE lifecycle.cohorts
    SET detail_dropped_at = now()
    WHERE closed_at < now() - %(keep)s::interval
      AND (detail_dropped_at IS NULL OR detail_dropped_at < closed_at)
    RETURNING campaign, cohort_date
)
UPDATE lifecycle.sends AS s
SET detail = NULL, queue_id = CASE WHEN s.state <> 'sent' THEN s.queue_id END, address_hash = NULL
FROM old
WHERE s.campaign = old.campaign AND s.cohort_date = old.cohort_date
  AND num_nonnulls(s.detail, s.queue_id, s.address_hash) > 0
