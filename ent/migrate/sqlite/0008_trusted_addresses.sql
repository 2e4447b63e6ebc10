ALTER TABLE `services` ADD COLUMN `trusted_addresses` json NULL;
