-- backplane:compatible-from 0020_payments
CREATE INDEX `user_other_than_customer` ON `users` (`id`) WHERE roles <> 'CUSTOMER';
