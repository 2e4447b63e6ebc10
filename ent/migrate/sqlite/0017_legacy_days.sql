-- backplane:compatible-from 0016_last_checks_leases
CREATE TABLE `legacy_days` (`id` text NOT NULL, `day` text NOT NULL, `route` text NOT NULL, `calls` integer NOT NULL, PRIMARY KEY (`id`), CONSTRAINT `legacy_days_calls_count` CHECK (calls > 0));
