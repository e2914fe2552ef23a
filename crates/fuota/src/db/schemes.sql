-- Version 3: passwords that mosquitto hashed. For `pbkdf2-sha512` passes are its rounds.
ALTER TABLE user ADD COLUMN scheme TEXT NOT NULL DEFAULT 'argon2id';
