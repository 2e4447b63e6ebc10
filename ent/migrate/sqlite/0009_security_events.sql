CREATE TABLE `security_events` (`id` text NOT NULL, `type` text NOT NULL, `occurred_at` datetime NOT NULL, `last_at` datetime NOT NULL, `recorded_at` datetime NOT NULL, `occurrences` integer NOT NULL, `user_id` text NOT NULL, `actor` text NOT NULL, `session_id` text NOT NULL, `api_key_id` text NOT NULL, `address` text NOT NULL, `user_agent` text NOT NULL, `request_id` text NOT NULL, `detail` text NOT NULL, PRIMARY KEY (`id`), CONSTRAINT `security_events_occurrences_count` CHECK (occurrences >= 1));
CREATE INDEX `securityevent_recorded_at_id` ON `security_events` (`recorded_at`, `id`);
CREATE INDEX `securityevent_type_recorded_at_id` ON `security_events` (`type`, `recorded_at`, `id`);
CREATE INDEX `securityevent_user_id_recorded_at_id` ON `security_events` (`user_id`, `recorded_at`, `id`);
CREATE INDEX `securityevent_user_id_type_recorded_at_id` ON `security_events` (`user_id`, `type`, `recorded_at`, `id`);
CREATE INDEX `securityevent_address_recorded_at_id` ON `security_events` (`address`, `recorded_at`, `id`);
