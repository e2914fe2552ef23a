-- What a deployment waits for beside its waves, as JSON: maintenance windows, limits.
ALTER TABLE deployment ADD COLUMN conditions TEXT NOT NULL DEFAULT '{}';
