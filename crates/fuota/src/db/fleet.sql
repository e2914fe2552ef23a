-- Version 4: deployments and what each device made of them, timelines, who did what from where.

ALTER TABLE file ADD COLUMN uploaded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE file ADD COLUMN withdrawn TEXT;       -- who withdrew these bytes
ALTER TABLE device ADD COLUMN confirmed INTEGER;  -- the file that it was confirmed with last
ALTER TABLE transfer ADD COLUMN deployment INTEGER;
ALTER TABLE transfer ADD COLUMN file INTEGER;
ALTER TABLE audit ADD COLUMN actor TEXT;
ALTER TABLE audit ADD COLUMN origin TEXT;         -- an address
-- Whether a first full scan was ever taken in (rule 6), and who froze the site (JSON).
ALTER TABLE run ADD COLUMN scanned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN frozen TEXT;
UPDATE run SET scanned = EXISTS (SELECT 1 FROM file) OR EXISTS (SELECT 1 FROM device);

CREATE TABLE deployment (
    id           INTEGER PRIMARY KEY,
    file         INTEGER NOT NULL,
    target       TEXT    NOT NULL,  -- all, device:ID, group:NAME, model:NAME, labels:…, rollback:ID
    tier         INTEGER NOT NULL,  -- rule 12: the lower goes first
    plan         TEXT    NOT NULL,  -- JSON: waves, and when they pause
    downgrade    INTEGER NOT NULL,
    state        TEXT    NOT NULL,  -- held, running, paused, cancelled, ended
    reason       TEXT,
    wave         INTEGER NOT NULL,
    size         INTEGER NOT NULL,  -- up to how many devices the wave goes in all
    forgiven     INTEGER NOT NULL,  -- failures of the wave that were known when it was resumed
    created_seq  INTEGER NOT NULL,  -- the same count as in `file`
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    ended_seq    INTEGER,
    key          TEXT               -- names the request that made it
) STRICT;
CREATE UNIQUE INDEX deployment_key ON deployment (key) WHERE key IS NOT NULL;

-- Devices that were let into a deployment, or that a rollback lists.
CREATE TABLE member (
    deployment   INTEGER NOT NULL REFERENCES deployment (id) ON DELETE CASCADE,
    device       TEXT    NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    wave         INTEGER,           -- none: only listed
    counts       INTEGER NOT NULL,  -- in waves and thresholds (rule 5)
    state        TEXT,              -- none: offered nothing yet
    reason       TEXT,
    failed       INTEGER NOT NULL,
    reached      INTEGER NOT NULL,  -- downloaded or further
    offers       INTEGER NOT NULL,
    deliveries   INTEGER NOT NULL,
    differs      INTEGER NOT NULL,
    before       INTEGER,           -- the file that it was confirmed with before
    at           INTEGER NOT NULL,
    PRIMARY KEY (deployment, device)
) STRICT, WITHOUT ROWID;

-- What happened to each device.
CREATE TABLE timeline (
    id           INTEGER PRIMARY KEY,
    at           INTEGER NOT NULL,
    device       TEXT    NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    action       TEXT    NOT NULL,
    detail       TEXT,
    deployment   INTEGER
) STRICT;
CREATE INDEX timeline_device ON timeline (device, id);

-- Until now every file was deployed to everybody whom its folder names, at once.
INSERT INTO deployment
SELECT id, id, target,
       CASE substr(target, 1, 6) WHEN 'device' THEN 0 WHEN 'group:' THEN 1 WHEN 'model:' THEN 2 ELSE 4 END,
       '{"waves":[{"percent":100}],"pause_at_percent":null}', 0,
       CASE WHEN removed_seq IS NULL THEN 'running' ELSE 'ended' END,
       CASE WHEN removed_seq IS NULL THEN NULL ELSE path || ' was deleted or overwritten' END,
       0, 0, 0, created_seq, created_at, 'a dropped file', removed_seq, NULL
FROM file;
UPDATE transfer SET file = (
    SELECT max(file.id) FROM file WHERE file.path = transfer.path AND file.digest = transfer.digest
);
UPDATE transfer SET deployment = file;
INSERT INTO member
SELECT transfer.deployment, transfer.device, 0, 1, transfer.state, transfer.reason,
       transfer.state IN ('failed', 'silent'), transfer.downloaded_at IS NOT NULL,
       coalesce(history.offers, transfer.attempt), coalesce(history.deliveries, 0),
       coalesce(history.differs, 0), NULL, coalesce(transfer.downloaded_at, 0)
FROM transfer LEFT JOIN history
  ON history.device = transfer.device AND history.digest = transfer.digest
WHERE transfer.deployment IS NOT NULL;
UPDATE device SET confirmed = (
    SELECT transfer.file FROM transfer
    WHERE transfer.device = device.id AND transfer.state IN ('updated', 'updated_unconfirmed')
);
