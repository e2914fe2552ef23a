-- Version 5: what the device's dialect keeps with an offer, in its own encoding.
ALTER TABLE transfer ADD COLUMN note TEXT;
