-- found, and of these: with a row in this cohort, with a row in another, without any (an error; always 0)
SELECT
    count(*),
    count(*) FILTER (WHERE s.cohort_date = %(cohort_date)s),
    count(*) FILTER (WHERE s.cohort_date <> %(cohort_date)s),
    count(*) FILTER (WHERE s.user_id IS NULL)
FROM arrivals AS a
LEFT JOIN lifecycle.sends AS s
    ON s.user_id = a.user_id AND s.campaign = %(campaign)s AND s.occurrence = 'once'
