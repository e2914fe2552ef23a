-- Version 1. A later version is a new script beside this one, never a change of it.

-- Devices that are registered, and those that acted without being so (rules 1 and 5).
CREATE TABLE device (
    id           TEXT PRIMARY KEY,
    registered   INTEGER NOT NULL,
    groups       TEXT    NOT NULL,  -- JSON array
    labels       TEXT    NOT NULL,  -- JSON object
    model        TEXT,
    title        TEXT,              -- of the firmware that it got last
    version      TEXT,              -- as it reported last
    dialect      TEXT,
    client_id    TEXT,
    token        BLOB,              -- keyed hash
    old_token    BLOB,              -- works until the new one logs in, or
    old_until    INTEGER,           -- until then
    last_seen    INTEGER
) STRICT, WITHOUT ROWID;

-- Files of the watched directory: what each path held, in order. A removed one stays while it
-- still keeps an older one from coming back (rule 12).
CREATE TABLE file (
    id           INTEGER PRIMARY KEY,
    path         TEXT    NOT NULL,
    fingerprint  TEXT    NOT NULL,
    digest       BLOB    NOT NULL,
    size         INTEGER NOT NULL,
    target       TEXT    NOT NULL,  -- all, group:NAME, model:NAME, device:ID
    sidecar      TEXT    NOT NULL,  -- JSON object
    name_title   TEXT,              -- from the file's name
    name_version TEXT,
    created_seq  INTEGER NOT NULL,  -- one count for creations and removals
    created_at   INTEGER NOT NULL,
    removed_seq  INTEGER
) STRICT;
CREATE UNIQUE INDEX file_present ON file (path) WHERE removed_seq IS NULL;

-- The newest offer of each device: the pin (rule 14) and how far it is.
CREATE TABLE transfer (
    device       TEXT PRIMARY KEY REFERENCES device (id) ON DELETE CASCADE,
    digest       BLOB    NOT NULL,
    size         INTEGER NOT NULL,
    chunk_size   INTEGER NOT NULL,
    path         TEXT    NOT NULL,
    title        TEXT,              -- only where a sidecar named one
    version      TEXT    NOT NULL,
    own_version  INTEGER NOT NULL,  -- whether the version is more than the digest's beginning
    attempt      INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    reason       TEXT,
    served       BLOB    NOT NULL,  -- one bit per block, the lowest first
    downloaded_at INTEGER,
    replaces     INTEGER NOT NULL   -- took the place of an unfinished transfer of other blocks
) STRICT, WITHOUT ROWID;

-- What each device experienced with each image (rule 13).
CREATE TABLE history (
    device       TEXT    NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    digest       BLOB    NOT NULL,
    offers       INTEGER NOT NULL,
    deliveries   INTEGER NOT NULL,
    differs      INTEGER NOT NULL,  -- another version was reported since the last delivery
    PRIMARY KEY (device, digest)
) STRICT, WITHOUT ROWID;

-- Who changed what, and what became of each update.
CREATE TABLE audit (
    id           INTEGER PRIMARY KEY,
    at           INTEGER NOT NULL,
    subject      TEXT    NOT NULL,
    action       TEXT    NOT NULL,
    detail       TEXT
) STRICT;

-- Whether the last run ended in order.
CREATE TABLE run (clean INTEGER NOT NULL) STRICT;
INSERT INTO run VALUES (1);
