SELECT s.cohort_date, s.user_id
FROM unnest(%(cohort_dates)s::date[], %(batches)s::integer[]) AS wanted (cohort_date, batch)
JOIN lifecycle.sends AS s USING (cohort_date, batch)
WHERE s.campaign = %(campaign)s AND s.state = 'ready' AND (s.not_before IS NULL OR s.not_before <= now())
  AND NOT EXISTS (
      SELECT FROM lifecycle.cohorts_held_back AS h
      WHERE h.campaign = s.campaign AND h.cohort_date = s.cohort_date
  )
ORDER BY s.cohort_date, s.user_id
