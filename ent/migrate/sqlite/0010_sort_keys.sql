ALTER TABLE `users` ADD COLUMN `username_sort` text NOT NULL DEFAULT '';
CREATE INDEX `user_username_sort_id` ON `users` (`username_sort`, `id`);
