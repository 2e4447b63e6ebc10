-- backplane:compatible-from 0011_erasures
CREATE INDEX `order_noted` ON `orders` (`user_id`) WHERE note <> '';
