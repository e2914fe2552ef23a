-- What was found out about each file's bytes, and what its signature is worth.
ALTER TABLE file ADD COLUMN facts TEXT;      -- JSON; none: the file is to be read again
ALTER TABLE file ADD COLUMN signature TEXT;  -- JSON
