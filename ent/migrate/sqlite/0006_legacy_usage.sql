CREATE TABLE `legacy_usage` (`id` text NOT NULL, `route` text NOT NULL, `client` text NOT NULL, `calls` integer NOT NULL, `first_seen_at` datetime NOT NULL, `last_seen_at` datetime NOT NULL, PRIMARY KEY (`id`), CONSTRAINT `legacy_usage_calls_count` CHECK (calls > 0));
CREATE INDEX `legacyusage_route_id` ON `legacy_usage` (`route`, `id`);
CREATE INDEX `legacyusage_last_seen_at` ON `legacy_usage` (`last_seen_at`);
