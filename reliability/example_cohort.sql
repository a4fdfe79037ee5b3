-- Users 1 to %(users)s, created over one day. Every hundredth cannot be written to.
INSERT INTO users (user_id, email, full_name, created_at)
SELECT
    number,
    CASE WHEN number %% 100 = 0 THEN 'nobody' ELSE 'user' || number || '@example.com' END,
    'User ' || number,
    %(day)s::timestamp AT TIME ZONE 'UTC' + (number - 1) * interval '1 day' / %(users)s
FROM generate_series(1, %(users)s) AS number
