UPDATE lifecycle.batches AS b
SET lease_until = now() + make_interval(secs => %(seconds)s)
FROM unnest(%(cohort_dates)s::date[], %(batches)s::integer[]) AS held (cohort_date, batch)
WHERE b.campaign = %(campaign)s
  AND b.cohort_date = held.cohort_date
  AND b.batch = held.batch
  AND b.lease_holder = %(holder)s
