-- backplane:compatible-from 0020_payments
ALTER TABLE `timelines` ADD COLUMN `place` text NOT NULL DEFAULT '';
ALTER TABLE `timelines` ADD COLUMN `server_timeline` integer NOT NULL DEFAULT 0;
