-- Until when, in seconds since 1970, the device is not offered the image again; none: it may be.
ALTER TABLE history ADD COLUMN wait_until INTEGER;
