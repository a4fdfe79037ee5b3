SELECT user_id::text FROM users
WHERE created_at >= %(day)s::date::timestamptz AND created_at < %(day)s::date::timestamptz + interval '1 day'
ORDER BY md5(user_id::text)
LIMIT %(most)s
