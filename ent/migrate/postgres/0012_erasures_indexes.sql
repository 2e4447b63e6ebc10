-- atlas:txmode none
-- backplane:compatible-from 0011_erasures
CREATE INDEX CONCURRENTLY "order_noted" ON "orders" ("user_id") WHERE ((note)::text <> ''::text);
