ALTER TABLE `services` ADD COLUMN `public` bool NOT NULL DEFAULT '0';
