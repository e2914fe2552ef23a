-- Whether an operator knew of the failure of a device when the rollout was resumed. Until now that
-- was a number of the wave under way alone.
ALTER TABLE member ADD COLUMN forgiven INTEGER NOT NULL DEFAULT 0;
UPDATE member SET forgiven = 1 WHERE failed AND EXISTS (
    SELECT 1 FROM deployment
    WHERE id = member.deployment AND (wave > member.wave OR deployment.forgiven > 0)
);
ALTER TABLE deployment DROP COLUMN forgiven;
