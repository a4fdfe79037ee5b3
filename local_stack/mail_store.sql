CREATE TABLE IF NOT EXISTS mails (
    number      INTEGER PRIMARY KEY,
    received_at TEXT NOT NULL,
    sender      TEXT NOT NULL,
    recipient   TEXT NOT NULL,
    subject     TEXT NOT NULL,
    message_id  TEXT NOT NULL,
    campaign    TEXT,
    user_id     TEXT
);

CREATE INDEX IF NOT EXISTS mails_reference ON mails (campaign, user_id);

-- Apart, so that a list of twenty thousand mails does not read their contents.
CREATE TABLE IF NOT EXISTS contents (
    number  INTEGER PRIMARY KEY REFERENCES mails (number),
    content BLOB NOT NULL
);
