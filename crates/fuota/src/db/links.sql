-- What download links of the device are signed with beside the key: another number ends them all.
ALTER TABLE device ADD COLUMN link_seed INTEGER NOT NULL DEFAULT 0;
