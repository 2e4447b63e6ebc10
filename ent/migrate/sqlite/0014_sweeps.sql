-- backplane:compatible-from 0013_low_watermark
CREATE INDEX `apikey_expires_at` ON `api_keys` (`expires_at`);
CREATE INDEX `apikey_revoked_at` ON `api_keys` (`revoked_at`);
CREATE INDEX `deadletter_expiring` ON `dead_letters` (`failed_at`) WHERE replayed_at IS NULL;
CREATE INDEX `service_ended` ON `services` (`updated_at`) WHERE deregistered;
