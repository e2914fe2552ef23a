-- Accounts that were removed, and whose sessions the broker has not ended for good yet.
CREATE TABLE ending (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
