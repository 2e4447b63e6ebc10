-- backplane:compatible-from 0019_payment_providers
CREATE TABLE `payments` (`id` text NOT NULL, `order_id` text NOT NULL, `order_number` text NOT NULL, `user_id` text NOT NULL, `amount_minor` integer NOT NULL, `currency` text NOT NULL, `status` text NOT NULL, `known` text NOT NULL, `reference` text NOT NULL, `failure` text NOT NULL, `attempts` integer NOT NULL, `failures` integer NOT NULL, `sent_at` datetime NULL, `next_at` datetime NULL, `deadline_at` datetime NULL, `claim` integer NOT NULL, `claimed` bool NOT NULL, `fresh` bool NOT NULL, `version` integer NOT NULL, `created_at` datetime NOT NULL, `updated_at` datetime NOT NULL, PRIMARY KEY (`id`), CONSTRAINT `payments_amount_not_negative` CHECK (amount_minor >= 0), CONSTRAINT `payments_currency_is_code` CHECK (length(currency) = 3), CONSTRAINT `payments_knowledge_known` CHECK (known IN ('NOTHING_SENT', 'UNKNOWN', 'KNOWN')), CONSTRAINT `payments_status_known` CHECK (status IN ('PENDING', 'SUCCEEDED', 'FAILED', 'REFUNDING', 'REFUNDED')), CONSTRAINT `payments_version_counts` CHECK (version >= 1));
CREATE UNIQUE INDEX `payments_order_id_key` ON `payments` (`order_id`);
CREATE INDEX `payment_created_at_id` ON `payments` (`created_at`, `id`);
CREATE INDEX `payment_status_created_at_id` ON `payments` (`status`, `created_at`, `id`);
CREATE INDEX `payment_user_id_created_at_id` ON `payments` (`user_id`, `created_at`, `id`);
CREATE INDEX `payment_next_at` ON `payments` (`next_at`) WHERE next_at IS NOT NULL;
CREATE INDEX `payment_deadline_at` ON `payments` (`deadline_at`) WHERE deadline_at IS NOT NULL;
CREATE TABLE `payment_attempts` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `payment_id` text NOT NULL, `number` integer NOT NULL, `step` text NOT NULL, `instance` text NOT NULL, `outcome` text NOT NULL, `message` text NOT NULL, `at` datetime NOT NULL, `duration_micros` integer NOT NULL);
CREATE UNIQUE INDEX `paymentattempt_payment_id_number` ON `payment_attempts` (`payment_id`, `number`);
CREATE TABLE `payment_callbacks` (`id` text NOT NULL, `payment_id` text NOT NULL, `refund_id` text NOT NULL, `status` text NOT NULL, `reference` text NOT NULL, `failure` text NOT NULL, `message` text NOT NULL, `instance` text NOT NULL, `sent_at` datetime NOT NULL, `received_at` datetime NOT NULL, `next_at` datetime NULL, PRIMARY KEY (`id`));
CREATE INDEX `paymentcallback_next_at` ON `payment_callbacks` (`next_at`) WHERE next_at IS NOT NULL;
CREATE INDEX `paymentcallback_received_at` ON `payment_callbacks` (`received_at`);
