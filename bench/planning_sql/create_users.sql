-- The source: users with ids as the table of a team's application has them.
CREATE TABLE users (user_id {id_type} PRIMARY KEY, email text, full_name text, created_at timestamptz);
