-- Requests that may be repeated, and tokens of users.
CREATE TABLE request (
    id           INTEGER PRIMARY KEY,
    kind         TEXT    NOT NULL,
    key          TEXT    NOT NULL,  -- of the header Idempotency-Key
    fingerprint  BLOB    NOT NULL,  -- keyed hash of what it asked for
    nonce        BLOB    NOT NULL,  -- what secrets that it had made are computed from
    UNIQUE (kind, key)
) STRICT;

-- Not tied to `user` by a foreign key: a row there is replaced when the user changes.
CREATE TABLE user_token (
    id           TEXT PRIMARY KEY,  -- 8 hex digits
    user         TEXT    NOT NULL,
    label        TEXT    NOT NULL,
    hash         BLOB    NOT NULL,  -- keyed hash of the token
    created      INTEGER NOT NULL,
    expires      INTEGER,
    last_used    INTEGER
) STRICT, WITHOUT ROWID;
