-- Users created on one day, in no order of their ids. One address in a hundred is not ASCII, one in a thousand is broken.
INSERT INTO users
SELECT
    {user_id},
    CASE
        WHEN n %% 1000 = 999 THEN 'user ' || n || '@example.com'
        WHEN n %% 100 = 1 THEN 'jürgen' || n || '@bücher.example.org'
        WHEN n %% 10 = 2 THEN 'User.' || n || '@Example.net'
        ELSE 'user' || n || '@' || n %% 2000 || '.example.com'
    END,
    'Ada Example',
    %(day)s::date::timestamptz + n %% 86400 * interval '1 second'
FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(size)s - 1) AS n
ORDER BY random()
