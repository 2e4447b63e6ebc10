-- backplane:compatible-from 0010_sort_keys
CREATE TABLE `erasures` (`user_id` text NOT NULL, `requested_at` datetime NOT NULL, `covers_until` datetime NOT NULL, `position` integer NOT NULL DEFAULT 0, `due_at` datetime NOT NULL, PRIMARY KEY (`user_id`));
