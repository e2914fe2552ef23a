-- Who took the device out of its deployment; none: nobody did.
ALTER TABLE member ADD COLUMN cancelled TEXT;
