-- backplane:compatible-from 0017_legacy_days
ALTER TABLE `api_keys` ADD COLUMN `expiry_announced_at` datetime NULL;
