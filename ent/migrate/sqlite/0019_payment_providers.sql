-- backplane:compatible-from 0018_announced_keys
ALTER TABLE `services` ADD COLUMN `payment_provider` bool NOT NULL DEFAULT '0';
