-- backplane:compatible-from 0021_log_place
CREATE INDEX `user_other_than_customer` ON `users` (`id`) WHERE roles <> 'CUSTOMER';
