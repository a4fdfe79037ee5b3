SELECT
    count(*) FILTER (WHERE s.not_before IS NULL OR s.not_before <= now()),
    count(*) FILTER (WHERE s.not_before > now()),
    min(s.not_before) FILTER (WHERE s.not_before > now())
FROM unnest(%(cohort_dates)s::date[], %(batches)s::integer[]) AS wanted (cohort_date, batch)
JOIN lifecycle.sends AS s USING (cohort_date, batch)
WHERE s.campaign = %(campaign)s AND s.state = 'ready'
  AND NOT EXISTS (
      SELECT FROM lifecycle.cohorts_held_back AS h
      WHERE h.campaign = s.campaign AND h.cohort_date = s.cohort_date
  )
