-- atlas:txmode none
-- backplane:compatible-from 0020_payments
CREATE INDEX CONCURRENTLY "user_other_than_customer" ON "users" ("id") WHERE ((roles)::text <> 'CUSTOMER'::text);
