UPDATE lifecycle.batches AS b
SET lease_holder = %(holder)s, lease_until = now() + make_interval(secs => %(seconds)s)
FROM unnest(%(cohort_dates)s::date[], %(batches)s::integer[]) AS wanted (cohort_date, batch)
WHERE b.campaign = %(campaign)s
  AND b.cohort_date = wanted.cohort_date
  AND b.batch = wanted.batch
  AND (b.lease_until IS NULL OR b.lease_until < now() OR b.lease_holder = %(holder)s)
RETURNING b.cohort_date, b.batch
