-- The example application's users: what a team's own application would have.
CREATE TABLE IF NOT EXISTS users (
    user_id       bigint      PRIMARY KEY,
    email         text,
    full_name     text        NOT NULL,
    locale        text        NOT NULL DEFAULT 'en',
    timezone      text        NOT NULL DEFAULT 'UTC',
    created_at    timestamptz NOT NULL,
    setup_done    boolean     NOT NULL DEFAULT true,
    email_opt_out boolean     NOT NULL DEFAULT false
);

CREATE INDEX IF NOT EXISTS users_created_at ON users (created_at);
