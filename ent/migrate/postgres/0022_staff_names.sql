-- atlas:txmode none
-- backplane:compatible-from 0021_log_place_timelines
CREATE INDEX CONCURRENTLY "user_other_than_customer" ON "users" ("id") WHERE ((roles)::text <> 'CUSTOMER'::text);
