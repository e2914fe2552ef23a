-- Version 2: users with passwords (rule 28).
CREATE TABLE user (
    name         TEXT PRIMARY KEY,
    role         TEXT    NOT NULL,  -- device, service, operator, admin
    salt         BLOB    NOT NULL,  -- of Argon2id, and what it was computed with
    hash         BLOB    NOT NULL,
    memory       INTEGER NOT NULL,  -- KiB
    passes       INTEGER NOT NULL,
    lanes        INTEGER NOT NULL,
    created      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
