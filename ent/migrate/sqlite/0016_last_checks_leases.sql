-- backplane:compatible-from 0015_events_by_actor_and_time
ALTER TABLE `leases` ADD COLUMN `checked_at` datetime NULL;
ALTER TABLE `leases` ADD COLUMN `check_passed` bool NULL;
ALTER TABLE `leases` ADD COLUMN `check_ms` integer NULL;
ALTER TABLE `leases` ADD COLUMN `check_output` text NULL;
